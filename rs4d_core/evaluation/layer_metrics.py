"""Compare a layer of predicted instances with a reference layer.

Predictions are matched one to one with reference polygons as COCO does it: best score first, each with the free
reference polygon of its class that it overlaps most, at an IoU of the threshold or more. Unlike in COCO there is one
"image", the ground itself, and no limit to the number of predictions.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
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
from rs4d_core.evaluation.layer_errors import KINDS, check_errors_path, find_mistakes, write_mistakes
from rs4d_core.evaluation.layer_matching import Matcher
from rs4d_core.evaluation.score_curve import ScoreCurve, score_curve
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.layers.vector_layer import (
    CLASS_FIELD,
    REJECTED,
    RUN_FIELD,
    SCORE_FIELD,
    STATUS_FIELD,
    VectorLayer,
    as_text,
    crs_name,
    read_vector_layer,
)
from rs4d_core.scenes.polygons.areal import repair

NO_CLASS = "(none)"

# COCO's: average precision is the mean over these of the precision at 101 recalls.
_AP_IOUS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0.0, 1.0, 101)

# More are names or numbers of single objects, not classes. All their figures travel in one message.
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Agreement:
    """How well predictions agree with the reference, each figure 0..1; None where it is not defined.

    Attributes:
        ap, ap50, ap75: average precision (COCO, 101 recalls): mean over IoU 0.50 to 0.95, at 0.5, at 0.75. None without
            reference polygons.
        precision, recall, f1: of all predictions, at the asked IoU.
        mean_iou: of the matched pairs.
        predicted, reference, matched: numbers of polygons.
        curve: precision and recall over the score, at the asked IoU. None without scores or reference polygons.
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
    curve: ScoreCurve | None


