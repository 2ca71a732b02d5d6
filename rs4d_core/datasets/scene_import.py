"""Bring scenes with layers of polygons into the layout of prepared data sets: as chips, split by place."""

import os
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS

from rs4d_core.datasets.cut_instances import shows_enough
from rs4d_core.datasets.findings import CUT, DROPPED, IGNORED, IMAGE, OBJECT, Finding
from rs4d_core.datasets.labels import LabelLayer, label_numbers, read_labels
from rs4d_core.datasets.outlines import box_of, rings_of
from rs4d_core.datasets.places import Split
from rs4d_core.datasets.preparation import Description, Labelled, Preparation, Prepared, file_stamp
from rs4d_core.datasets.sample import Annotation
from rs4d_core.datasets.scene_plan import Ground, Job, chip_name, plan_chips
from rs4d_core.errors import LayerError, OptionError, SceneError
from rs4d_core.scenes.layers.chips import (
    SMALLEST_CHIP_PX,
    Chip,
    ChipCutter,
    chip_geotiff,
    chip_windows,
    outlines_on_grid,
)
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.wording import counted, file_stem, told_apart

# A chip of which less than this share has data shows too little.
LEAST_VALID = 0.1
# An object that shows at least this share of itself in a chip is whole there.
WHOLE = 0.999


@dataclass(frozen=True)
class SceneSource:
    """Scenes with their layers, and how they are cut.

    Attributes:
        scenes: files, and for each its layer.
        layers: of the scenes.
        class_field, class_name: see `read_labels`.
        classes: the known classes, in the wanted order; empty takes those that occur.
        resolution_m: metres a pixel of the chips; None takes each scene's own.
        bands: see `Scene.open`.
        chip_px: length of a chip.
        overlap_px: of neighbouring chips of one block, at least.
        empty_share: at most this share of a scene's training chips has no object. What is held back keeps all of them.
    """

    scenes: tuple[Path, ...]
    layers: tuple[str, ...]
    class_field: str | None = None
    class_name: str | None = None
    classes: tuple[str, ...] = ()
    resolution_m: float | None = None
    bands: tuple[int, ...] | None = None
    chip_px: int = 512
    overlap_px: int = 0
    empty_share: float = 0.2

    def __post_init__(self) -> None:
        """Raises OptionError for what cannot work."""
        if not self.scenes or len(self.scenes) != len(self.layers):
            raise OptionError(
                f"{len(self.layers)} layers for {counted(len(self.scenes), 'scene')}: give one for each, or one for all"
            )
        if not 0 <= self.empty_share < 1:
            raise OptionError(f"a share of {self.empty_share:g} of empty chips cannot be: give 0 or more, less than 1")
        chip_windows(Window(0, 0, self.chip_px, self.chip_px), self.chip_px, self.overlap_px)


def find_scenes(paths: Iterable[Path]) -> tuple[Path, ...]:
    """Files as they are; of folders, the GeoTIFFs in them and below, by name.

    Raises:
        SceneError: a folder has none.
    """
    scenes: list[Path] = []
    for path in paths:
        if not os.path.isdir(path):
            scenes.append(path)
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in (".tif", ".tiff"))
        if not found:
            raise SceneError(f"{path}: no GeoTIFF (.tif, .tiff) in this folder; give the folder of the scenes")
        scenes += found
    return tuple(scenes)


def prepare_scenes(
    source: SceneSource,
    split: Split,
    folder: Path,
    describe: Callable[[tuple[str, ...]], Description],
    progress: Callable[[list], Iterable] = iter,
) -> Prepared:
    """Prepare a data set from scenes and layers of polygons.

    Args:
        split: its margin is in pixels of the chips.
        folder: where the data set is to be.
        describe: gives the description, from the classes.
        progress: goes over the chips, to show how far the work is.

    Raises:
        LayerError: a layer cannot be read, has no polygons or other classes, or lies outside of all its scenes.
        SceneError: a scene cannot be read.
        OptionError: an option does not fit the scenes.
        DatasetError: the objects lie too close together to be split.
        OutputError: the data set cannot be written.
    """
    layers = {name: read_labels(name, source.class_field, source.class_name) for name in dict.fromkeys(source.layers)}
    classes, numbers = label_numbers(list(layers.values()), source.classes)
    findings = [finding for layer in layers.values() for finding in layer.findings]
    grounds = _open_all(source, layers, dict(zip(layers, numbers, strict=True)), findings)
    jobs = plan_chips(grounds, len(classes), source.chip_px, source.overlap_px, split, findings)
    _note_uncut(grounds, jobs, findings)
    found = [ground.resolution_m for ground in grounds if ground.resolution_m is not None]
    described = describe(classes)
    description = replace(
        described,
        resolution_m=(min(found), max(found)) if found else None,
        notes=(*described.notes, *(note for layer in layers.values() for note in layer.notes)),
    )
    files = [file_stamp(path) for path in (*source.scenes, *(name.partition("|")[0] for name in layers))]
    plan = {"kind": "scenes", "files": files, "source": asdict(source), "split": asdict(split), "classes": classes}
    with Preparation(folder, plan) as preparation:
        _cut(source, grounds, progress(jobs), preparation)
        return preparation.finish(description, findings)


