"""What a bidirectional Mamba mixer does between its projections: step sizes, both scans, their mean and the gate."""

import functools
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from rs4d_core.errors import OptionError
from rs4d_core.ops.selective_scan import selective_scan


def bidirectional_scan(
    u: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, z: Tensor
) -> Tensor:
    """`0.5 (scan(first to last) + flip(scan(last to first))) silu(z)`, each with its own step sizes, B and C.

    With `dt, B, C` the columns of `projected`, the step sizes are `softplus(dt dt_weight^T + dt_bias)`, and the scan is
    that of `selective_scan`. CPU tensors of float32 or bfloat16 are computed by one compiled kernel, which holds
    neither step sizes nor the two scans' results in memory; CUDA tensors of float32 or half precision by kernels in
    Triton, where mamba-ssm's is not installed; all others by torch and `selective_scan`.

    Args:
        u: `(2B, L, D)`: B sequences from first to last step, then the same from last to first, as
            `bidirectional_conv_silu` gives them.
        projected: `(2B, L, R + 2N)`: of each step the low-rank step size, B and C.
        dt_weight: `(D, R)`.
        dt_bias: `(D,)`.
        A: `(D, N)` negative.
        D: `(D,)` the skip connection.
        z: `(B, L, D)` the gate, from first to last step.

    Returns:
        `(B, L, D)` in u's dtype, from first to last step. Half precisions are computed in float32.

    Raises:
        OptionError: the shapes do not fit each other.
    """
    _check_shapes(u, projected, dt_weight, dt_bias, A, D, z)
    if u.device.type == "cpu" and u.dtype in (torch.float32, torch.bfloat16):
        from rs4d_core.ops.bidirectional_scan_numba import bidirectional_scan_numba

        return bidirectional_scan_numba(u, projected, dt_weight, dt_bias, A, D, z)
    if u.device.type == "cuda" and u.dtype != torch.float64 and _preferred_on_cuda() == "triton":
        from rs4d_core.ops.bidirectional_scan_triton import bidirectional_scan_triton

        return bidirectional_scan_triton(u, projected, dt_weight, dt_bias, A, D, z)
    return bidirectional_scan_torch(u, projected, dt_weight, dt_bias, A, D, z)


def bidirectional_scan_torch(
    u: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, z: Tensor
) -> Tensor:
    """`bidirectional_scan` as its formula reads, for every device and dtype. Differentiable."""
    rank, states, batch = dt_weight.shape[1], A.shape[1], z.shape[0]
    dt, B, C = projected.split([rank, states, states], dim=-1)
    delta = F.softplus(F.linear(dt, dt_weight.to(dt.dtype), dt_bias.to(dt.dtype)))
    scanned = selective_scan(u, delta, A, B, C, D)
    mean = 0.5 * (scanned[:batch] + scanned[batch:].flip(1))
    return mean * F.silu(z)


@functools.cache
def _preferred_on_cuda() -> str:
    # Looked up once: it searches the disk, and is asked in every block.
    return "triton" if find_spec("mamba_ssm") is None and find_spec("triton") is not None else "torch"


def _check_shapes(u, projected, dt_weight, dt_bias, A, D, z) -> None:
    if u.ndim != 3 or dt_weight.ndim != 2 or A.ndim != 2 or u.shape[0] % 2:
        raise OptionError(
            f"the bidirectional scan takes u (2B, L, D), dt_weight (D, R) and A (D, N), "
            f"not {tuple(u.shape)}, {tuple(dt_weight.shape)} and {tuple(A.shape)}"
        )
    (double, length, channels), rank, states = u.shape, dt_weight.shape[1], A.shape[1]
    expected = {
        "projected": (projected, (double, length, rank + 2 * states)),
        "dt_weight": (dt_weight, (channels, rank)),
        "dt_bias": (dt_bias, (channels,)),
        "A": (A, (channels, states)),
        "D": (D, (channels,)),
        "z": (z, (double // 2, length, channels)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise OptionError(
                f"the bidirectional scan's {name} has shape {tuple(tensor.shape)}: with u of {tuple(u.shape)}, rank "
                f"{rank} and {states} states give it {shape}"
            )
