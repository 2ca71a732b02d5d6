"""Which objects are to be looked at. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING
from rs4d_qgis.review.logic.objects import ReviewObject


@dataclass(frozen=True)
class Filters:
    """What has no score passes whatever is asked of scores.

    Attributes:
        classes: None for all.
        statuses: those wanted.
        least_score, most_score: both included. 1 lets more than 1 pass too: others tell scores in per cent.
        cuts: of a class, the score under which its objects are out, unless they are accepted. Classes without one have
            none.
    """

    classes: frozenset[str] | None = None
    statuses: frozenset[str] = frozenset({PENDING})
    least_score: float = 0.0
    most_score: float = 1.0
    cuts: Mapping[str, float] = field(default_factory=dict)

    def matches(self, item: ReviewObject) -> bool:
        """Whether this object is to be looked at."""
        if item.status not in self.statuses or (self.classes is not None and item.class_name not in self.classes):
            return False
        if item.score is None:
            return True
        most = self.most_score if self.most_score < 1.0 else math.inf
        return self.least_score <= item.score <= most and not self.is_cut(item)

    def is_cut(self, item: ReviewObject) -> bool:
        """Whether the score cut takes this object away."""
        if item.score is None or item.status == ACCEPTED:
            return False
        return item.score < self.cuts.get(item.class_name, 0.0)
