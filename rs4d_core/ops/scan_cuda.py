"""Selective scan on NVIDIA GPUs: mamba-ssm's kernel."""

from torch import Tensor

from rs4d_core.errors import DependencyError
from rs4d_core.installation import add_command


def scan_cuda(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The selective scan (see `selective_scan`) on a CUDA device, computed in float32. Differentiable once.

    The kernel wants channels before the sequence: u and delta `(B, D, L)`, B and C `(B, N, L)`.

    Raises:
        DependencyError: mamba-ssm is not installed.
    """
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn
    except ImportError as error:
        raise DependencyError(
            f"the CUDA scan needs mamba-ssm, which is not installed: {add_command('cuda')}, or use 'chunked'"
        ) from error
    u, delta, B, C = (tensor.float().transpose(1, 2).contiguous() for tensor in (u, delta, B, C))
    return selective_scan_fn(u, delta, A.float(), B, C, D.float()).transpose(1, 2)