@dataclass(frozen=True)
class LayerMetrics:
    """Two layers compared.

    Attributes:
        overall: with classes, average precision is the mean over the classes of the reference, and the other figures
            count polygons of all classes together.
        by_class: empty where the classes were not compared.
        iou: the IoU that a match asks for.
        errors: how many there are of each kind (see `layer_errors`).
        notes: what was repaired, left out or assumed, one sentence each.
    """

    overall: Agreement
    by_class: dict[str, Agreement]
    iou: float
    errors: dict[str, int]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Nested dicts of numbers, None and texts; the overall figures on the top level."""
        return {
            **asdict(self.overall),
            "iou": self.iou,
            "errors": self.errors,
            "by_class": {name: asdict(agreement) for name, agreement in self.by_class.items()},
            "notes": list(self.notes),
        }


def evaluate_layers(
    predicted: str | Path,
    reference: str | Path,
    iou: float = 0.5,
    class_field: str | None = None,
    errors: Path | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> LayerMetrics:
    """Compare two vector files (see `read_vector_layer`). The reference is brought into the CRS of the predictions.

    What a review has rejected counts in neither. Classes are compared where both layers have a field `class`.

    Args:
        iou: the overlap that a match asks for, above 0, at most 1.
        class_field: the reference's class field, where it is not `class`. Taken for the predictions too where they have
            no field `class`.
        errors: a new GeoPackage for the errors, one by one, in the CRS of the predictions.
        cancelled: asked between the steps of the work.

    Raises:
        OptionError: `iou` is out of range, or `errors` is no name for a GeoPackage.
        LayerError: a layer cannot be read, lacks `class_field`, or the CRSs cannot be brought together.
        OutputError: the errors cannot be written.
        CancelledError: `cancelled` said so.
    """
    if not 0 < iou <= 1:
        raise OptionError(f"IoU {iou:g} is out of range: give a number above 0 and at most 1, such as 0.5")
    if errors is not None:
        check_errors_path(errors)
    found, truth = read_vector_layer(predicted), read_vector_layer(reference)
    stop_if(cancelled)
    notes = [*found.notes, *truth.notes]
    kept, true = _without_rejected(found, notes), _without_rejected(truth, notes)
    _note_runs(found.source, kept, notes)
    frame, truth_frame = _on_common_ground(found.source, kept, truth.source, true)
    found_classes, truth_classes = _classes(found.source, frame, truth.source, truth_frame, class_field, notes)
    scores = _scores(frame, found.source, notes)
    names = _names(found_classes, truth_classes, truth.source, notes)
    stop_if(cancelled)
    matcher = Matcher(frame.geometry.to_numpy(), scores, found_classes, truth_frame.geometry.to_numpy(), truth_classes)
    by_class = {}
    for name in names:
        stop_if(cancelled)
        by_class[name] = _agreement(matcher, iou, name)
    overall = _agreement(matcher, iou, None)
    if by_class:
        # COCO's mean: each class of the reference counts alike, however common.
        known = [agreement for agreement in by_class.values() if agreement.reference]
        overall = replace(overall, **{key: _mean([getattr(a, key) for a in known]) for key in ("ap", "ap50", "ap75")})
    mistakes = find_mistakes(matcher, iou)
    stop_if(cancelled)
    if errors is not None:
        write_mistakes(errors, mistakes, matcher, kept, _projected(truth.source, true, kept.crs))
    counts = Counter(mistake.kind for mistake in mistakes)
    return LayerMetrics(overall, by_class, iou, {kind: counts[kind] for kind in KINDS}, tuple(notes))


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
        as_text(frame[name]).where(frame[name].notna(), NO_CLASS).to_numpy(dtype=object)
        for frame, name in ((found, found_field), (truth, truth_field))
    )


def _scores(frame: gpd.GeoDataFrame, source: str, notes: list[str]) -> np.ndarray:
    if SCORE_FIELD not in frame:
        if len(frame):
            notes.append(f"{source}: no field {SCORE_FIELD!r}, so all predictions count alike in the average precision")
        return np.full(len(frame), np.nan)
    scores = pd.to_numeric(frame[SCORE_FIELD], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    return np.where(np.isfinite(scores), scores, np.nan)


def _names(found: np.ndarray | None, truth: np.ndarray | None, truth_source: str, notes: list[str]) -> list[str]:
    if found is None or truth is None:
        return []
    names = sorted(set(found) | set(truth))
    if len(names) > MOST_CLASSES:
        raise LayerError(
            f"{truth_source}: {len(names)} different classes in both layers, and {MOST_CLASSES} can be compared: "
            "choose the field that holds the class"
        )
    unknown = sorted(set(found) - set(truth))
    if unknown and len(truth):
        notes.append(f"predicted, but no class of the reference, so counted as false: {', '.join(unknown)}")
    return names


def _agreement(matcher: Matcher, iou: float, name: str | None) -> Agreement:
    """The figures of one class, or of all polygons."""
    ranked, reference = matcher.ranked(name), matcher.reference_count(name)
    matches = matcher.match(ranked, iou)
    matched = [match[0] for match in matches if match is not None]
    precisions = [_average_precision(matcher, ranked, reference, threshold) for threshold in _AP_IOUS]
    hits = np.array([match is not None for match in matches], dtype=bool)
    return Agreement(
        ap=_mean(precisions),
        ap50=precisions[0],
        ap75=precisions[5],
        precision=len(matched) / len(ranked) if ranked else None,
        recall=len(matched) / reference if reference else None,
        f1=2 * len(matched) / (len(ranked) + reference) if len(ranked) + reference else None,
        mean_iou=_mean(matched),
        predicted=len(ranked),
        reference=reference,
        matched=len(matched),
        curve=score_curve(matcher.scores[ranked], hits, reference),
    )


def _average_precision(matcher: Matcher, ranked: list[int], reference: int, iou: float) -> float | None:
    """Mean over 101 recalls of the best precision at that recall or a higher one."""
    if not reference:
        return None
    if not ranked:
        return 0.0
    hits = np.cumsum([match is not None for match in matcher.match(ranked, iou)])
    precision = hits / np.arange(1, len(ranked) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(hits / reference, _RECALLS, side="left")
    return float(np.append(precision, 0.0)[at].mean())


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
