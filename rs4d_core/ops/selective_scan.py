"""The selective scan, the operation at the heart of a Mamba mixer, with one signature over several implementations."""

import importlib.util
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from rs4d_core.errors import OptionError

Implementation = Literal["auto", "cuda", "numba", "chunked", "reference"]


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    implementation: Implementation = "auto",
) -> Tensor:
    """The selective scan along a sequence, with skip connection.

    For each sequence, channel d and state n, from `h_0 = 0`::

        h_t = exp(delta_t A) h_(t-1) + delta_t u_t B_t        y_t = sum_n C_t h_t + D u_t

    Source: Gu and Dao, "Mamba", arXiv 2312.00752, equations 2 to 4: zero-order hold for A, and for B the simplified
    (Euler) discretisation `delta B` of the authors' code.

    Args:
        u: `(B, L, D)` the sequences, token-major: channels last.
        delta: `(B, L, D)` step sizes, positive (after the softplus).
        A: `(D, N)` negative.
        B: `(B, L, N)`.
        C: `(B, L, N)`.
        D: `(D,)`.
        implementation: which code computes it. "auto" takes "cuda" (mamba-ssm's kernel) for CUDA tensors where
            mamba-ssm is installed, "numba" for CPU tensors, and "chunked" (plain torch) for other devices and for
            float64. "reference", the loop over steps in float64, is taken only by name.

    Returns:
        `(B, L, D)` in u's dtype, differentiable with respect to all six tensors ("numba" and "cuda": once). Half
        precisions are computed in float32, since the state is a long sum.

    Raises:
        OptionError: the shapes do not fit each other, or the implementation is unknown or cannot take these tensors.
        DependencyError: "cuda" was asked for, and mamba-ssm is not installed.
    """
    _check_shapes(u, delta, A, B, C, D)
    if implementation == "auto":
        implementation = _best(u)
    return _function(implementation, u)(u, delta, A, B, C, D).to(u.dtype)


def _function(implementation: str, u: Tensor) -> Callable[..., Tensor]:
    # Each is imported when first used: numba takes half a second, mamba-ssm exists on few machines.
    if implementation == "numba":
        if u.dtype == torch.float64 or u.device.type != "cpu":
            raise OptionError(
                f"the numba scan takes float32 tensors on the CPU, not {u.dtype} on {u.device}: use 'chunked' for these"
            )
        from rs4d_core.ops.scan_numba import scan_numba

        return scan_numba
    if implementation == "chunked":
        from rs4d_core.ops.scan_chunked import scan_chunked

        return scan_chunked
    if implementation == "cuda":
        from rs4d_core.ops.scan_cuda import scan_cuda

        return scan_cuda
    if implementation == "reference":
        from rs4d_core.ops.scan_reference import scan_reference

        return scan_reference
    raise OptionError(f"unknown scan implementation {implementation!r}: use auto, cuda, numba, chunked or reference")


def _best(u: Tensor) -> str:
    if u.dtype == torch.float64:
        return "chunked"
    if u.device.type == "cpu":
        return "numba"
    if u.device.type == "cuda" and importlib.util.find_spec("mamba_ssm") is not None:
        return "cuda"
    return "chunked"


def _check_shapes(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> None:
    if u.ndim != 3 or A.ndim != 2:
        raise OptionError(
            f"the scan takes u of (B, L, D) and A of (D, N), not {tuple(u.shape)} and {tuple(A.shape)}: "
            "add the missing axes"
        )
    batch, length, channels = u.shape
    states = A.shape[1]
    expected = {
        "delta": (delta, (batch, length, channels)),
        "A": (A, (channels, states)),
        "B": (B, (batch, length, states)),
        "C": (C, (batch, length, states)),
        "D": (D, (channels,)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise OptionError(
                f"the scan's {name} has shape {tuple(tensor.shape)}: with u of {tuple(u.shape)} and {states} states "
                f"give it {shape}"
            )
