"""One object of a layer under review, as the queue sees it. Pure."""

from __future__ import annotations

from typing import NamedTuple


class ReviewObject(NamedTuple):
    """A polygon without its outline.

    Attributes:
        id: of the feature.
        class_name: "" where it has none.
        score: 0..1; None where it has none, as what was drawn by hand.
        status: one of `STATUSES`.
        area_m2: None where it is unknown.
        x, y: the middle of its bounding box, in the layer's CRS.
    """

    id: int
    class_name: str
    score: float | None
    status: str
    area_m2: float | None
    x: float
    y: float
