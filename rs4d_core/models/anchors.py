"""Anchors: the reference boxes of the region proposals."""

import torch
from torch import Tensor

from rs4d_core.models.neck import STRIDES

RATIOS = (0.5, 1.0, 2.0)  # height over width


def anchor_count(scales: tuple[float, ...]) -> int:
    """Anchors at each position of a level."""
    return len(scales) * len(RATIOS)


def anchors_at(chosen: Tensor, width: int | Tensor, stride: int | Tensor, scales: tuple[float, ...]) -> Tensor:
    """Anchors `(..., 4)`, xyxy in image pixels.

    Args:
        chosen: `(...)` which ones of their level, numbered position by position, row-major; the A of a position lie
            together.
        width: how many positions wide the level is: one number, or one for each that is chosen.
        stride: pixels between its positions, in the same way.
        scales: sides of the anchors, in strides.

    Anchors are centred on the corner of their cell (`index * stride`), the convention of the public checkpoints.
    """
    device = chosen.device
    ratios = torch.tensor(RATIOS, device=device).repeat_interleave(len(scales))
    sides = torch.tensor(scales, device=device).repeat(len(RATIOS))
    half_h, half_w = sides * ratios.sqrt() / 2, sides / ratios.sqrt() / 2
    shapes = torch.stack([-half_w, -half_h, half_w, half_h], dim=1)
    position, shape = chosen // len(shapes), chosen % len(shapes)
    x, y = position % width, position // width
    return (torch.stack([x, y, x, y], dim=-1) + shapes[shape]) * torch.as_tensor(stride, device=device)[..., None]


def pyramid_anchors(levels: list[Tensor], scales: tuple[float, ...]) -> list[Tensor]:
    """Anchors `(H/s * W/s * A, 4)` of every level of a pyramid of maps `(B, C, H/s, W/s)`."""
    anchors = []
    for level, stride in zip(levels, STRIDES, strict=True):
        height, width = level.shape[2:]
        every = torch.arange(height * width * anchor_count(scales), device=level.device)
        anchors.append(anchors_at(every, width, stride, scales))
    return anchors
