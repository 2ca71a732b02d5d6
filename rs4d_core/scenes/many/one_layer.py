"""Many scenes into one layer: each is segmented by itself, and what several show of the same ground is merged.

Each scene has a layer of its own at first, in a folder beside the output: with its journal, so that a run which was
broken off goes on where it stopped. From those the output is made. What only one scene shows goes straight into it; the
rest passes through a file sorted by place, so that memory holds neither scenes nor layers.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyogrio
import shapely

import rs4d_core
from rs4d_core.errors import LayerError, OutputError
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.assembly import SIMPLIFY_PX
from rs4d_core.scenes.layers.export import export_layer
from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER
from rs4d_core.scenes.many.jobs import Job, Jobs
from rs4d_core.scenes.many.scene_ground import Frame, OpenScenes, SceneGround
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.pipeline import SegmentResult
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.polygons.regularize import CURVED_CLASSES, regularize
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.reading.files import stamps
from rs4d_core.scenes.reading.georeference import OutsideSceneError
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.seams.between_scenes import SceneMerger, SceneView, Settled
from rs4d_core.scenes.windows.polygonize import Detection
from rs4d_core.scenes.writers import Feature, RunRecord, geopackage, open_writer
from rs4d_core.scenes.writers.replacement import Replacement, check_replaceable, output_errors

BATCH = 2000


@dataclass(frozen=True)
class LayerCounts:
    """What is in the layer: instances of each class, and notes for the user."""

    by_class: dict[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Part:
    """The finished layer of one scene."""

    job: Job
    path: Path


def segment_into_one_layer(
    jobs: Jobs,
    run: Callable[[int, Path], SegmentResult | None],
    predictor: Predictor,
    options: SegmentOptions,
    cancelled: Callable[[], bool],
) -> LayerCounts | None:
    """Segments all scenes and merges what they show.

    Args:
        run: segments the scene of this number into a layer; None if it lies outside of what was asked for.

    Returns:
        What is in the layer; None if it was interrupted, or all scenes lie outside: there is no layer then.

    Raises:
        CancelledError: while merging. As after any other error, what was found in the scenes is kept for the next time.
        RS4DError: as `run` does, or the layer cannot be written.
    """
    output = jobs.scenes[0].output
    if _appends(output):
        _check_can_append(jobs, predictor, options)
    folder = output.with_name(f".{output.name}.scenes")
    with output_errors(output):
        folder.mkdir(exist_ok=True)
    parts = []
    for number, job in enumerate(jobs.scenes):
        key = _key(job, predictor, options)
        done = folder / f"{key}.done.gpkg"
        if not done.exists():
            result = run(number, folder / f"{key}.gpkg")
            if result is None:
                continue
            if result.interrupted:
                return None
            os.replace(folder / f"{key}.gpkg", done)
        parts.append(_Part(job, done))
    if not parts:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    with tempfile.TemporaryDirectory(dir=folder, prefix="merge-") as temporary:
        merged = Path(temporary) / "merged.gpkg"
        by_class = _merge(parts, merged, predictor, options, cancelled)
        notes = _put(merged, output, predictor)
    for part in parts:
        part.path.unlink(missing_ok=True)
    with suppress(OSError):  # unfinished runs with other settings stay
        folder.rmdir()
    return LayerCounts(by_class, notes)


def _check_can_append(jobs: Jobs, predictor: Predictor, options: SegmentOptions) -> None:
    """See, before the scenes are segmented, that the GeoPackage which is there can take their layer."""
    output = jobs.scenes[0].output
    for job in jobs.scenes:
        # The layer has the CRS of the first scene that does not lie outside of what was asked for.
        with suppress(OutsideSceneError), _open(job, predictor, options) as scene:
            with tempfile.TemporaryDirectory() as folder, output_errors(output):
                empty = Path(folder) / "empty.gpkg"
                geopackage.create_layer(empty, scene.crs_wkt)
                geopackage.check_can_append(check_replaceable(output), empty)
            return


def _key(job: Job, predictor: Predictor, options: SegmentOptions) -> str:
    """The same only for a run that would find the same."""
    tiles = [[tile.name, tile.width, tile.height, stamps(tile.files)] for tile in job.mosaic.tiles]
    settings = [predictor.sha256, predictor.device, repr(options), rs4d_core.__version__]
    return hashlib.sha256(json.dumps([tiles, settings]).encode()).hexdigest()[:16]


def _merge(
    parts: list[_Part],
    merged: Path,
    predictor: Predictor,
    options: SegmentOptions,
    cancelled: Callable[[], bool],
) -> dict[str, int]:
    """Makes one layer of all; returns how many of each class it has."""
    counts: Counter[str] = Counter()
    with OpenScenes() as scenes:
        openers = [
            partial(scenes.get, number, partial(_open, part.job, predictor, options))
            for number, part in enumerate(parts)
        ]
        frame = Frame(openers[0]())
        grounds = [SceneGround(opener(), opener, frame) for opener in openers]
        runs = [_copy_run(part.path, merged, frame, ground) for part, ground in zip(parts, grounds, strict=True)]
        shared = _shared_ground(grounds)

        def write(number: int, features: list[Feature]) -> None:
            if features:
                geopackage.append_features(merged, frame.crs_wkt, features, runs[number])
                counts.update(feature.class_name for feature in features)

        with closing(sqlite3.connect(merged.with_suffix(".sqlite"))) as stage:
            # Nobody misses it after a crash: it is made anew.
            stage.execute("PRAGMA journal_mode = OFF")
            stage.execute("PRAGMA synchronous = OFF")
            stage.execute(
                "CREATE TABLE view (top REAL, scene INTEGER, label INTEGER, score REAL, area REAL, wkb BLOB, own BLOB)"
            )
            for number, (part, ground) in enumerate(zip(parts, grounds, strict=True)):
                for features in _features(part.path, runs[number]):
                    stop_if(cancelled)
                    geometries = np.array([feature.geometry for feature in features], dtype=object)
                    in_layer = ground.in_layer(geometries)
                    in_frame = frame.take(in_layer)
                    meets = shapely.intersects(shared, in_frame)
                    alone = [
                        Feature(geometry, feature.class_name, feature.score, feature.area_m2)
                        for geometry, feature in zip(in_layer[~meets], np.array(features, object)[~meets], strict=True)
                    ]
                    write(number, alone)
                    rows = []
                    for index in np.flatnonzero(meets):
                        feature, shape = features[index], in_frame[index]
                        label = predictor.classes.index(feature.class_name)
                        place = (float(shape.bounds[1]), number, label, feature.score, feature.area_m2)
                        rows.append((*place, shapely.to_wkb(shape), shapely.to_wkb(in_layer[index])))
                    stage.executemany("INSERT INTO view VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
            stage.execute("CREATE INDEX by_top ON view (top)")
            stage.commit()
            for settled in _settle(stage, grounds, predictor, options):
                stop_if(cancelled)
                by_scene: dict[int, list[Feature]] = {}
                for one in settled:
                    by_scene.setdefault(one.of.scene, []).append(_feature(one, stage, frame, predictor))
                for number, features in by_scene.items():
                    write(number, features)
    wanted = options.least_scores(predictor) <= 1
    return {name: counts[name] for name, kept in zip(predictor.classes, wanted, strict=True) if kept}


def _shared_ground(grounds: list[SceneGround]) -> shapely.Geometry:
    """What lies in the outlines of two scenes or more, and a pixel around it."""
    outlines = np.array([ground.outline for ground in grounds], dtype=object)
    first, second = shapely.STRtree(outlines).query(outlines)
    pairs = first < second
    shared = shapely.union_all(shapely.intersection(outlines[first[pairs]], outlines[second[pairs]])).buffer(1.0)
    shapely.prepare(shared)
    return shared


def _settle(
    stage: sqlite3.Connection, grounds: list[SceneGround], predictor: Predictor, options: SegmentOptions
) -> Iterator[list[Settled]]:
    tops = np.array([top for (top,) in stage.execute("SELECT top FROM view ORDER BY top, rowid")])

    def outline(geometry: shapely.MultiPolygon, label: int) -> shapely.MultiPolygon:
        if options.regularize and predictor.classes[label] not in CURVED_CLASSES:
            geometry = regularize(geometry)
        return shapely.simplify(shapely.normalize(geometry), SIMPLIFY_PX)

    merger = SceneMerger(tops, lambda scene, geometry: grounds[scene].part_seen(geometry), outline)
    waiting: list[Settled] = []
    for tag, scene, label, score, wkb in stage.execute(
        "SELECT rowid, scene, label, score, wkb FROM view ORDER BY top, rowid"
    ):
        geometry = shapely.from_wkb(wkb)
        detection = Detection(geometry, score, label, grounds[scene].ends_in(geometry))
        waiting += merger.add(SceneView(detection, scene, tag))
        if len(waiting) >= BATCH:
            yield waiting
            waiting = []
    yield waiting + merger.finish()


def _feature(one: Settled, stage: sqlite3.Connection, frame: Frame, predictor: Predictor) -> Feature:
    name = predictor.classes[one.of.detection.label]
    if one.untouched:
        area, own = stage.execute("SELECT area, own FROM view WHERE rowid = ?", (one.of.tag,)).fetchone()
        return Feature(shapely.from_wkb(own), name, one.score, np.nan if area is None else area)
    geometry = frame.give(np.array([one.geometry], dtype=object))[0]
    return Feature(geometry, name, one.score, Ground(frame.crs_wkt).area_m2(geometry))


def _open(job: Job, predictor: Predictor, options: SegmentOptions) -> Scene:
    where = (options.bands, predictor.resolution_m, options.resolution_m, options.bbox, options.bbox_crs, options.area)
    return Scene.open(job.scene(), *where)


def _features(path: Path, run: str) -> Iterator[list[Feature]]:
    """The instances of a run in a result file, in batches."""
    options = {"use_pyarrow": True, "batch_size": BATCH, "where": f"run = '{run}'"}
    with pyogrio.open_arrow(path, layer=RESULT_LAYER, **options) as (meta, batches):
        column = meta["geometry_name"] or "wkb_geometry"
        for batch in batches:
            rows = batch.to_pydict()
            geometries = shapely.from_wkb(np.array(rows[column], dtype=object))
            yield [
                Feature(*values)
                for values in zip(geometries, rows["class"], rows["score"], rows["area_m2"], strict=True)
            ]


def _copy_run(part: Path, merged: Path, frame: Frame, ground: SceneGround) -> str:
    """Takes over the record of a part's run, and what of its scene could not be read; returns the run's id.

    That is the last to be written: a run whose journal was lost has left what it had found before it.
    """
    if not merged.exists():
        geopackage.create_layer(merged, frame.crs_wkt)
    record, seconds = _records(part)[-1]
    geopackage.add_run(merged, record, seconds)
    not_read = _not_read(part, record.run)
    if len(not_read):
        shapes = shapely.get_parts(ground.in_layer(not_read))
        geopackage.add_not_read(merged, frame.crs_wkt, list(shapes), record.run)
    return record.run


def _not_read(path: Path, run: str) -> np.ndarray:
    """Polygons of what a run could not read."""
    layers = [name for name, _ in pyogrio.list_layers(path)]
    if geopackage.NOT_READ_LAYER not in layers:
        return np.array([], dtype=object)
    frame = pyogrio.read_dataframe(path, layer=geopackage.NOT_READ_LAYER, where=f"run = '{run}'")
    return frame.geometry.to_numpy()


def _records(path: Path) -> list[tuple[RunRecord, float]]:
    """The runs of a result file, and the seconds they took, in the order in which they were written."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(
            "SELECT run, time, model, model_sha256, parameters, scene, device, seconds FROM runs ORDER BY rowid"
        ).fetchall()
    # What a record says of the scene's pixels is for COCO files, which cannot be written from many scenes.
    return [
        (RunRecord(*row[:4], json.loads(row[4]), row[5], 0, 0, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), row[6]), row[7])
        for row in rows
    ]


def _appends(output: Path) -> bool:
    return output.suffix.lower() == ".gpkg" and output.exists() and output.stat().st_size > 0


def _put(merged: Path, output: Path, predictor: Predictor) -> tuple[str, ...]:
    """Puts the merged layer in its place: as it is, as further runs of a layer that is there, or in another format."""
    if output.suffix.lower() != ".gpkg":
        try:
            return export_layer(merged, output).notes
        except LayerError as error:
            raise OutputError(str(error)) from error
    if not _appends(output):
        replacement = Replacement(output)
        try:
            with output_errors(output):
                replacement.take_place(merged)
        finally:
            replacement.clear()
        return ()
    crs_wkt = pyogrio.read_info(merged, layer=RESULT_LAYER)["crs"]
    notes: tuple[str, ...] = ()
    for record, seconds in _records(merged):
        with output_errors(output):
            there = geopackage.run_digest(output, record.run)
        if there is not None:  # by an attempt that was broken off right here
            continue
        with open_writer(output, crs_wkt, predictor.classes, predictor.colors, record) as writer:
            for features in _features(merged, record.run):
                writer.add(features)
            writer.not_read(list(_not_read(merged, record.run)))
            writer.close(seconds)
            notes = writer.notes
    return notes