def _open_all(
    source: SceneSource, layers: dict[str, LabelLayer], labels: dict[str, np.ndarray], findings: list[Finding]
) -> list[Ground]:
    """The scenes that their layers reach."""
    grounds: list[Ground] = []
    stems = told_apart(file_stem(path.stem) for path in source.scenes)
    reached = {name: np.zeros(len(layer.frame), bool) for name, layer in layers.items()}
    for path, name, stem in zip(source.scenes, source.layers, stems, strict=True):
        with _open(source, path) as scene:
            if min(scene.width, scene.height) < SMALLEST_CHIP_PX:
                raise OptionError(
                    f"{path} is {scene.width} x {scene.height} pixels as it would be read, too small for a chip: "
                    "give a finer resolution, or leave it out"
                )
            outlines = outlines_on_grid(scene, layers[name].frame, name)
            inside = shapely.intersects(outlines, shapely.box(0, 0, scene.width, scene.height))
            reached[name] |= inside
            if not inside.any():
                findings.append(Finding(IMAGE, DROPPED, "scene that its layer does not reach", str(path)))
                continue
            grounds.append(
                Ground(
                    path,
                    name,
                    stem,
                    (scene.width, scene.height),
                    scene.transform,
                    scene.crs_wkt,
                    scene.resolution_m,
                    outlines[inside],
                    labels[name][inside],
                )
            )
    for name, inside in reached.items():
        if not inside.any():
            scenes = [str(path) for path, layer in zip(source.scenes, source.layers, strict=True) if layer == name]
            where = scenes[0] if len(scenes) == 1 else f"all {len(scenes)} scenes"
            raise LayerError(
                f"{name}: lies outside of {where}; give the layer of the scene, and see that its CRS is right"
            )
        if not inside.all():
            findings.append(Finding(OBJECT, DROPPED, "outside of the scenes", name, count=int((~inside).sum())))
    return grounds


def _open(source: SceneSource, path: Path) -> Scene:
    return Scene.open(path, bands=source.bands, resolution_m=source.resolution_m)


def _note_uncut(grounds: list[Ground], jobs: list[Job], findings: list[Finding]) -> None:
    """Objects in no chip: those in the margin, or on ground that is held back elsewhere."""
    for number, ground in enumerate(grounds):
        own = [job.window for job in jobs if job.ground == number]
        windows = [shapely.box(w.col, w.row, w.col + w.width, w.row + w.height) for w in own]
        cut = np.unique(shapely.STRtree(windows).query(ground.outlines, predicate="intersects")[0])
        missed = len(ground.outlines) - len(cut)
        if missed:
            findings.append(Finding(OBJECT, DROPPED, "too near to what is held back", ground.layer, count=missed))


def _cut(source: SceneSource, grounds: list[Ground], jobs: Iterable[Job], preparation: Preparation) -> None:
    scene: Scene | None = None
    current, with_objects, empty = -1, 0, 0
    try:
        for job in jobs:
            ground = grounds[job.ground]
            if job.ground != current:
                if scene is not None:
                    scene.close()
                scene = _open(source, ground.path)
                cutter = ChipCutter(scene, ground.outlines)
                current, with_objects, empty = job.ground, 0, 0
            spare = job.split == "train" and job.empty
            # Of n chips with objects and e without, e / (n + e) is the share of the empty ones.
            if spare and (empty + 1) > source.empty_share * (with_objects + empty + 1):
                continue
            taken = preparation.take(
                job.split,
                chip_name(ground, job.window),
                lambda job=job, ground=ground, cutter=cutter: _labelled(ground, job, cutter.cut(job.window)),
            )
            if job.split == "train" and taken:
                empty, with_objects = empty + spare, with_objects + (not spare)
    finally:
        if scene is not None:
            scene.close()


def _labelled(ground: Ground, job: Job, chip: Chip) -> tuple[Labelled | None, list[Finding]]:
    where = chip_name(ground, job.window)
    if chip.valid.mean() < LEAST_VALID:
        return None, [Finding(IMAGE, DROPPED, "nearly all without data", where)]
    findings, annotations = [], []
    for piece in chip.pieces:
        rings = rings_of(piece.outline)
        if not rings:  # too thin for the precision of a row
            continue
        cut = piece.visible < WHOLE
        crowd = cut and not shows_enough(piece.outline.area, piece.outline.area / piece.visible)
        annotations.append(Annotation(int(ground.labels[piece.index]), box_of(rings), rings, crowd=crowd))
        if crowd:
            findings.append(Finding(OBJECT, IGNORED, "shows little of itself in its chip", where))
        elif cut:
            findings.append(Finding(OBJECT, CUT, "at the edge of a chip or of the data", where))
    if not annotations and not job.empty and job.split == "train":
        return None, [Finding(IMAGE, DROPPED, "its objects lie where there is no data", where)]
    height, width = chip.valid.shape
    row: dict[str, Any] = {
        "scene": str(ground.path),
        "layer": ground.layer,
        "col": job.window.col,
        "row": job.window.row,
        "resolution_m": ground.resolution_m,
        "transform": list(chip.transform)[:6],
        "crs": _crs_text(ground.crs_wkt),
    }
    return Labelled(chip_geotiff(chip), width, height, tuple(annotations), row), findings


def _crs_text(wkt: str | None) -> str | None:
    """A CRS by its code, where it has one."""
    if wkt is None:
        return None
    authority = CRS.from_wkt(wkt).to_authority()
    return ":".join(authority) if authority else wkt
