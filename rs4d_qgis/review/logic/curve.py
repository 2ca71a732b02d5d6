"""Precision and recall over the score. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Curve:
    """What a cut at each score would leave; see the engine's `evaluate`.

    Attributes:
        score: falling.
        precision, recall: at each of them, 0..1.
    """

    score: tuple[float, ...] = ()
    precision: tuple[float, ...] = ()
    recall: tuple[float, ...] = ()

    @classmethod
    def told(cls, curve: dict | None) -> Curve:
        """Of the engine's answer, which has none where there is nothing to draw."""
        return cls() if curve is None else cls(*(tuple(curve[name]) for name in ("score", "precision", "recall")))

    def f1(self, place: int) -> float:
        """The harmonic mean of both at a place, 0 where both are."""
        both = self.precision[place] + self.recall[place]
        return 2 * self.precision[place] * self.recall[place] / both if both else 0.0

    def best(self) -> int | None:
        """The place where F1 is best; None where there is none, or it is 0 everywhere."""
        best = max(range(len(self.score)), key=self.f1, default=None)
        return best if best is not None and self.f1(best) > 0 else None
