"""A training run's state on disk: one safetensors file, tensors and JSON, nothing that could run code when loaded."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from rs4d_core.errors import CheckpointError, OutputError
from rs4d_core.whole_file import write_whole

KEPT = 2
"""Checkpoints kept: the newest, and one before it in case the newest turns out to be unreadable."""
_NAME = re.compile(r"step-(\d{9})\.safetensors")


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: dict[str, Any],
    memory: dict[str, torch.Tensor],
) -> Path:
    """Write `step-N.safetensors` and remove the oldest beyond `KEPT`.

    The file appears under its name only when it is whole and on the disk, so that a crash leaves the one before.

    Args:
        state: what JSON can hold: the counters of the run, and the recipe.
        memory: tensors that the run keeps besides its weights.

    Raises:
        OutputError: it cannot be written.
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in entries.items()}
    tensors |= {f"memory.{name}": value for name, value in memory.items()}
    # Clones, as safetensors refuses tensors that share memory.
    tensors = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    path = folder / f"step-{step:09d}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(tensors, {"state": json.dumps(state)}))
        for old in checkpoints(folder)[:-KEPT]:
            old.unlink()
    except OSError as error:
        raise OutputError(f"cannot write the checkpoint {path}: {error}; make room, then start again") from error
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted(path for path in folder.glob("step-*.safetensors") if _NAME.fullmatch(path.name))


def read_state(path: Path) -> dict[str, Any]:
    """The counters and the recipe of a checkpoint.

    Raises:
        CheckpointError: the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return json.loads(file.metadata()["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} is damaged: remove it to go on from the one before") from error


def restore_checkpoint(
    path: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Load a checkpoint into model, averaged model and optimizer; returns its state and its memory.

    Raises:
        CheckpointError: the file is damaged, or was written for another model.
    """
    state = read_state(path)
    parts: dict[str, dict[str, torch.Tensor]] = {"model": {}, "average": {}, "optimizer": {}, "memory": {}}
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 (a safetensors file is not iterable)
                part, name = key.split(".", 1)
                parts[part][name] = file.get_tensor(key)
        model.load_state_dict(parts["model"])
        average.load_state_dict(parts["average"])
        optimizer.load_state_dict(_optimizer_state(optimizer, parts["optimizer"]))
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint {path} does not fit this model: train under another name") from error
    return state, parts["memory"]


def _optimizer_state(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
