"""Which truth a box is to learn, and which boxes a step learns from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.instances import Target

# A box that lies this much inside an ignored region is no example of background.
_IGNORED_SHARE = 0.5


@dataclass(frozen=True)
class Assignment:
    """What M boxes are to learn.

    Attributes:
        truth: `(M,)` int64, index of the box's instance; meaningful where `positive`.
        positive: `(M,)` bool.
        negative: `(M,)` bool. A box that is neither is not learned from.
    """

    truth: Tensor
    positive: Tensor
    negative: Tensor


def assign(
    boxes_xyxy: Tensor, target: Target, positive_iou: float, negative_iou: float, keep_best: float | None = None
) -> Assignment:
    """Match boxes `(M, 4)` to the instances of an image.

    Args:
        boxes_xyxy: `(M, 4)`.
        target: the image's truth.
        positive_iou: overlap from which a box is positive.
        negative_iou: overlap under which a box is negative.
        keep_best: also make each instance's best boxes positive, if their overlap reaches this.
    """
    free = box_ops.covered(boxes_xyxy, target.ignore_xyxy) < _IGNORED_SHARE
    if not len(target.labels):
        nothing = torch.zeros_like(free)
        return Assignment(torch.zeros_like(free, dtype=torch.int64), nothing, free)
    # (N, M): the reductions over the many boxes then run along memory.
    overlaps = box_ops.iou(target.boxes_xyxy, boxes_xyxy)
    best, truth = overlaps.max(0)
    positive = best >= positive_iou
    if keep_best is not None:
        best_of_instance = overlaps.max(1).values
        instance, box = torch.nonzero(
            (overlaps == best_of_instance[:, None]) & (best_of_instance[:, None] >= keep_best), as_tuple=True
        )
        truth[box] = instance
        positive[box] = True
    return Assignment(truth, positive, (best < negative_iou) & ~positive & free)


def sample(assignment: Assignment, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """Indices of at most `count` boxes, drawn at random: positives (at most `positive_share` of them), negatives."""
    positive = _draw(assignment.positive, int(count * positive_share))
    return positive, _draw(assignment.negative, count - len(positive))


def _draw(mask: Tensor, count: int) -> Tensor:
    candidates = torch.nonzero(mask).squeeze(1)
    if len(candidates) <= count:
        return candidates
    return candidates[torch.randperm(len(candidates), device=mask.device)[:count]]
