"""A scene in, a layer of instance polygons out: reader, windows, predictor, polygons, seams, writer.

All of it streams. What is held is a bounded number of windows and the instances on the frontier between windows done
and windows to do, so memory does not grow with the scene.
"""

import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from rs4d_core.errors import CancelledError
from rs4d_core.peak_memory import peak_rss_mb
from rs4d_core.scenes.assembly import Assembly
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.prediction.local_windows import LocalWindows
from rs4d_core.scenes.prediction.pace import Pace
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.reading.addresses import shown as shown_name
from rs4d_core.scenes.reading.files import SceneFiles
from rs4d_core.scenes.reading.not_read import NotRead
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.resuming.kept_windows import KeptWindows
from rs4d_core.scenes.resuming.resumption import Resumption
from rs4d_core.scenes.windows.detections import WindowSource
from rs4d_core.scenes.windows.plan import Window, plan
from rs4d_core.scenes.writers import Feature, RunRecord, open_writer
from rs4d_core.wording import counted

# From scene, plan, predictor, least scores `(classes,)` and `cancelled`.
WindowSourceMaker = Callable[[Scene, list[Window], Predictor, np.ndarray, Callable[[], bool]], WindowSource]


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
        notes: with which earlier attempt it goes on, or why it does not. They are among those of the result, too.
    """

    record: RunRecord
    crs_wkt: str | None
    windows: int
    notes: tuple[str, ...]


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
    source: WindowSourceMaker = LocalWindows,
    journal: Path | None = None,
) -> SegmentResult:
    """Finds the instances in a scene and writes them to `output_path`, whose suffix picks the format.

    Args:
        output_path: None writes nothing: the instances are only told.
        on_progress: told after each window.
        on_features: told the instances, in the scene's CRS, as they become final.
        cancelled: asked all the time, from the calling thread. Once it says True the run ends within 2 seconds, and
            what the finished windows showed is written.
        on_start: told once, before the first window.
        source: makes what the windows are asked of, by default this process.
        journal: without an output, the journal is kept beside this path, and holds the latest run only. None for none.

    Beside the output, a journal holds what the finished windows showed. Whatever ends the run, the same call goes on
    from there, and comes to the same result as a run that was not broken off.

    Raises:
        OptionError, SceneError, OutputError: nothing is left at `output_path` that was not there before.
        BusyError: another run is writing to `output_path`.
        CancelledError: cancelled before it had finished a window that an earlier, interrupted attempt had not.
    """
    started = time.perf_counter()
    least_scores = options.least_scores(predictor)
    with ExitStack() as open_things:
        scene = open_things.enter_context(
            Scene.open(
                scene_path,
                options.bands,
                predictor.resolution_m,
                options.resolution_m,
                options.bbox,
                options.bbox_crs,
                options.area,
            )
        )
        files = SceneFiles(scene)
        resumption = open_things.enter_context(Resumption.of(output_path, journal, scene, files, predictor, options))
        window_px, overlap_px = resumption.tiling
        windows = plan(scene.width, scene.height, window_px, overlap_px)
        assembly = Assembly(scene, windows, predictor.classes, options.regularize)
        predicted = source(scene, windows, predictor, least_scores, cancelled)
        shown = KeptWindows(predicted, resumption.store, len(predictor.classes), files, cancelled)
        counts = Counter({name: 0 for name, least in zip(predictor.classes, least_scores, strict=True) if least <= 1})
        done, pace = 0, Pace(predicted.batch)
        run = _record(resumption.run, scene, windows[0], overlap_px, predictor, options, least_scores)
        writer = None
        if output_path is not None:
            described = scene.crs_wkt, predictor.classes, predictor.colors, run
            writer = open_writer(output_path, *described, resumption.store, resumption.note_part)
            open_things.enter_context(writer)
        not_read = NotRead(scene)
        if on_start:
            on_start(RunStart(run, scene.crs_wkt, len(windows), tuple(resumption.notes)))

        def write(features: list[Feature]) -> None:
            if features:
                counts.update(feature.class_name for feature in features)
                if writer:
                    writer.add(features)
                if on_features:
                    on_features(features)

        with resumption.hint(shown.settle), closing(shown.run(len(windows))) as seen:
            for window in seen:
                write(assembly.add(window))
                not_read.add(window.not_read)
                done += 1
                if done > shown.replayed:
                    pace.window_done(time.perf_counter())
                if on_progress:
                    on_progress(Progress(done, len(windows), counts.total(), pace.seconds_left(len(windows) - done)))
            interrupted = shown.interrupted
            shown.settle()
            if writer and interrupted and done <= resumption.held:
                found = "nothing new was found; all that was found before is still there"
                raise CancelledError(found if resumption.held else "no window was finished")
            not_read.check()
            write(assembly.finish())
            seconds = resumption.seconds_before + time.perf_counter() - started
            if writer:
                writer.not_read(not_read.polygons())
                writer.close(seconds)
                run = writer.run
        resumption.ended(interrupted)
        notes = [
            *scene.notes,
            *resumption.notes,
            *predicted.notes,
            *not_read.notes(output_path),
            *(writer.notes if writer else ()),
        ]
    return SegmentResult(
        None if output_path is None else Path(output_path),
        run,
        scene.crs_wkt,
        counts.total(),
        dict(counts),
        done,
        len(windows),
        seconds,
        predicted.model_seconds,
        predictor.device,
        peak_rss_mb(),
        interrupted,
        tuple(notes),
    )


def _record(
    identity: tuple[str, str],
    scene: Scene,
    window: Window,
    overlap_px: int,
    predictor: Predictor,
    options: SegmentOptions,
    least_scores: np.ndarray,
) -> RunRecord:
    """All that the result depends on, as it was in the end: options with the choices of scene and model filled in."""
    run, started = identity
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
        str(path.resolve()) if os.path.exists(path) else shown_name(str(scene.path)),
        scene.source_width,
        scene.source_height,
        tuple(scene.source_transform)[:6],
        predictor.device,
    )
