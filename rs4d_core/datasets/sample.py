"""One labelled image of a data set, whatever the data set's own files look like."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


@dataclass(frozen=True, eq=False)
class Annotation:
    """One instance of an image, or one crowd region.

    Attributes:
        label: index into the classes that the samples were read for.
        box_xyxy: pixels, clipped to the image, of positive area. Where there is an outline, its tight box.
        polygons: the outline as the union of rings, each `(K, 2)` float64 x, y in pixels; None where there is none.
        rle: the outline as pycocotools run lengths (`{"size": [h, w], "counts": bytes}`) of the whole image; None where
            there is none. An instance has polygons, or run lengths, or neither (a box only), never both.
        crowd: the region holds several objects of the class that are not told apart: it is to be ignored.
    """

    label: int
    box_xyxy: tuple[float, float, float, float]
    polygons: tuple[np.ndarray, ...] | None = None
    rle: dict | None = None
    crowd: bool = False

    @property
    def has_outline(self) -> bool:
        """Whether the instance can train a mask, and not only a box."""
        return self.polygons is not None or self.rle is not None


@dataclass(frozen=True, eq=False)
class Sample:
    """One image with its annotations.

    Attributes:
        image: path of the image file; or the encoded file itself (JPEG, PNG), for images that exist only in memory.
        width: of the image, pixels.
        height: of the image, pixels.
        image_id: unique inside its data set.
        annotations: instances and crowd regions.
        annotated: for each class, whether this image's data set labels it. Where it does not, the absence of an
            annotation says nothing about the image.
        doubtful: labels that are annotated, as the data set says, and may be missing in this image all the same.
            Training and the choice of scores do as if they were not annotated; average precision, which has to compare
            with that of others, takes the data set at its word.
    """

    image: Path | bytes = field(repr=False)
    width: int
    height: int
    image_id: int
    annotations: tuple[Annotation, ...]
    annotated: tuple[bool, ...]
    doubtful: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """What to call the image in a message."""
        return str(self.image) if isinstance(self.image, Path) else f"generated image {self.image_id}"
