"""What goes into a segmenter's losses (`Target`) and what comes out of its prediction (`Instances`)."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """The truth of one training image of `(H, W)` pixels.

    Attributes:
        boxes_xyxy: `(N, 4)` float32, pixels; pixel `(row, col)` covers `[col, col + 1] x [row, row + 1]`.
        labels: `(N,)` int64, index into the model's classes.
        masks: `(N, H, W)` bool. A row that is all False where `has_mask` is False.
        has_mask: `(N,)` bool. Instances with a box but no outline train the box, not the mask.
        ignore_xyxy: `(M, 4)` float32, crowd regions: neither foreground nor background is learned inside.
        annotated: `(C,)` bool, the classes that this image's data set labels. The absence of an instance of any other
            class means nothing, and is not learned.
    """

    boxes_xyxy: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor
    ignore_xyxy: Tensor
    annotated: Tensor

    def to(self, device: torch.device | str) -> "Target":
        """The same target with all tensors on `device`."""
        return Target(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class MaskPatch:
    """Probabilities that the pixels of a part of an image belong to one instance.

    Attributes:
        probabilities: `(h, w)` float32 in 0..1, on the CPU.
        box_xyxy: the extent of the patch in image pixels, as floats. Cell `(i, j)` has its centre at
            `x = x0 + (j + 0.5) * (x1 - x0) / w`, `y = y0 + (i + 0.5) * (y1 - y0) / h`. Outside the patch the
            probability is 0.
    """

    probabilities: Tensor
    box_xyxy: tuple[float, float, float, float]

    @property
    def certainty(self) -> float:
        """The mean probability of what it takes for the instance, above 0.5; 0.5 where that is nothing.

        The maskness of SOLO (arXiv 2106.15947, section 3.3).
        """
        probabilities = self.probabilities.numpy()
        inside = probabilities[probabilities > 0.5]
        return float(inside.mean()) if inside.size else 0.5


@dataclass(frozen=True)
class Instances:
    """The instances found in one image, best score first.

    Attributes:
        boxes_xyxy: `(N, 4)` float32, pixels, on the CPU.
        scores: `(N,)` float32 in 0..1.
        labels: `(N,)` int64, index into the model's classes.
        masks: N patches.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[MaskPatch]

    def __len__(self) -> int:
        return len(self.masks)
