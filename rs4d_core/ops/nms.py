"""Non-maximum suppression of boxes."""

import torch
from torch import Tensor

from rs4d_core.errors import OptionError


def nms(boxes_xyxy: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Keep the best of each heap of overlapping boxes.

    Best first, each box that is still there removes all worse ones whose intersection over union with it is greater
    than `iou_threshold`. Of two boxes with the same score the one with the lower index counts as better.

    Args:
        boxes_xyxy: `(K, 4)`. Compared in float32.
        scores: `(K,)`.

    Returns:
        `(kept,)` int64 indices, best first, on the boxes' device.

    Raises:
        OptionError: the shapes do not fit each other.
    """
    return batched_nms(boxes_xyxy, scores, torch.zeros_like(scores, dtype=torch.int64), iou_threshold)


def batched_nms(
    boxes_xyxy: Tensor, scores: Tensor, groups: Tensor, iou_threshold: float, most: int | None = None
) -> Tensor:
    """As `nms`, but boxes only remove boxes of their own group: a class, a pyramid level, an image.

    The groups are compared as such. (The usual trick, one `nms` after moving each group by the largest coordinate,
    costs digits of the coordinates, and so changes which boxes remain.)

    Args:
        boxes_xyxy: `(K, 4)`. Compared in float32.
        scores: `(K,)`.
        groups: `(K,)` int64.
        most: how many are wanted, the best of all groups; None for all.

    Returns:
        `(kept,)` int64 indices over all groups, best first, on the boxes' device.

    Raises:
        OptionError: the shapes do not fit each other.
    """
    if boxes_xyxy.ndim != 2 or boxes_xyxy.shape[1] != 4 or not len(boxes_xyxy) == len(scores) == len(groups):
        raise OptionError(
            f"NMS takes boxes of (K, 4) with K scores and groups, not {tuple(boxes_xyxy.shape)}, {tuple(scores.shape)} "
            f"and {tuple(groups.shape)}: give one row for each box"
        )
    # numba takes half a second to import.
    from rs4d_core.ops.nms_numba import suppress

    # Boxes on a GPU are compared on the CPU too: a few thousand at most, whereas the walk from box to box is serial.
    order = scores.detach().cpu().argsort(descending=True, stable=True)
    boxes = boxes_xyxy.detach().cpu().float()[order]
    groups = groups.detach().cpu().long()[order]
    kept = torch.empty(len(order) if most is None else min(most, len(order)), dtype=torch.int64)
    count = suppress(boxes.numpy(), groups.numpy(), iou_threshold, kept.numpy())
    return order[kept[:count]].to(boxes_xyxy.device)
