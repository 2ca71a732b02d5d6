"""The anchors that are worth most to each class."""

import torch
from torch import Tensor

_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


def best_anchors(logits: Tensor, anchors: int, count: int) -> tuple[Tensor, Tensor]:
    """Of the sums of each anchor's common logit and a class's own, in float32, the largest; without gradients.

    Args:
        logits: `(B, P, (1 + K) * A)` of P positions: the A anchors' common logits, then those of the first class, ...
        anchors: A.
        count: how many of each class; all where there are no more.

    Returns:
        The sums `(B, K, count)` and the anchors `(B, K, count)` int64 of 0 to P * A - 1 that they are of, in any order.
    """
    if logits.device.type == "cpu" and logits.dtype in _COMPILED_DTYPES:
        # numba takes half a second to import.
        from rs4d_core.ops.best_anchors_numba import best_anchors_numba

        return best_anchors_numba(logits, anchors, count)
    common, own = logits.float().split([anchors, logits.shape[2] - anchors], dim=2)
    sums = (common[:, None] + own.unflatten(2, (-1, anchors)).transpose(1, 2)).flatten(2)
    return sums.topk(min(count, sums.shape[2]), dim=2, sorted=False)
