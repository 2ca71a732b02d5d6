"""Compare a layer of predicted instances with a reference layer.

Predictions are matched one to one with reference polygons as COCO does it: best score first, each with the free
reference polygon of its class that it overlaps most, at an IoU of the threshold or more. Unlike in COCO there is one
"image", the ground itself, and no limit to the number of predictions.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import pyproj.crs.coordinate_operation
import pyproj.exceptions
import shapely

from rs4d_core.errors import LayerError, OptionError
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.areal import repair
from rs4d_core.scenes.vector_layer import (
    CLASS_FIELD,
    REJECTED,
    RUN_FIELD,
    SCORE_FIELD,
    STATUS_FIELD,
    VectorLayer,
    crs_name,
    read_vector_layer,
)

NO_CLASS = "(none)"

# COCO's: average precision is the mean over these of the precision at 101 recalls.
_AP_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with the reference, each figure 0..1; None where it is not defined.

    Attributes:
        ap, ap50, ap75: average precision (COCO, 101 recalls): mean over IoU 0.50 to 0.95, at 0.5, at 0.75. None without
            reference polygons.
        precision, recall, f1: of all predictions, at the asked IoU.
        mean_iou: of the matched pairs.
        predicted, reference, matched: numbers of polygons.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    precision: float | None
    recall: float | None
    f1: float | None
    mean_iou: float | None
    predicted: int
    reference: int
    matched: int


@dataclass(frozen=True)
class LayerMetrics:
    """Two layers compared.

    Attributes:
        overall: with classes, average precision is the mean over the classes of the reference, and the other figures
            count polygons of all classes together.
        by_class: empty where the classes were not compared.
        iou: the IoU that a match asks for.
        notes: what was repaired, left out or assumed, one sentence each.
    """

    overall: Agreement
    by_class: dict[str, Agreement]
    iou: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested dicts of numbers, None and texts; the overall figures on the top level."""
        return {
            **asdict(self.overall),
            "iou": self.iou,
            "by_class": {name: asdict(agreement) for name, agreement in self.by_class.items()},
            "notes": list(self.notes),
        }


