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


def cuts(scores: np.ndarray, hits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of predictions with falling `scores (N,)`, at least one, where cuts can lie: equal scores are cut together.

    Returns:
        The index of the last prediction of each score, and how many `hits (N,)` (bool) there are up to it: `(C,)` each.
    """
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    return ends, np.cumsum(hits)[ends]


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
    ends, matched = cuts(scores, hits)
    if len(ends) > MOST_POINTS:
        shown = np.linspace(0, len(ends) - 1, MOST_POINTS).round().astype(int)
        ends, matched = ends[shown], matched[shown]
    return ScoreCurve(
        tuple(scores[ends].tolist()), tuple((matched / (ends + 1)).tolist()), tuple((matched / reference).tolist())
    )
