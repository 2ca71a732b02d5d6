"""How scores are spread, and what a cut leaves of them. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass

# Of what is shown of scores: their range is widened to whole hundredths.
_STEPS = 100


@dataclass(frozen=True)
class ScoreHistogram:
    """Of scores from 0 to 1.

    Attributes:
        scores: ascending.
        least, most: the range of the bins, in hundredths around that of the scores.
        counts: of the bins, which are equally wide; the last one includes its upper end.
    """

    scores: tuple[float, ...]
    least: float
    most: float
    counts: tuple[int, ...]

    @classmethod
    def of(cls, scores: Iterable[float], bins: int = 40) -> ScoreHistogram:
        """Count them. Without a score, or where all are equal, there are no bins."""
        ordered = tuple(sorted(scores))
        if not ordered or ordered[0] == ordered[-1]:
            return cls(ordered, 0.0, 1.0, ())
        least, most = math.floor(ordered[0] * _STEPS) / _STEPS, math.ceil(ordered[-1] * _STEPS) / _STEPS
        counts = [0] * bins
        for score in ordered:
            counts[min(int((score - least) / (most - least) * bins), bins - 1)] += 1
        return cls(ordered, least, most, tuple(counts))

    @property
    def can_be_cut(self) -> bool:
        """Whether a cut could part these scores."""
        return bool(self.counts)

    def under(self, cut: float) -> int:
        """How many scores are lower."""
        return bisect_left(self.scores, cut)
