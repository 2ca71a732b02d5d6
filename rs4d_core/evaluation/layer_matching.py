"""Which predicted polygon is which reference polygon: the pairs that overlap, and their one to one match."""

import numpy as np
import shapely

# IoUs of equal overlaps differ by rounding.
ROUNDING = 1e-10


class Matcher:
    """Predictions, reference, and the IoU of each pair that overlaps.

    Args:
        found, truth: valid polygons `(N,)` and `(M,)` in one planar CRS.
        scores: `(N,)` of the predictions, NaN where one is not known: it ranks last, as it claims nothing.
        found_classes, truth_classes: names `(N,)` and `(M,)`; both None where classes are not compared.
    """

    def __init__(
        self,
        found: np.ndarray,
        scores: np.ndarray,
        found_classes: np.ndarray | None,
        truth: np.ndarray,
        truth_classes: np.ndarray | None,
    ) -> None:
        self.scores = scores
        self.found_classes = found_classes
        self.truth_classes = truth_classes
        self.truth_count = len(truth)
        found_index, truth_index = shapely.STRtree(truth).query(found, predicate="intersects")
        common = shapely.area(shapely.intersection(found[found_index], truth[truth_index]))
        union = shapely.area(found)[found_index] + shapely.area(truth)[truth_index] - common
        ious = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        same = np.ones(len(ious), dtype=bool)
        if found_classes is not None:
            same = found_classes[found_index] == truth_classes[truth_index]
        self._same = _by_prediction(found_index[same], truth_index[same], ious[same])
        self._others = _by_prediction(found_index[~same], truth_index[~same], ious[~same])

    def ranked(self, name: str | None) -> list[int]:
        """Predictions of a class, or all, best score first."""
        found = _members(self.found_classes, name, len(self.scores))
        return found[np.argsort(-self.scores[found], kind="stable")].tolist()

    def reference_count(self, name: str | None) -> int:
        """Reference polygons of a class, or all."""
        return len(_members(self.truth_classes, name, self.truth_count))

    def match(
        self, ranked: list[int], iou: float, taken: set[int] | None = None, same_class: bool = True
    ) -> list[tuple[float, int] | None]:
        """For each of some predictions, in their order: the free reference polygon that it overlaps most, with the IoU.

        A prediction's match does not depend on those after it: with fewer predictions, the first ones match alike.

        Args:
            ranked: predictions, best first.
            iou: the overlap that a match asks for.
            taken: reference polygons that are not free; those that find a match here are added.
            same_class: look among the reference polygons of the prediction's class, else among those of all others.
        """
        taken = set() if taken is None else taken
        pairs = self._same if same_class else self._others
        matches: list[tuple[float, int] | None] = []
        for i in ranked:
            free = [(value, j) for value, j in pairs.get(i, ()) if j not in taken and value >= iou - ROUNDING]
            matches.append(max(free) if free else None)
            if free:
                taken.add(matches[-1][1])
        return matches


def _by_prediction(found: np.ndarray, truth: np.ndarray, ious: np.ndarray) -> dict[int, list[tuple[float, int]]]:
    pairs: dict[int, list[tuple[float, int]]] = {}
    for i, j, iou in zip(found.tolist(), truth.tolist(), ious.tolist(), strict=True):
        pairs.setdefault(i, []).append((iou, j))
    return pairs


def _members(classes: np.ndarray | None, name: str | None, count: int) -> np.ndarray:
    return np.arange(count) if name is None else np.flatnonzero(classes == name)