def evaluate_layers(
    predicted: str | Path,
    reference: str | Path,
    iou: float = 0.5,
    class_field: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> LayerMetrics:
    """Compare two vector files (see `read_vector_layer`). The reference is brought into the CRS of the predictions.

    Predictions that a review has rejected do not count. Classes are compared where both layers have a field `class`.

    Args:
        iou: the overlap that a match asks for, above 0, at most 1.
        class_field: the reference's class field, where it is not `class`. Taken for the predictions too where they have
            no field `class`.
        cancelled: asked between the steps of the work.

    Raises:
        OptionError: `iou` is out of range.
        LayerError: a layer cannot be read, lacks `class_field`, or the CRSs cannot be brought together.
        CancelledError: `cancelled` said so.
    """
    if not 0 < iou <= 1:
        raise OptionError(f"IoU {iou:g} is out of range: give a number above 0 and at most 1, such as 0.5")
    found, truth = read_vector_layer(predicted), read_vector_layer(reference)
    stop_if(cancelled)
    notes = [*found.notes, *truth.notes]
    frame = _without_rejected(found, notes)
    _note_runs(found.source, frame, notes)
    frame, truth_frame = _on_common_ground(found.source, frame, truth.source, truth.frame)
    found_classes, truth_classes = _classes(found.source, frame, truth.source, truth_frame, class_field, notes)
    scores = _scores(frame, found.source, notes)
    stop_if(cancelled)
    matcher = _Matcher(frame.geometry.to_numpy(), scores, found_classes, truth_frame.geometry.to_numpy(), truth_classes)
    names = _names(found_classes, truth_classes, notes)
    by_class = {}
    for name in names:
        stop_if(cancelled)
        by_class[name] = matcher.agreement(iou, name)
    overall = matcher.agreement(iou, None)
    if by_class:
        # COCO's mean: each class of the reference counts alike, however common.
        known = [agreement for agreement in by_class.values() if agreement.reference]
        means = {key: _mean([getattr(a, key) for a in known]) for key in ("ap", "ap50", "ap75")}
        overall = Agreement(**{**asdict(overall), **means})
    return LayerMetrics(overall, by_class, iou, tuple(notes))


def _without_rejected(layer: VectorLayer, notes: list[str]) -> gpd.GeoDataFrame:
    if STATUS_FIELD not in layer.frame:
        return layer.frame
    rejected = (layer.frame[STATUS_FIELD] == REJECTED).to_numpy()
    if rejected.any():
        notes.append(f"{layer.source}: {rejected.sum()} rejected in review, not counted")
    return layer.frame[~rejected].reset_index(drop=True)


def _note_runs(source: str, frame: gpd.GeoDataFrame, notes: list[str]) -> None:
    runs = frame[RUN_FIELD].nunique() if RUN_FIELD in frame else 0
    if runs > 1:
        notes.append(f"{source}: it holds {runs} runs, and all count; what two of them found counts twice")


def _on_common_ground(
    found_source: str, found: gpd.GeoDataFrame, truth_source: str, truth: gpd.GeoDataFrame
) -> tuple[gpd.GeoDataFrame, gpd.GeoDataFrame]:
    """Both layers in one planar CRS: that of the predictions, or an equal-area one around them if it is in degrees.

    A scale that differs between the axes or from place to place hardly changes an IoU, so any projected CRS will do.
    """
    if found.crs is None and truth.crs is None:
        return found, truth
    if found.crs is None or truth.crs is None:
        lacking = found_source if found.crs is None else truth_source
        raise LayerError(f"{lacking}: no CRS, but the other layer has one; assign it its CRS, then compare")
    target = found.crs
    if target.is_geographic and len(found):
        west, south, east, north = found.total_bounds
        target = pyproj.crs.ProjectedCRS(
            pyproj.crs.coordinate_operation.LambertAzimuthalEqualAreaConversion(
                latitude_natural_origin=(south + north) / 2, longitude_natural_origin=(west + east) / 2
            ),
            geodetic_crs=target.to_2d(),
        )
    return _projected(found_source, found, target), _projected(truth_source, truth, target)


def _projected(source: str, frame: gpd.GeoDataFrame, target: pyproj.CRS) -> gpd.GeoDataFrame:
    if frame.crs == target or frame.empty:
        return frame
    try:
        projected = frame.to_crs(target)
    except pyproj.exceptions.ProjError as error:
        raise LayerError(f"{source}: cannot be brought from {crs_name(frame.crs)} into {crs_name(target)}") from error
    geometries = projected.geometry.to_numpy()
    if not np.isfinite(shapely.bounds(geometries)).all():
        raise LayerError(
            f"{source}: some of it lies outside of where {crs_name(target)} is defined; cut it to the area compared"
        )
    repair(geometries)
    return projected.set_geometry(geometries, crs=target)


def _classes(
    found_source: str,
    found: gpd.GeoDataFrame,
    truth_source: str,
    truth: gpd.GeoDataFrame,
    class_field: str | None,
    notes: list[str],
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The class of each polygon of both layers, or None, None where a layer has none."""
    if class_field is not None and class_field not in truth:
        fields = ", ".join(str(name) for name in truth.columns if name != "geometry")
        raise LayerError(f"{truth_source}: no field {class_field!r}; it has {fields or 'no fields'}")
    truth_field = class_field or CLASS_FIELD
    found_field = CLASS_FIELD if CLASS_FIELD in found else truth_field
    for source, frame, name in ((found_source, found, found_field), (truth_source, truth, truth_field)):
        if name not in frame:
            notes.append(f"{source}: no field {name!r}, so the classes were not compared")
            return None, None
    return tuple(
        frame[name].astype(object).where(frame[name].notna(), NO_CLASS).astype(str).to_numpy(dtype=object)
        for frame, name in ((found, found_field), (truth, truth_field))
    )


def _scores(frame: gpd.GeoDataFrame, source: str, notes: list[str]) -> np.ndarray:
    if SCORE_FIELD not in frame:
        if len(frame):
            notes.append(f"{source}: no field {SCORE_FIELD!r}, so all predictions count alike in the average precision")
        return np.ones(len(frame))
    # An unknown score ranks last: it claims nothing.
    return pd.to_numeric(frame[SCORE_FIELD], errors="coerce").fillna(0.0).to_numpy(dtype=float)


def _names(found: np.ndarray | None, truth: np.ndarray | None, notes: list[str]) -> list[str]:
    if found is None or truth is None:
        return []
    unknown = sorted(set(found) - set(truth))
    if unknown and len(truth):
        notes.append(f"predicted, but no class of the reference, so counted as false: {', '.join(unknown)}")
    return sorted(set(found) | set(truth))


class _Matcher:
    """Predictions, reference and the IoU of each pair that overlaps."""

    def __init__(
        self,
        found: np.ndarray,
        scores: np.ndarray,
        found_classes: np.ndarray | None,
        truth: np.ndarray,
        truth_classes: np.ndarray | None,
    ) -> None:
        self._scores = scores
        self._found_classes = found_classes
        self._truth_classes = truth_classes
        self._truth_count = len(truth)
        found_index, truth_index = shapely.STRtree(truth).query(found, predicate="intersects")
        if found_classes is not None:
            same = found_classes[found_index] == truth_classes[truth_index]
            found_index, truth_index = found_index[same], truth_index[same]
        common = shapely.area(shapely.intersection(found[found_index], truth[truth_index]))
        union = shapely.area(found)[found_index] + shapely.area(truth)[truth_index] - common
        ious = np.divide(common, union, out=np.zeros_like(common), where=union > 0)
        self._pairs: dict[int, list[tuple[float, int]]] = {}
        for i, j, iou in zip(found_index.tolist(), truth_index.tolist(), ious.tolist(), strict=True):
            self._pairs.setdefault(i, []).append((iou, j))

    def agreement(self, iou: float, name: str | None) -> Agreement:
        """The figures of one class, or of all polygons."""
        found = self._members(self._found_classes, name, len(self._scores))
        reference = len(self._members(self._truth_classes, name, self._truth_count))
        order = found[np.argsort(-self._scores[found], kind="stable")].tolist()
        matched = [value for value in self._match(order, iou) if value is not None]
        precisions = [self._average_precision(order, reference, threshold) for threshold in _AP_IOUS]
        return Agreement(
            ap=_mean(precisions),
            ap50=precisions[0],
            ap75=precisions[5],
            precision=len(matched) / len(found) if len(found) else None,
            recall=len(matched) / reference if reference else None,
            f1=2 * len(matched) / (len(found) + reference) if len(found) + reference else None,
            mean_iou=_mean(matched),
            predicted=len(found),
            reference=reference,
            matched=len(matched),
        )

    @staticmethod
    def _members(classes: np.ndarray | None, name: str | None, count: int) -> np.ndarray:
        return np.arange(count) if name is None else np.flatnonzero(classes == name)

    def _match(self, order: list[int], iou: float) -> list[float | None]:
        """For each prediction, best score first: the IoU of its match, or None."""
        taken: set[int] = set()
        values: list[float | None] = []
        for i in order:
            free = [(value, j) for value, j in self._pairs.get(i, ()) if j not in taken and value >= iou - 1e-10]
            if free:
                value, j = max(free)
                taken.add(j)
                values.append(value)
            else:
                values.append(None)
        return values

    def _average_precision(self, order: list[int], reference: int, iou: float) -> float | None:
        """Mean over 101 recalls of the best precision at that recall or a higher one."""
        if not reference:
            return None
        if not order:
            return 0.0
        hits = np.cumsum([value is not None for value in self._match(order, iou)])
        precision = hits / np.arange(1, len(order) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(hits / reference, _RECALLS, side="left")
        return float(np.append(precision, 0.0)[at].mean())


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
