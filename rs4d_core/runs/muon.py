"""Muon (K. Jordan and others, 2024, kellerjordan.github.io/posts/muon; scale as in arXiv 2502.16982): momentum, made
orthogonal matrix by matrix.

torch's own takes matrices alone. Here most weights are convolutions, whose kernels are matrices of one row for each
output channel.
"""

import torch
from torch import Tensor

_MOMENTUM = 0.95
_STEPS = 5
_COEFFICIENTS = 3.4445, -4.7750, 2.0315
# Of an update's entries, as root mean square and times the learning rate: what AdamW's have, so that the rates of the
# one do for the other.
_UPDATE_RMS = 0.2


class MuonAdamW(torch.optim.AdamW):
    """Groups of parameters with `"muon": True` by Muon, those with `"muon": False` by AdamW."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """Muon's products of matrices are computed as the autocast around it says."""
        groups = self.param_groups
        self.param_groups = [group for group in groups if not group["muon"]]
        try:
            super().step()
        finally:
            self.param_groups = groups
        for group in groups:
            if group["muon"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._step_of(parameter, group["lr"], group["weight_decay"])

    def _step_of(self, parameter: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"].lerp_(parameter.grad, 1 - _MOMENTUM)
        ahead = parameter.grad.lerp(momentum, _MOMENTUM).flatten(1)  # Nesterov's
        update = orthogonalized(ahead).view(parameter.shape)
        parameter.mul_(1 - lr * weight_decay)
        parameter.add_(update, alpha=-lr * _UPDATE_RMS * max(ahead.shape) ** 0.5)


def orthogonalized(matrix: Tensor) -> Tensor:
    """`(M, N)` float32 with singular values near 1 (0.7 to 1.2, but for vanishing ones) in the place of its own, by a
    Newton-Schulz iteration of fifth order."""
    a, b, c = _COEFFICIENTS
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    wide = wide / wide.norm().clamp(min=1e-7)
    for _ in range(_STEPS):
        gram = wide @ wide.T
        wide = a * wide + (b * gram + c * (gram @ gram)) @ wide
    return (wide if matrix.shape[0] <= matrix.shape[1] else wide.T).to(matrix.dtype)
