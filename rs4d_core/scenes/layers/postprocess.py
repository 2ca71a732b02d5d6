"""Work on a layer of polygons after the fact: choose, merge, simplify, straighten, and leave the original as it is."""

import json
import math
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from shapely import STRtree

from rs4d_core.errors import LayerError, OptionError, OutputError
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.layers.layer_file import WrittenLayer, count_layer, read_runs, write_layer
from rs4d_core.scenes.layers.reshape import Reshaper, without_new_overlaps
from rs4d_core.scenes.layers.vector_layer import (
    AREA_FIELD,
    CLASS_FIELD,
    REJECTED,
    RUN_FIELD,
    SCORE_FIELD,
    STATUS_FIELD,
    VectorLayer,
    as_text,
    read_vector_layer,
)
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.polygons.regularize import CURVED_CLASSES
from rs4d_core.scenes.writers.replacement import Replacement, output_errors
from rs4d_core.wording import counted

# Polygons closer than this touch: what was cut along one line differs by rounding.
TOUCH_M = 1e-3
# Of outlines whose run is not on record: about what buildings are found at.
PIXEL_M = 0.5


@dataclass(frozen=True)
class PostprocessOptions:
    """What to do, in this order; None, 0 and False leave a step out.

    Attributes:
        score: least score, 0..1. What has no score, as what was drawn by hand, stays.
        classes: names of the classes to keep.
        merge: polygons of a class that touch or overlap become one, with the fields of the one with the best score.
            What a review has rejected merges with nothing.
        regularize: right angles where they nearly are, save in classes of curved things. No two polygons of a class
            share more ground afterwards than before.
        simplify_m: how far outlines may move where points are taken off, metres on the ground. Outlines that got
            right angles have no points to spare.
        min_area_m2: least area on the ground, of what the other steps have made.
    """

    score: float | None = None
    classes: tuple[str, ...] | None = None
    merge: bool = False
    regularize: bool = False
    simplify_m: float | None = None
    min_area_m2: float | None = None

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise OptionError(f"least score {self.score:g}: it must lie between 0 and 1")
        for what, value in (("tolerance", self.simplify_m), ("least area", self.min_area_m2)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise OptionError(f"{what} {value:g}: it must be 0 or more")


def postprocess_layer(
    source: str | Path,
    output: Path,
    options: PostprocessOptions,
    on_progress: Callable[[float, str], None] = lambda fraction, message: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> WrittenLayer:
    """Write the polygons of any vector layer, worked over, to a new GeoPackage: same CRS, all fields kept.

    A field `area_m2` follows the new outlines. The records of the runs come along.

    Args:
        source: the layer (see `read_vector_layer`).
        output: a .gpkg that does not exist yet.
        on_progress: told how far the work is, 0..1, and at what.
        cancelled: asked all the time.

    Raises:
        OptionError: `output` is no .gpkg.
        LayerError: the layer cannot be read, or lacks a field or the CRS that an option needs.
        OutputError: the file is there already, or cannot be written. Nothing is left behind.
        CancelledError: `cancelled` said so. Nothing is left behind.
    """
    if output.suffix.lower() != ".gpkg":
        raise OptionError(f"{output}: the result is a GeoPackage: let the name end in .gpkg")
    if output.exists():
        raise OutputError(f"{output} is there already, and may hold other results: choose another name")
    replacement = Replacement(output)
    try:
        on_progress(0.0, "reading the layer")
        layer = read_vector_layer(source)
        notes = list(layer.notes)
        work = _Work(layer, options, notes, on_progress, lambda: stop_if(cancelled))
        frame, runs = work.done()
        on_progress(1.0, "writing the layer")
        with output_errors(output):
            staged = replacement.part(".gpkg")
            write_layer(staged, frame, runs)
            found = count_layer(staged)
            if found != len(frame):
                raise OSError(f"{found} of {counted(len(frame), 'instance')} reached the file")
            stop_if(cancelled)
            replacement.take_place(staged)
    finally:
        replacement.clear()
    by_class = Counter(as_text(frame[CLASS_FIELD].dropna())) if CLASS_FIELD in frame else Counter()
    return WrittenLayer(output, found, dict(by_class.most_common()), tuple(notes))


class _Work:
    """One layer on its way through the steps."""

    def __init__(
        self,
        layer: VectorLayer,
        options: PostprocessOptions,
        notes: list[str],
        on_progress: Callable[[float, str], None],
        check: Callable[[], None],
    ) -> None:
        self._layer = layer
        self._options = options
        self._notes = notes
        self._on_progress = on_progress
        self._check = check
        crs = layer.frame.crs
        if crs is None and (options.simplify_m or options.min_area_m2 or options.regularize):
            raise LayerError(f"{layer.source}: it has no CRS, so lengths on the ground are unknown: assign it its CRS")
        self._ground = Ground(None if crs is None else crs.to_wkt())

    def done(self) -> tuple[gpd.GeoDataFrame, pd.DataFrame]:
        """The layer after all steps, and the records of its runs."""
        options = self._options
        frame = self._chosen(self._layer.frame)
        runs = read_runs(self._layer.path, frame)
        original = frame.geometry.to_numpy()
        if options.merge and len(frame):
            frame = self._merged(frame)
        if (options.regularize or options.simplify_m) and len(frame):
            frame = frame.set_geometry(self._reshaped(frame, runs), crs=frame.crs)
        changed = ~shapely.equals_exact(frame.geometry.to_numpy(), original[frame.index])
        if changed.any() and AREA_FIELD in frame and pd.api.types.is_numeric_dtype(frame[AREA_FIELD]):
            areas = frame[AREA_FIELD].to_numpy(dtype=float, copy=True)
            areas[changed] = self._areas(frame.geometry.to_numpy()[changed])
            frame = frame.assign(**{AREA_FIELD: areas})
        if options.min_area_m2 and len(frame):
            frame = frame[self._areas(frame.geometry.to_numpy()) >= options.min_area_m2]
        return frame.reset_index(drop=True), runs

    def _chosen(self, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        """The features of the wanted classes and scores, numbered from 0, as multipolygons."""
        if self._options.classes is not None:
            names = as_text(self._field(frame, CLASS_FIELD))
            absent = [name for name in self._options.classes if not (names == name).any()]
            if absent:
                there = ", ".join(sorted(set(names[self._field(frame, CLASS_FIELD).notna()]))) or "none"
                self._notes.append(f"{self._layer.source}: nothing of class {', '.join(absent)} in it; it has {there}")
            frame = frame[names.isin(self._options.classes)]
        if self._options.score is not None:
            scores = pd.to_numeric(self._field(frame, SCORE_FIELD), errors="coerce")
            unscored = int(scores.isna().sum())
            if unscored:
                self._notes.append(f"{self._layer.source}: {unscored} without a score kept")
            frame = frame[scores.isna() | (scores >= self._options.score)]
        frame = frame.reset_index(drop=True)
        return frame.set_geometry(multipolygons(frame.geometry.to_numpy()), crs=frame.crs)

    def _field(self, frame: gpd.GeoDataFrame, name: str) -> pd.Series:
        if name not in frame:
            there = ", ".join(str(column) for column in frame.columns if column != "geometry")
            raise LayerError(f"{self._layer.source}: no field {name!r}; it has {there or 'no fields'}")
        return frame[name]

    def _kinds(self, frame: gpd.GeoDataFrame) -> np.ndarray:
        """The class of each feature as a number; all alike where there are none."""
        if CLASS_FIELD not in frame:
            return np.zeros(len(frame), dtype=int)
        return pd.factorize(frame[CLASS_FIELD].astype(object), use_na_sentinel=False)[0]

    def _ranks(self, frame: gpd.GeoDataFrame) -> np.ndarray:
        """Place of each feature in the order of the scores, the best first; those without one last."""
        scores = pd.to_numeric(frame[SCORE_FIELD], errors="coerce") if SCORE_FIELD in frame else np.zeros(len(frame))
        order = np.argsort(-np.nan_to_num(np.asarray(scores, dtype=float), nan=-1.0), kind="stable")
        ranks = np.empty(len(frame), dtype=int)
        ranks[order] = np.arange(len(frame))
        return ranks

    def _merged(self, frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
        """The layer with its groups of touching polygons as one feature each; features keep their numbers."""
        self._on_progress(0.0, "merging")
        geometries = frame.geometry.to_numpy().copy()
        kinds, ranks = self._kinds(frame), self._ranks(frame)
        if STATUS_FIELD in frame:
            kinds = np.where(frame[STATUS_FIELD] == REJECTED, -1 - np.arange(len(frame)), kinds)
        metres = self._metres_a_unit(geometries)
        touch = TOUCH_M if metres is not None else 0.0
        flat = geometries if metres is None else shapely.transform(geometries, lambda points: points * metres)
        first, second = STRtree(flat).query(flat, predicate="dwithin", distance=touch)
        pairs = (first < second) & (kinds[first] == kinds[second])
        kept = np.ones(len(frame), dtype=bool)
        for group in _connected(len(frame), first[pairs], second[pairs]):
            self._check()
            best = min(group, key=lambda index: ranks[index])
            union = shapely.union_all(flat[group], grid_size=touch or None)
            back = union if metres is None else shapely.transform(union, lambda points: points / metres)
            (geometries[best],) = multipolygons([back])
            kept[group] = False
            kept[best] = True
        return frame.set_geometry(geometries, crs=frame.crs)[kept]

    def _metres_a_unit(self, geometries: np.ndarray) -> np.ndarray | None:
        """Of x and y, somewhere in the layer: good enough to tell what touches. None where that is unknown."""
        metres = np.array(self._ground.metres_a_unit(geometries[len(geometries) // 2].bounds))
        return metres if np.isfinite(metres).all() and metres.min() > 0 else None

    def _reshaped(self, frame: gpd.GeoDataFrame, runs: pd.DataFrame) -> np.ndarray:
        before = frame.geometry.to_numpy()
        pixels = self._pixels_m(frame, runs) if self._options.regularize else [None] * len(frame)
        reshaper = Reshaper(self._ground, self._options.simplify_m or 0.0)
        after = before.copy()
        for index, (geometry, pixel_m) in enumerate(zip(before, pixels, strict=True)):
            self._check()
            after[index] = reshaper.reshape(geometry, pixel_m)
            if index % 100 == 0:
                self._on_progress(index / len(frame), "shaping outlines")
        invalid = ~shapely.is_valid(after)
        after[invalid] = multipolygons(after[invalid])
        return self._without_new_overlaps(frame, before, after)

    def _without_new_overlaps(self, frame: gpd.GeoDataFrame, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        metres = self._metres_a_unit(before)
        changed = np.array([new is not old for new, old in zip(after, before, strict=True)])
        flat_before = shapely.transform(before, lambda points: points * metres)
        flat_after = flat_before.copy()
        flat_after[changed] = shapely.transform(after[changed], lambda points: points * metres)
        shaped = without_new_overlaps(flat_before, flat_after, self._kinds(frame), self._ranks(frame), self._check)
        for index, shape in enumerate(shaped):
            if shape is flat_before[index]:
                after[index] = before[index]
            elif shape is not flat_after[index]:
                (after[index],) = multipolygons([shapely.transform(shape, lambda points: points / metres)])
        return after

    def _pixels_m(self, frame: gpd.GeoDataFrame, runs: pd.DataFrame) -> list[float | None]:
        """Size of the pixels that each outline stems from; None for those that get no right angles."""
        found = {}
        for run, text in zip(runs["run"], runs["parameters"], strict=True):
            with suppress(ValueError, TypeError, AttributeError):  # not written by this program
                found[run] = float(json.loads(text).get("resolution_m"))
        names = frame[RUN_FIELD] if RUN_FIELD in frame else [None] * len(frame)
        classes = frame[CLASS_FIELD] if CLASS_FIELD in frame else [None] * len(frame)
        pixels = [
            None if name in CURVED_CLASSES else found.get(run, PIXEL_M)
            for name, run in zip(classes, names, strict=True)
        ]
        if any(run not in found for run in names):
            self._notes.append(
                f"{self._layer.source}: it does not tell at what resolution all outlines were found; the others are "
                f"straightened as if at {PIXEL_M:g} m a pixel"
            )
        return pixels

    def _areas(self, geometries: np.ndarray) -> np.ndarray:
        areas = []
        for geometry in geometries:
            self._check()
            areas.append(self._ground.area_m2(geometry))
        return np.array(areas, dtype=float)


def _connected(count: int, first: np.ndarray, second: np.ndarray) -> list[list[int]]:
    """Groups of two or more of `count` things that pairs connect."""
    parents = list(range(count))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    for one, other in zip(first.tolist(), second.tolist(), strict=True):
        parents[root(one)] = root(other)
    groups: dict[int, list[int]] = {}
    for index in range(count):
        groups.setdefault(root(index), []).append(index)
    return [group for group in groups.values() if len(group) > 1]
