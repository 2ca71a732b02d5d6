"""Learning rate, weight decay and averaged weights over a run: functions of the step, nothing to restore."""

import copy
import math

import torch
from torch import nn

from rs4d_core.runs.muon import MuonAdamW
from rs4d_core.runs.settings import Optimization

_OUTPUTS = ("rpn_cls", "rpn_own", "rpn_reg", "fc_cls", "fc_reg", "conv_logits")
_SMALLEST_SIDE = 16


def learning_rate(step: int, settings: Optimization) -> float:
    """Of the optimizer step with number `step`, from 0: linear warm-up to `lr`, then a cosine to `final_lr`."""
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / settings.warmup_steps
    progress = (step - settings.warmup_steps) / max(settings.steps - settings.warmup_steps, 1)
    return settings.final_lr + (settings.lr - settings.final_lr) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def build_optimizer(model: nn.Module, settings: Optimization) -> torch.optim.AdamW:
    """AdamW, or Muon with AdamW for what Muon is not meant for. Both decay weight matrices only.

    Norms, biases and the skip D are vectors; A_log is a matrix, but decay would pull the state space's time scales to a
    value that means nothing (Mamba's own training leaves A_log and D out as well).
    """
    orthogonal = _matrices_of(model) if settings.optimizer == "muon" else set()
    muon, decayed, kept = [], [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            plain = parameter.ndim <= 1 or name.rsplit(".", 1)[-1] == "A_log"
            (muon if name in orthogonal else kept if plain else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": settings.weight_decay, "muon": False},
        {"params": kept, "weight_decay": 0.0, "muon": False},
    ]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=settings.lr)
    return MuonAdamW([*groups, {"params": muon, "weight_decay": settings.weight_decay, "muon": True}], lr=settings.lr)


def _matrices_of(model: nn.Module) -> set[str]:
    """Names of the weights that map features to features: not the outputs, whose rows have nothing to do with each
    other, and not what is only a few rows or columns."""
    layers = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)
    return {
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, layers)
        and name.rsplit(".", 1)[-1] not in _OUTPUTS
        and min(layer.weight.flatten(1).shape) >= _SMALLEST_SIDE
    }


class WeightAverage:
    """An exponential moving average of a model's weights, as a model of its own (`.model`, in evaluation mode).

    The decay grows from 0.1 to its setting as min(decay, (1 + t) / (10 + t)): the first, random weights are forgotten
    quickly. Buffers are copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after the optimizer step with number `step`, from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        for average, value in zip(self.model.parameters(), model.parameters(), strict=True):
            average.lerp_(value, 1 - decay)
        for average, value in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(value)
