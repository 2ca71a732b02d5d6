"""Anchors: the reference boxes of the region proposals."""

import torch
from torch import Tensor

from rs4d_core.models.neck import STRIDES

RATIOS = (0.5, 1.0, 2.0)  # height over width


def anchor_count(scales: tuple[float, ...]) -> int:
    """Anchors at each position of a level."""
    return len(scales) * len(RATIOS)


def level_anchors(height: int, width: int, stride: int, scales: tuple[float, ...], device: torch.device) -> Tensor:
    """Anchors `(height * width * A, 4)` of one level, xyxy in image pixels; the A of a position lie together.

    Anchors are centred on the corner of their cell (`index * stride`), the convention of the public checkpoints.
    """
    ratios = torch.tensor(RATIOS, device=device).repeat_interleave(len(scales))
    sides = torch.tensor(scales, device=device).repeat(len(RATIOS)) * stride
    half_h, half_w = sides * ratios.sqrt() / 2, sides / ratios.sqrt() / 2
    shapes = torch.stack([-half_w, -half_h, half_w, half_h], dim=1)
    y, x = torch.meshgrid(
        torch.arange(height, device=device) * stride, torch.arange(width, device=device) * stride, indexing="ij"
    )
    centres = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
    return (centres + shapes).reshape(-1, 4)


def pyramid_anchors(levels: list[Tensor], scales: tuple[float, ...]) -> list[Tensor]:
    """Anchors of every level of a pyramid of maps `(B, C, H/s, W/s)`."""
    return [
        level_anchors(level.shape[2], level.shape[3], stride, scales, level.device)
        for level, stride in zip(levels, STRIDES, strict=True)
    ]
