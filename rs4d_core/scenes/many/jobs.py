"""One scene or many: what a user names becomes scenes, each for a layer of its own, or all for one."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rs4d_core.errors import OptionError, OutputError, SceneError
from rs4d_core.scenes.many.mosaic import OFF_GRID_PX, Mosaic, mosaics
from rs4d_core.scenes.many.scene_list import LIST_MARK, SceneList, list_scenes
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.reading.addresses import shown
from rs4d_core.scenes.reading.header import SceneHeader, check_scene, read_header
from rs4d_core.scenes.writers import check_output
from rs4d_core.wording import counted, file_stem, told_apart

LAYER_SUFFIX = ".gpkg"


@dataclass(frozen=True)
class Job:
    """One scene to segment.

    Attributes:
        mosaic: what it is made of; None where its name is all that is known, since nothing else is needed.
        name: of the scene as it was given, or None for a mosaic of several tiles.
        output: the layer that it goes to.
    """

    mosaic: Mosaic | None
    name: str | None
    output: Path

    @property
    def label(self) -> str:
        """For a person."""
        return shown(self.name) if self.name is not None else self.mosaic.name

    def scene(self) -> str:
        """What to open: the raster itself, or a VRT that is written beside the output. Raises OutputError."""
        return self.name if self.name is not None else str(self.mosaic.write_beside(self.output))


@dataclass(frozen=True)
class Jobs:
    """What is to be done.

    Attributes:
        scenes: one after another.
        one_layer: all go to one layer.
        notes: what was not taken, or not taken as it was given.
    """

    scenes: tuple[Job, ...]
    one_layer: bool
    notes: tuple[str, ...]

    def check(self, options: SegmentOptions) -> None:
        """Sees whether they can be done, as far as that can be told before what takes long to load is loaded.

        Raises:
            SceneError, OptionError, OutputError: as the run itself would.
        """
        first = self.scenes[0]
        check_output(first.output)
        # The headers of several have been read, and what fits one of them need not fit all.
        if len(self.scenes) == 1 and first.name is not None:
            check_scene(first.name, options.bands, options.bbox, options.bbox_crs)


def plan_jobs(given: Sequence[str], output: str) -> Jobs:
    """The scenes behind names, and the layers that they go to.

    One layer: rasters that touch or overlap, and are alike, are one scene. A folder as `output` (it exists, or its name
    ends in a slash): each raster is a scene with a layer of its own, named after it.

    Raises:
        SceneError: a raster that was named cannot be read, or there is none.
        OptionError: scenes without a place on the map would go into one layer, or several into one of pixels.
        OutputError: the folder cannot be made.
    """
    into_folder = output.endswith(("/", os.sep)) or os.path.isdir(output)
    if len(given) == 1 and not into_folder and not given[0].startswith(LIST_MARK) and not os.path.isdir(given[0]):
        return Jobs((Job(None, given[0], Path(output)),), True, ())
    listed = list_scenes(given)
    headers, notes = _headers(listed)
    if into_folder:
        return _one_layer_each(headers, Path(output), notes)
    scenes = mosaics(headers)
    if len(scenes) > 1:
        scenes = mosaics(_on_one_map(headers, listed, notes))
    for scene in scenes:
        if scene.off_grid_px > OFF_GRID_PX:
            notes.append(
                f"the tiles of {scene.name} do not lie on one grid of pixels: moved to it by up to "
                f"{scene.off_grid_px:.2f} pixels"
            )
    target = Path(output)
    if len(scenes) > 1 and target.suffix.lower() == ".json":
        raise OptionError(f"{target}: a COCO file holds the pixels of one scene: use another ending, or give a folder")
    mosaic_names = [scene.path_beside(target).name for scene in scenes if len(scene.tiles) > 1]
    if mosaic_names:
        others = f" and {counted(len(mosaic_names) - 1, 'other')}" if len(mosaic_names) > 1 else ""
        notes.append(f"the tiles are read as one scene, {mosaic_names[0]}{others}: keep that beside the layer")
    return Jobs(
        tuple(Job(scene, scene.tiles[0].name if len(scene.tiles) == 1 else None, target) for scene in scenes),
        True,
        tuple(notes),
    )


def _headers(listed: SceneList) -> tuple[list[SceneHeader], list[str]]:
    headers, notes = [], list(listed.notes)
    broken: list[str] = []
    for name in listed.names:
        try:
            headers.append(read_header(name))
        except SceneError as error:
            # Who names a raster wants it; who names a folder may not know what is in it.
            if name not in listed.found:
                raise
            broken.append(str(error))
    notes += [f"left out: {reason}" for reason in broken]
    if not headers:
        raise SceneError(f"none of {counted(len(broken), 'image')} can be read; the first: {broken[0]}")
    return headers, notes


def _on_one_map(headers: list[SceneHeader], listed: SceneList, notes: list[str]) -> list[SceneHeader]:
    """Those that can share a layer: all have a CRS, or none has and all have a place."""
    placed = [header for header in headers if header.placed]
    for header in headers:
        if header.placed:
            continue
        if header.name not in listed.found or not placed:
            raise OptionError(
                f"{shown(header.name)} has no place on the map, so what is in it cannot share a layer with others: "
                "leave it out, or give a folder as the output, which gets a layer for each scene"
            )
        notes.append(f"left out: {header.name} has no place on the map")
    lacking = [header for header in placed if header.crs_wkt is None]
    if lacking and len(lacking) < len(placed):
        raise OptionError(
            f"{shown(lacking[0].name)} has no CRS and others have, so they cannot share a layer: assign it one, or "
            "give a folder as the output, which gets a layer for each scene"
        )
    return placed


def _one_layer_each(headers: list[SceneHeader], folder: Path, notes: list[str]) -> Jobs:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"the folder {folder} cannot be made ({error.strerror}): choose another place") from error
    jobs = []
    stems = [file_stem(os.path.splitext(os.path.basename(shown(header.name).rstrip("/")))[0]) for header in headers]
    for header, stem, name in zip(headers, stems, told_apart(stems), strict=True):
        if name != stem:
            notes.append(f"{shown(header.name)} goes to {name}{LAYER_SUFFIX}, since another scene has its name")
        jobs.append(Job(None, header.name, folder / f"{name}{LAYER_SUFFIX}"))
    if any(len(scene.tiles) > 1 for scene in mosaics(headers)):
        notes.append(
            "some of the scenes touch: each was looked at by itself, and what lies on an edge between two is in both "
            "their layers; give a file as the output to have it whole"
        )
    return Jobs(tuple(jobs), False, tuple(notes))
