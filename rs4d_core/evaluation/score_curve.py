"""Precision and recall over the score: what a cut at each score would leave."""

from dataclasses import dataclass

import numpy as np

# More cannot be told apart on a screen, and the curves of all classes travel in one message.
MOST_POINTS = 100


@dataclass(frozen=True)
class ScoreCurve:
    """Precision and recall if only predictions of a score or better counted.

    Attributes:
        score: falling, no value twice.
        precision, recall: at each of them, 0..1.
    """

    score: tuple[float, ...]
    precision: tuple[float, ...]
    recall: tuple[float, ...]


def score_curve(scores: np.ndarray, hits: np.ndarray, reference: int) -> ScoreCurve | None:
    """The curve of predictions with falling `scores (N,)` of which `hits (N,)` bool match one of `reference` polygons.

    Predictions whose score is not known, which come last as NaN, are left out: no cut tells them from others. At most
    `MOST_POINTS` points, spread evenly over the distinct scores, the best and the least always among them. None without
    scores, and without reference polygons.
    """
    known = int(np.isfinite(scores).sum())
    scores, hits = scores[:known], hits[:known]
    if not len(scores) or not reference:
        return None
    # Equal scores are cut together: the last of them counts.
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    if len(ends) > MOST_POINTS:
        ends = ends[np.linspace(0, len(ends) - 1, MOST_POINTS).round().astype(int)]
    matched = np.cumsum(hits)[ends]
    return ScoreCurve(
        tuple(scores[ends].tolist()), tuple((matched / (ends + 1)).tolist()), tuple((matched / reference).tolist())
    )
