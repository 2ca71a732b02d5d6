"""Selective scan as its formula reads: one step after the other, in float64. For tests."""

import torch
from torch import Tensor


def scan_reference(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The selective scan (see `selective_scan`), computed in float64 and returned as float64. Differentiable."""
    u, delta, A, B, C, D = (tensor.double() for tensor in (u, delta, A, B, C, D))
    state = u.new_zeros(u.shape[0], *A.shape)
    outputs = [u[:, :0]]
    for t in range(u.shape[1]):
        decay = torch.exp(delta[:, t, :, None] * A)
        state = decay * state + (delta[:, t] * u[:, t])[:, :, None] * B[:, t, None, :]
        outputs.append((state * C[:, t, None, :]).sum(-1)[:, None])
    return torch.cat(outputs, dim=1) + D * u
