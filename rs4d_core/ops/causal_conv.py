"""The short causal convolution before a Mamba scan, with its SiLU, along a sequence and along its reverse."""

import torch
from torch import Tensor
from torch.nn import functional as F

from rs4d_core.errors import OptionError


def bidirectional_conv_silu(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`silu(conv(u))` and `silu(conv(flip(u)))`, one after the other in the batch.

    The convolution is depthwise and causal: step t sees the steps t - K + 1 to t, and zeros before the first one.
    CPU tensors of float32 or bfloat16 are computed by one compiled kernel, which needs neither a reversed copy of `u`
    nor a convolved one; all others by torch.

    Args:
        u: `(B, L, D)`, channels last.
        weight: `(D, K)`; the last column weighs the step itself.
        bias: `(D,)`.

    Returns:
        `(2B, L, D)` in u's dtype: B sequences from first to last step, then the same from last to first.

    Raises:
        OptionError: the shapes do not fit each other.
    """
    if u.ndim != 3 or weight.ndim != 2 or weight.shape[0] != u.shape[2] or bias.shape != u.shape[2:]:
        raise OptionError(
            f"the convolution takes u (B, L, D), weight (D, K) and bias (D,), "
            f"not {tuple(u.shape)}, {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    if u.device.type == "cpu" and u.dtype in (torch.float32, torch.bfloat16):
        from rs4d_core.ops.causal_conv_numba import conv_silu_numba

        return conv_silu_numba(u, weight, bias)
    both = torch.cat([u, u.flip(1)]).transpose(1, 2)
    kernel = weight.shape[1]
    convolved = F.conv1d(F.pad(both, (kernel - 1, 0)), weight[:, None], bias, groups=weight.shape[0])
    return F.silu(convolved.transpose(1, 2))
