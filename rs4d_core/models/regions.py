"""Regions of a batch, and their features."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.neck import STRIDES
from rs4d_core.ops.roi_align import pyramid_roi_align

_FINEST_SIDE = 56.0
_LEVELS = 4


@dataclass(frozen=True)
class Regions:
    """K boxes of a batch of images.

    Attributes:
        boxes_xyxy: `(K, 4)`, pixels.
        batch_index: `(K,)` int64, each box's image.
    """

    boxes_xyxy: Tensor
    batch_index: Tensor

    def __len__(self) -> int:
        return len(self.batch_index)

    def __getitem__(self, chosen: Tensor) -> "Regions":
        return Regions(self.boxes_xyxy[chosen], self.batch_index[chosen])

    def padded(self, multiple: int) -> "Regions":
        """The same and, behind them, as many empty boxes as make their number a multiple of this.

        A CPU's library for matrix products and convolutions compiles and keeps code for each shape it meets. Every
        image has another number of regions: without this, code is compiled for every image, and memory grows by it.
        """
        missing = -len(self) % multiple
        return Regions(F.pad(self.boxes_xyxy, (0, 0, 0, missing)), F.pad(self.batch_index, (0, missing)))

    @classmethod
    def of_images(cls, boxes_xyxy: list[Tensor]) -> "Regions":
        """The boxes `(K_i, 4)` of each image i as one."""
        index = [torch.full((len(boxes),), image, device=boxes.device) for image, boxes in enumerate(boxes_xyxy)]
        return cls(torch.cat(boxes_xyxy), torch.cat(index))


def region_features(levels: list[Tensor], regions: Regions, size: int) -> Tensor:
    """Features `(K, C, size, size)`, channels last in memory, of the regions, each from the level that fits its size
    (FPN, arXiv 1612.03144).

    A region of side 56 reads stride 4, one of side 112 stride 8, and so on.
    """
    sides = box_ops.area(regions.boxes_xyxy).clamp(min=1e-6).sqrt()
    level_of = torch.log2(sides / _FINEST_SIDE + 1e-6).floor().clamp(0, _LEVELS - 1).long()
    finest = slice(_LEVELS)
    return pyramid_roi_align(levels[finest], level_of, regions.boxes_xyxy, regions.batch_index, size, STRIDES[finest])
