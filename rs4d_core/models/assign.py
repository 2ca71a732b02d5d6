"""Which truth a box is to learn, and which boxes a step learns from."""

from dataclasses import dataclass

import torch
from torch import Tensor

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.instances import Target
from rs4d_core.ops.best_overlap import best_overlap

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
        keep_best: also make each instance's best box positive, if its overlap reaches this.
    """
    free = box_ops.covered(boxes_xyxy, target.ignore_xyxy) < _IGNORED_SHARE
    if not len(target.labels):
        nothing = torch.zeros_like(free)
        return Assignment(torch.zeros_like(free, dtype=torch.int64), nothing, free)
    best, truth, best_of_instance, box_of_instance = best_overlap(boxes_xyxy, target.boxes_xyxy)
    positive = best >= positive_iou
    if keep_best is not None:
        reached = torch.nonzero(best_of_instance >= keep_best).squeeze(1)
        truth[box_of_instance[reached]] = reached
        positive[box_of_instance[reached]] = True
    return Assignment(truth, positive, (best < negative_iou) & ~positive & free)


def sample(
    assignment: Assignment, count: int, positive_share: float, most_negatives: float | None = None
) -> tuple[Tensor, Tensor]:
    """Indices of at most `count` boxes, drawn at random: positives (at most `positive_share` of them), negatives.

    Args:
        assignment: of the boxes to draw from.
        count: how many in all.
        positive_share: largest share of positives.
        most_negatives: at most this many negatives for each positive, counting at least 8 positives.
    """
    positive = _draw(assignment.positive, int(count * positive_share))
    room = count - len(positive)
    if most_negatives is not None:
        room = min(room, int(most_negatives * max(len(positive), 8)))
    return positive, _draw(assignment.negative, room)


def _draw(mask: Tensor, count: int) -> Tensor:
    candidates = torch.nonzero(mask).squeeze(1)
    if len(candidates) <= count:
        return candidates
    return candidates[torch.randperm(len(candidates), device=mask.device)[:count]]
