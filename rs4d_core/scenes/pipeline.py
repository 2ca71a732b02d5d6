"""A scene in, a layer of instance polygons out: reader, windows, predictor, polygons, seams, writer.

All of it streams. What is held is a bounded number of windows and the instances on the frontier between windows done
and windows to do, so memory does not grow with the scene.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import shapely

from rs4d_core.errors import OptionError
from rs4d_core.models.instances import Instances
from rs4d_core.peak_memory import peak_rss_mb
from rs4d_core.scenes.area import Area
from rs4d_core.scenes.areal import multipolygons, without_specks
from rs4d_core.scenes.merge import MergedInstance, Outline, SeamMerger
from rs4d_core.scenes.pace import Pace
from rs4d_core.scenes.polygonize import polygonize
from rs4d_core.scenes.prediction import Predictor, ScenePredictions
from rs4d_core.scenes.reader import Scene
from rs4d_core.scenes.regularize import CURVED_CLASSES, regularize
from rs4d_core.scenes.window_choice import largest_window
from rs4d_core.scenes.windows import Window, plan
from rs4d_core.scenes.writers import Feature, RunRecord, open_writer
from rs4d_core.wording import counted

# Outlines follow the mask to within this, in pixels of the model's grid: a third of a pixel is below what a mask knows,
# and takes away most of the points.
SIMPLIFY_PX = 0.3
# Stray cells of a mask, and holes in it, below this share of an instance's area are noise.
SPECK_SHARE = 0.01


@dataclass(frozen=True)
class SegmentOptions:
    """What to segment, and how; None leaves a choice to the scene or the model.

    Attributes:
        bands: three band numbers from 1, or one for all three.
        resolution_m: metres in a pixel of the model's grid.
        bbox, bbox_crs: west, south, east, north of the part to segment, and their CRS (by default the scene's).
        area: look only inside of it. Without a `bbox`, its extent is segmented.
        window_px, overlap_px: size and overlap of the windows. A size of "auto" is the largest that memory
            holds.
        score: least score, for all classes, 0..1.
        classes: names of the classes to keep.
        regularize: give right angles to outlines that nearly have them, save in classes of curved things.
    """

    bands: tuple[int, ...] | None = None
    resolution_m: float | None = None
    bbox: tuple[float, float, float, float] | None = None
    bbox_crs: str | None = None
    area: Area | None = None
    window_px: int | Literal["auto"] | None = None
    overlap_px: int | None = None
    score: float | None = None
    classes: tuple[str, ...] | None = None
    regularize: bool = False

    def __post_init__(self) -> None:
        if self.score is not None and not 0 <= self.score <= 1:
            raise OptionError(f"least score {self.score:g}: it must lie between 0 and 1")

    def tiling(self, predictor: Predictor) -> tuple[int, int]:
        """Size and overlap of the windows, pixels. Windows smaller than the model's own overlap by half at most."""
        window_px = predictor.window_px if self.window_px is None else self.window_px
        if window_px == "auto":
            window_px = largest_window(predictor.bytes_a_pixel, predictor.window_px, predictor.device)
        overlap_px = min(predictor.overlap_px, window_px // 2) if self.overlap_px is None else self.overlap_px
        return window_px, overlap_px

    def least_scores(self, predictor: Predictor) -> np.ndarray:
        """The score that an instance of each class needs; infinite for classes that are not wanted.

        Raises:
            OptionError: the model does not know one of `classes`.
        """
        known = predictor.classes
        unknown = [name for name in self.classes or () if name not in known]
        if unknown:
            raise OptionError(
                f"class {unknown[0]!r} is not known to model {predictor.name}: it finds {', '.join(known)}"
            )
        scores = np.array(predictor.default_scores if self.score is None else [self.score] * len(known), dtype=float)
        if self.classes is not None:
            scores[[name not in self.classes for name in known]] = np.inf
        return scores


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Attributes:
        windows_done, windows: of the scene.
        instances: that are final so far.
        seconds_left: an estimate from the pace so far; None while nothing tells (see `Pace`).
    """

    windows_done: int
    windows: int
    instances: int
    seconds_left: float | None

    @property
    def fraction(self) -> float:
        """Of the windows, 0..1."""
        return self.windows_done / self.windows

    @property
    def message(self) -> str:
        """One line for a person."""
        return f"{self.windows_done} of {counted(self.windows, 'window')}, {counted(self.instances, 'instance')}"


@dataclass(frozen=True)
class RunStart:
    """What is known of a run before its first window.

    Attributes:
        record: as it is written with the result.
        crs_wkt: of the instances to come; None for a scene without a CRS.
        windows: how many there are.
    """

    record: RunRecord
    crs_wkt: str | None
    windows: int


@dataclass(frozen=True)
class SegmentResult:
    """What a run did.

    Attributes:
        output: the file that was written, or None.
        record, crs_wkt: as at its start.
        instances, by_class: how many, in all and for each class that was looked for.
        windows: how many of `windows_total` were done, those without data among them.
        seconds: in all, of which `model_seconds` in the predictor.
        device: where it was computed.
        peak_rss_mb: the most memory that this process has ever held, in MiB.
        interrupted: it was cancelled, and `output` holds what was found until then. A prediction may still be running
            in the background; a program that wants to end now should not wait for it.
        notes: what the user should know of how the scene was read, and of the file that was written.
    """

    output: Path | None
    record: RunRecord
    crs_wkt: str | None
    instances: int
    by_class: dict[str, int]
    windows: int
    windows_total: int
    seconds: float
    model_seconds: float
    device: str
    peak_rss_mb: float
    interrupted: bool
    notes: tuple[str, ...]


def segment_scene(
    scene_path: Path | str,
    output_path: Path | None,
    predictor: Predictor,
    options: SegmentOptions,
    on_progress: Callable[[Progress], None] | None = None,
    on_features: Callable[[list[Feature]], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    on_start: Callable[[RunStart], None] | None = None,
) -> SegmentResult:
    """Finds the instances in a scene and writes them to `output_path`, whose suffix picks the format.

    Args:
        output_path: None writes nothing: the instances are only told.
        on_progress: told after each window.
        on_features: told the instances, in the scene's CRS, as they become final.
        cancelled: asked all the time, from the calling thread. Once it says True the run ends within 2 seconds, and
            what the finished windows showed is written.
        on_start: told once, before the first window.

    Raises:
        OptionError, SceneError, OutputError: nothing is left at `output_path` that was not there before.
    """
    started = time.perf_counter()
    least_scores = options.least_scores(predictor)
    with Scene.open(
        scene_path,
        options.bands,
        predictor.resolution_m,
        options.resolution_m,
        options.bbox,
        options.bbox_crs,
        options.area,
    ) as scene:
        window_px, overlap_px = options.tiling(predictor)
        windows = plan(scene.width, scene.height, window_px, overlap_px)
        merger = SeamMerger(windows, scene.width, scene.height, _outline(options, predictor))
        predictions = ScenePredictions(scene, windows, predictor, least_scores, cancelled)
        counts = Counter({name: 0 for name, least in zip(predictor.classes, least_scores, strict=True) if least <= 1})
        done, pace = 0, Pace(predictions.batch)
        run = _record(scene, windows[0], overlap_px, predictor, options, least_scores)
        writing = nullcontext()
        if output_path is not None:
            writing = open_writer(output_path, scene.crs_wkt, predictor.classes, predictor.colors, run)
        with writing as writer:
            if on_start:
                on_start(RunStart(run, scene.crs_wkt, len(windows)))

            def write(merged: list[MergedInstance]) -> None:
                features = _features(merged, scene, predictor.classes)
                if features:
                    counts.update(feature.class_name for feature in features)
                    if writer:
                        writer.add(features)
                    if on_features:
                        on_features(features)

            for seen in predictions:
                detections = []
                if seen.instances is not None:
                    instances = _wanted(seen.instances, least_scores)
                    detections = polygonize(instances, windows[seen.index], scene.width, scene.height, seen.valid)
                write(merger.add(seen.index, detections))
                done += 1
                pace.window_done(time.perf_counter())
                if on_progress:
                    on_progress(Progress(done, len(windows), counts.total(), pace.seconds_left(len(windows) - done)))
            write(merger.finish())
            notes = [*scene.notes]
            if writer:
                writer.close(time.perf_counter() - started)
                notes += writer.notes
    return SegmentResult(
        None if output_path is None else Path(output_path),
        run,
        scene.crs_wkt,
        counts.total(),
        dict(counts),
        done,
        len(windows),
        time.perf_counter() - started,
        predictions.model_seconds,
        predictor.device,
        peak_rss_mb(),
        predictions.interrupted,
        tuple(notes),
    )


def _record(
    scene: Scene,
    window: Window,
    overlap_px: int,
    predictor: Predictor,
    options: SegmentOptions,
    least_scores: np.ndarray,
) -> RunRecord:
    """All that the result depends on, as it was in the end: options with the choices of scene and model filled in."""
    run, started = RunRecord.new_id()
    path = Path(scene.path)
    parameters = {
        **asdict(options),
        "area": None if options.area is None else options.area.to_json(),
        **scene.record,
        "window": [window.width, window.height],
        "overlap_px": overlap_px,
        "least_scores": {
            name: float(least) for name, least in zip(predictor.classes, least_scores, strict=True) if least <= 1
        },
        "notes": list(scene.notes),
    }
    return RunRecord(
        run,
        started,
        predictor.name,
        predictor.sha256,
        parameters,
        # GDAL also opens what is no path: addresses, which may be longer than a path can be.
        str(path.resolve() if os.path.exists(path) else scene.path),
        scene.source_width,
        scene.source_height,
        tuple(scene.source_transform)[:6],
        predictor.device,
    )


def _wanted(instances: Instances, least_scores: np.ndarray) -> Instances:
    """The instances whose score suffices for their class."""
    keep = instances.scores.numpy() >= least_scores[instances.labels.numpy()]
    indices = np.flatnonzero(keep)
    return Instances(
        instances.boxes_xyxy[indices],
        instances.scores[indices],
        instances.labels[indices],
        [instances.masks[i] for i in indices],
    )


def _outline(options: SegmentOptions, predictor: Predictor) -> Outline:
    """What gives merged geometries their final shape, still in pixels of the model's grid."""
    straight = np.array([options.regularize and name not in CURVED_CLASSES for name in predictor.classes])

    def outline(geometries: np.ndarray, labels: np.ndarray) -> np.ndarray:
        shaped = np.array([without_specks(geometry, SPECK_SHARE) for geometry in geometries], dtype=object)
        for index in np.flatnonzero(straight[labels]):
            shaped[index] = regularize(shaped[index])
        # Simplification starts at a ring's first point: put it where it does not depend on the windows.
        return shapely.simplify(shapely.normalize(shaped), SIMPLIFY_PX)

    return outline


def _features(merged: list[MergedInstance], scene: Scene, classes: tuple[str, ...]) -> list[Feature]:
    """Merged instances as features in the scene's CRS."""
    geometries = np.array([instance.geometry for instance in merged], dtype=object)
    a, b, c, d, e, f = scene.transform[:6]
    to_ground = np.array([[a, d], [b, e]])
    placed = multipolygons(shapely.transform(geometries, lambda points: points @ to_ground + (c, f)))
    return [
        Feature(geometry, classes[instance.label], instance.score, scene.area_m2(geometry))
        for geometry, instance in zip(placed, merged, strict=True)
    ]
