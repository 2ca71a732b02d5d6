"""Boxes: overlap, coding against a reference box, clipping. All boxes are `(x0, y0, x1, y1)` in pixels."""

import math

import torch
from torch import Tensor

# A regressed side is at most this many times the reference's: exp of anything larger is no box any more.
_LARGEST_LOG_SCALE = math.log(1000 / 16)

RPN_STD = (1.0, 1.0, 1.0, 1.0)
BOX_HEAD_STD = (0.1, 0.1, 0.2, 0.2)


def area(boxes_xyxy: Tensor) -> Tensor:
    """Areas `(N,)` of `(N, 4)` boxes."""
    return (boxes_xyxy[:, 2] - boxes_xyxy[:, 0]) * (boxes_xyxy[:, 3] - boxes_xyxy[:, 1])


def visible(boxes_xyxy: Tensor) -> Tensor:
    """Whether each of `(N, 4)` boxes is a pixel wide and high, or more: `(N,)` bool; False where a number is none."""
    return ((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]) >= 1).all(1)


def intersection(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Areas `(N, M)` of the pairwise intersections of `(N, 4)` and `(M, 4)` boxes."""
    width = torch.minimum(a_xyxy[:, None, 2], b_xyxy[None, :, 2])
    width.sub_(torch.maximum(a_xyxy[:, None, 0], b_xyxy[None, :, 0])).clamp_(min=0)
    height = torch.minimum(a_xyxy[:, None, 3], b_xyxy[None, :, 3])
    height.sub_(torch.maximum(a_xyxy[:, None, 1], b_xyxy[None, :, 1])).clamp_(min=0)
    return width.mul_(height)


def iou(a_xyxy: Tensor, b_xyxy: Tensor) -> Tensor:
    """Intersection over union `(N, M)` of `(N, 4)` and `(M, 4)` boxes; 0 where both are empty."""
    shared = intersection(a_xyxy, b_xyxy)
    union = area(a_xyxy)[:, None] + area(b_xyxy)[None, :] - shared
    return shared.div_(union.clamp_(min=1e-9))


def covered(boxes_xyxy: Tensor, regions_xyxy: Tensor) -> Tensor:
    """Largest share `(N,)` of each of `(N, 4)` boxes that lies in one of `(M, 4)` regions; 0 without regions."""
    if not len(regions_xyxy):
        return boxes_xyxy.new_zeros(len(boxes_xyxy))
    return intersection(boxes_xyxy, regions_xyxy).max(1).values / area(boxes_xyxy).clamp(min=1e-9)


def encode(boxes_xyxy: Tensor, references_xyxy: Tensor, std: tuple[float, ...]) -> Tensor:
    """`(dx, dy, dw, dh)` of boxes `(N, 4)` against references `(N, 4)`, divided by `std` (R-CNN, arXiv 1311.2524)."""
    centre, size = _centre_size(boxes_xyxy)
    reference_centre, reference_size = _centre_size(references_xyxy)
    deltas = torch.cat([(centre - reference_centre) / reference_size, torch.log(size / reference_size)], dim=1)
    return deltas / deltas.new_tensor(std)


def decode(deltas: Tensor, references_xyxy: Tensor, std: tuple[float, ...]) -> Tensor:
    """The boxes `(..., 4)` that `encode` coded as `deltas (..., 4)` against `references_xyxy (..., 4)`."""
    deltas = deltas * deltas.new_tensor(std)
    centre, size = _centre_size(references_xyxy)
    centre = centre + deltas[..., :2] * size
    size = size * deltas[..., 2:].clamp(-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE).exp()
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def clip(boxes_xyxy: Tensor, height: int, width: int) -> Tensor:
    """Boxes `(..., 4)` cut to an image of `height` x `width` pixels."""
    x = boxes_xyxy[..., 0::2].clamp(0, width)
    y = boxes_xyxy[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def _centre_size(boxes_xyxy: Tensor) -> tuple[Tensor, Tensor]:
    # Sides under a hundredth of a pixel come from rounding; they must not divide by zero.
    size = (boxes_xyxy[..., 2:] - boxes_xyxy[..., :2]).clamp(min=1e-2)
    return (boxes_xyxy[..., :2] + boxes_xyxy[..., 2:]) / 2, size
