"""Residual sum and layer normalisation of tokens in one pass, on the CPU and without gradients."""

import numpy as np
from torch import Tensor

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of
from rs4d_core.ops.lanes import LANES, everywhere, load, store, sum_of

_ZERO = np.float32(0)


@compiled()
def _add_norm(tokens, added, weight, bias, epsilon, result, normed, dim, has_added, start, stop):
    """Tokens `start..stop`; all arrays are flat."""
    share = np.float32(1) / np.float32(dim)
    for token in range(start, stop):
        first = token * dim
        total = everywhere(_ZERO)
        for at in range(first, first + dim, LANES):
            x = load(tokens, at)
            if has_added:
                x = x + load(added, at)
                store(result, at, x)
            total = total + x
        mean = everywhere(sum_of(total) * share)
        total = everywhere(_ZERO)
        for at in range(first, first + dim, LANES):
            rest = load(result, at) - mean
            total = total + rest * rest
        scale = everywhere(np.float32(1) / np.sqrt(sum_of(total) * share + epsilon))
        for at in range(first, first + dim, LANES):
            rest = (load(result, at) - mean) * scale
            store(normed, at, rest * load(weight, at - first) + load(bias, at - first))


def add_norm(
    tokens: Tensor, added: Tensor | None, weight: Tensor, bias: Tensor, epsilon: float, result: Tensor, normed: Tensor
) -> None:
    """Write `tokens + added` to `result` and its layer normalisation to `normed`.

    Args:
        tokens: float32 `(..., d)`, d a multiple of `LANES`; all tensors are contiguous.
        added: as tokens, float32 or bfloat16. None: nothing is added, and `result` must be `tokens`.
        weight: float32 `(d,)`.
        bias: float32 `(d,)`.
        epsilon: added to the variance.
        result: float32, as tokens; may be `tokens` itself.
        normed: as tokens, float32 or bfloat16.
    """
    arrays = [array_of(tensor).reshape(-1) for tensor in (tokens, normed if added is None else added, weight, bias)]
    outputs = [array_of(tensor).reshape(-1) for tensor in (result, normed)]
    dim, epsilon, has_added = tokens.shape[-1], np.float32(epsilon), added is not None
    run_spans(
        lambda start, stop: _add_norm(*arrays, epsilon, *outputs, dim, has_added, start, stop), tokens.numel() // dim
    )
