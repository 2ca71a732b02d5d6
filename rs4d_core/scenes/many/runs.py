"""Runs over the scenes of a plan, one after another: a layer for each, or one for all."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rs4d_core.errors import CancelledError, RS4DError, SceneError
from rs4d_core.scenes.many.jobs import Jobs
from rs4d_core.scenes.many.one_layer import LayerCounts, segment_into_one_layer
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.pipeline import SegmentResult
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.reading.georeference import OutsideSceneError
from rs4d_core.wording import counted

# From a scene and a layer to write.
Segment = Callable[[str, Path], SegmentResult]


@dataclass(frozen=True)
class SceneSummary:
    """What a run over one of several scenes found."""

    scene: str
    output: Path
    instances: int
    by_class: dict[str, int]
    windows: int

    def to_json(self) -> dict:
        """Plain values."""
        return {**vars(self), "output": str(self.output)}


@dataclass(frozen=True)
class ScenesResult:
    """What was done, in all; the attributes that `SegmentResult` has mean the same.

    Attributes:
        output: the layer, or the folder of layers.
        scenes: what was found in each.
        written: the layer is there. Not so where many scenes go to one layer, and the run was interrupted.
        failed: why scenes could not be segmented, one sentence each.
    """

    output: Path
    scenes: tuple[SceneSummary, ...]
    instances: int
    by_class: dict[str, int]
    windows: int
    seconds: float
    model_seconds: float
    device: str
    peak_rss_mb: float
    interrupted: bool
    written: bool
    notes: tuple[str, ...]
    failed: tuple[str, ...] = ()


def segment_jobs(
    jobs: Jobs,
    segment: Segment,
    predictor: Predictor,
    options: SegmentOptions,
    tell: Callable[[str], None],
    cancelled: Callable[[], bool] = lambda: False,
) -> ScenesResult:
    """Does what was planned. `tell` is told which scene comes next, where there are several.

    A scene that cannot be segmented does not keep others from it that have layers of their own. Scenes outside of the
    part that was asked for are passed over.

    Raises:
        RS4DError: none could be segmented, or one of those that go to one layer.
    """
    started = time.perf_counter()
    several = len(jobs.scenes) > 1
    results: list[tuple[str, SegmentResult]] = []
    notes: list[str] = []
    failed: list[RS4DError] = []
    outside: list[OutsideSceneError] = []

    def run(number: int, output: Path) -> SegmentResult | None:
        job = jobs.scenes[number]
        if several:
            tell(f"scene {number + 1} of {len(jobs.scenes)}: {job.label}")
        try:
            result = segment(job.scene(), output)
        except CancelledError as error:
            if not results:
                raise
            raise CancelledError(f"{error}; what {counted(len(results), 'scene')} before showed is kept") from error
        except OutsideSceneError as error:
            if not several:
                raise
            outside.append(error)
            notes.append(f"{job.label} passed over: it lies outside of the bounding box")
            return None
        results.append((job.label, result))
        notes.extend(note if not several else f"{job.label}: {note}" for note in result.notes)
        return result

    total: LayerCounts | None = None
    output = jobs.scenes[0].output
    if several and jobs.one_layer:
        total = segment_into_one_layer(jobs, run, predictor, options, cancelled)
    else:
        output = output.parent if not jobs.one_layer else output
        for number, job in enumerate(jobs.scenes):
            try:
                result = run(number, job.output)
            except SceneError as error:
                if not several:
                    raise
                failed.append(error)
                continue
            if result is not None and result.interrupted:
                break
    if not results and total is None:
        raise (failed or outside)[0]
    every = [result for _, result in results]
    if total is not None:
        by_class, notes = total.by_class, [*notes, *total.notes]
    else:
        by_class = {name: sum(result.by_class[name] for result in every) for name in every[0].by_class}
    interrupted = any(result.interrupted for result in every)
    summaries = tuple(
        SceneSummary(label, output if jobs.one_layer else each.output, each.instances, each.by_class, each.windows)
        for label, each in results
    )
    return ScenesResult(
        output,
        summaries,
        sum(by_class.values()),
        by_class,
        sum(result.windows for result in every),
        time.perf_counter() - started if several else every[0].seconds,
        sum(result.model_seconds for result in every),
        predictor.device,
        max((result.peak_rss_mb for result in every), default=0.0),
        interrupted,
        not (several and jobs.one_layer and interrupted),
        tuple(notes),
        tuple(map(str, failed)),
    )
