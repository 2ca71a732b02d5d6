"""What each anchor is worth: what its best class is worth."""

import torch
from torch import Tensor

_COMPILED_DTYPES = (torch.float32, torch.bfloat16)


def best_class(logits: Tensor, anchors: int) -> Tensor:
    """The common logit of each anchor and the largest of its classes' own, added in float32; without gradients.

    Args:
        logits: `(B, P, (1 + K) * A)` of P positions: the A anchors' common logits, then those of the first class, ...
        anchors: A.

    Returns:
        `(B, P * A)` float32.
    """
    if logits.device.type == "cpu" and logits.dtype in _COMPILED_DTYPES:
        # numba takes half a second to import.
        from rs4d_core.ops.best_class_numba import best_class_numba

        return best_class_numba(logits, anchors)
    common, own = logits.split([anchors, logits.shape[2] - anchors], dim=2)
    return (common.float() + own.unflatten(2, (-1, anchors)).amax(2).float()).flatten(1)
