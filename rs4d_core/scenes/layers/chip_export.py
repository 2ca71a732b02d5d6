"""A reviewed layer and its scene as a COCO data set to train on: image chips, and one file of annotations."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from PIL import Image

from rs4d_core.datasets.cut_instances import shows_enough
from rs4d_core.errors import LayerError, OptionError
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.layers.chips import ChipCutter, Piece, chip_windows, outlines_on_grid
from rs4d_core.scenes.layers.export import ACCEPTED, looked_for, result_frame
from rs4d_core.scenes.layers.layer_file import WrittenLayer, read_runs
from rs4d_core.scenes.layers.vector_layer import REJECTED, read_vector_layer
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.writers.coco import rings
from rs4d_core.scenes.writers.replacement import NewFolder, output_errors
from rs4d_core.wording import counted, file_stem

# Images are held in memory one at a time, and read by training whole.
LARGEST_CHIP_PX = 4096
IMAGES = "images"

# A cut piece lacks at least this share of its object; less is rounding.
_CUT_SHARE = 1e-6


@dataclass(frozen=True)
class WrittenChips(WrittenLayer):
    """What reached the folder.

    Attributes:
        output: the COCO file in it.
        instances: objects that can be learned from. One that chips cut in two is one object, and two annotations.
        chips: image files.
        annotations: in the COCO file, regions to ignore among them.
    """

    chips: int
    annotations: int


def export_chips(
    source: str | Path,
    output: Path,
    chip_px: int,
    resolution_m: float | None = None,
    accepted: bool = False,
    scene: Path | str | None = None,
    on_progress: Callable[[float, str], None] = lambda _fraction, _message: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> WrittenChips:
    """Write a folder that `training/finetune.py` reads: `images/*.png`, and `output`, a COCO file, beside it.

    The scene is cut into chips of `chip_px` pixels, read as a model would see it (bands, stretch, resolution). They are
    spread evenly, so that all have the same size, and neighbours may share a few pixels. The rules:

    - A chip is written where the layer shows an object. That it shows none elsewhere may only mean that nobody looked.
    - What a review has rejected is background, and its chips are written: such places teach the most.
    - Outlines are clipped to the chip, and to where the scene has data. A piece of an object that shows too little of
      it to be told (see `shows_enough`) is a region to ignore (`iscrowd`: 1).
    - With `accepted`, what is not decided yet is a region to ignore too. Classes in which nothing is accepted or
      rejected are left out.
    - Chips without a single valid pixel are skipped.

    The COCO file tells more of each chip and annotation than COCO asks for: `transform`, from pixels of the chip to the
    scene's CRS; `object`, the same number for all pieces of an object; `score` and `edited`.

    Args:
        source: a result layer (see `read_vector_layer`).
        output: `FOLDER/NAME.json`. The folder is made, and must not be there yet, or be empty.
        chip_px: side of a chip, pixels; a smaller scene is one smaller chip.
        resolution_m: metres a pixel; by default as the newest run read the scene, else as it is.
        accepted: only what a review has accepted is an object.
        scene: by default the one that the layer's runs name.
        on_progress: told the share that is done and what is being done.
        cancelled: asked between chips.

    Raises:
        OptionError: an option is out of range.
        LayerError: the layer cannot be read, is no result layer, lacks classes or a scene, or lies outside of it.
        SceneError: the scene cannot be read.
        OutputError: the folder cannot be written. Nothing is left behind.
        CancelledError: `cancelled` said so, and as for OutputError.
    """
    if chip_px > LARGEST_CHIP_PX:
        raise OptionError(f"chips of {chip_px} px are too large: give {LARGEST_CHIP_PX} px or less")
    if output.suffix.lower() != ".json":
        raise OptionError(f"{output}: chips come with a COCO file: give a name such as FOLDER/annotations.json")
    on_progress(0.0, "reading the layer")
    layer = read_vector_layer(source)
    frame = result_frame(layer)
    runs = read_runs(layer.path, frame)
    frame = _concerned(layer.source, frame, accepted)
    stop_if(cancelled)
    folder = NewFolder(output.parent)
    try:
        with _open_scene(layer.source, runs, scene, resolution_m) as opened, output_errors(folder.path):
            objects, notes = _objects(layer.source, frame, opened, accepted)
            classes = [name for name in looked_for(runs, frame) if name in set(frame["class"])]
            (folder.part / IMAGES).mkdir()
            target = folder.part / output.name
            with target.open("w", encoding="utf-8") as file:
                writing = _Writing(opened, objects, classes, chip_px, file, folder.part / IMAGES)
                writing.head(runs)
                for done, windows in writing.chips():
                    stop_if(cancelled)
                    on_progress(done / windows, f"chip {done} of {windows}")
                writing.tail()
            _check(target, folder.part / IMAGES, writing)
            stop_if(cancelled)
            folder.take_place()
    finally:
        folder.clear()
    names = Counter(objects.names[number] for number in writing.learned)
    return WrittenChips(
        output,
        len(writing.learned),
        dict(names.most_common()),
        (*layer.notes, *notes, *opened.notes, *writing.notes()),
        len(writing.images),
        writing.annotations,
    )


@dataclass(frozen=True)
class _Objects:
    """What lies in the scene, one entry each.

    Attributes:
        outlines: in the pixels of the grid that chips are cut from.
        numbers: from 1, as in the layer.
        wanted: an object of the data set; what is not is a region to ignore.
        rejected: background.
    """

    outlines: np.ndarray
    numbers: np.ndarray
    names: list[str]
    scores: list[float | None]
    edited: list[bool]
    wanted: np.ndarray
    rejected: np.ndarray


class _Writing:
    """Chips and annotations on their way to the disk; memory holds one chip, and a line for each that was written."""

    def __init__(self, scene: Scene, objects: _Objects, classes: list[str], chip_px: int, file: TextIO, folder: Path):
        self.images: list[dict] = []
        self.annotations = 0
        self.ignored = 0
        self.not_wanted = 0
        self.empty = 0
        self.learned: set[int] = set()
        self._scene, self._objects, self._chip_px = scene, objects, chip_px
        self._classes = {name: number for number, name in enumerate(classes, 1)}
        self._file, self._folder = file, folder

    def head(self, runs: pd.DataFrame) -> None:
        scene = self._scene
        info = {
            "description": "image chips of a reviewed layer",
            "scene": str(scene.path),
            "crs_wkt": scene.crs_wkt,
            "chip_px": self._chip_px,
            **scene.record,
            "runs": runs["run"].tolist(),
        }
        categories = [{"id": number, "name": name, "supercategory": ""} for name, number in self._classes.items()]
        head = {"info": info, "licenses": [], "categories": categories}
        self._file.write(json.dumps(head)[:-1] + ', "annotations": [')

    def chips(self) -> Iterator[tuple[int, int]]:
        """Write chip by chip; yields how many of how many are done."""
        scene = self._scene
        cutter = ChipCutter(scene, self._objects.outlines)
        windows = chip_windows(Window(0, 0, scene.width, scene.height), self._chip_px, 0)
        windows = [window for window in windows if len(cutter.touching(window))]
        for done, window in enumerate(windows, 1):
            self._chip(cutter, window)
            yield done, len(windows)

    def tail(self) -> None:
        self._file.write('\n], "images": [' + ",".join(f"\n{json.dumps(image)}" for image in self.images) + "\n]}\n")

    def notes(self) -> list[str]:
        """What became of the layer, one sentence each."""
        lost = int(self._objects.wanted.sum()) - len(self.learned)
        verb = "is a region" if self.ignored == 1 else "are regions"
        kinds = []
        if self.ignored > self.not_wanted:
            kinds.append("cut pieces that show too little")
        if self.not_wanted:
            kinds.append("what was not chosen or decided")
        return [
            text
            for text, count in (
                (f"{counted(self.empty, 'chip')} without data skipped", self.empty),
                (f"{self.ignored} {', and '.join(kinds)} {verb} to ignore", self.ignored),
                (f"{counted(lost, 'object')} on no chip, or cut so that too little shows", lost),
            )
            if count
        ]

    def _chip(self, cutter: ChipCutter, window: Window) -> None:
        chip = cutter.cut(window)
        if not chip.valid.any():
            self.empty += 1
            return
        number = len(self.images) + 1
        name = f"{file_stem(Path(self._scene.path).stem)}_x{window.col:06d}_y{window.row:06d}.png"
        # Photographs hardly shrink further; the best level takes ten times as long.
        Image.fromarray(chip.image).save(self._folder / name, compress_level=3)
        place = {"file_name": name, "width": window.width, "height": window.height}
        self.images.append({"id": number, **place, "transform": list(chip.transform)[:6]})
        for piece in chip.pieces:
            if not self._objects.rejected[piece.index]:
                self._annotate(number, piece)

    def _annotate(self, image: int, piece: Piece) -> None:
        objects, index, outline = self._objects, piece.index, piece.outline
        cut = piece.visible < 1 - _CUT_SHARE
        ignored = not objects.wanted[index] or (cut and not shows_enough(outline.area, outline.area / piece.visible))
        left, top, right, bottom = outline.bounds
        self.annotations += 1
        annotation = {
            "id": self.annotations,
            "image_id": image,
            "category_id": self._classes[objects.names[index]],
            "segmentation": rings(outline),
            "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
            "area": round(outline.area, 2),
            "iscrowd": int(ignored),
            "object": int(objects.numbers[index]),
            "score": objects.scores[index],
            "edited": objects.edited[index],
        }
        self._file.write((",\n" if self.annotations > 1 else "\n") + json.dumps(annotation))
        if ignored:
            self.ignored += 1
            self.not_wanted += not objects.wanted[index]
        else:
            self.learned.add(index)


def _concerned(source: str, frame: gpd.GeoDataFrame, accepted: bool) -> gpd.GeoDataFrame:
    """The features that have a say in the data set, numbered from 1 in `object`."""
    frame = frame.assign(object=np.arange(1, len(frame) + 1))
    nameless = int((frame["class"].isna() & (frame["status"] != REJECTED)).sum())
    if nameless:
        raise LayerError(
            f"{source}: {counted(nameless, 'instance')} without a class, and COCO needs one: set it in the layer"
        )
    frame = frame[frame["class"].notna()]
    if accepted:
        decided = frame.loc[frame["status"].isin((ACCEPTED, REJECTED)), "class"]
        frame = frame[frame["class"].isin(decided)]
    return frame.reset_index(drop=True)


def _open_scene(source: str, runs: pd.DataFrame, scene: Path | str | None, resolution_m: float | None) -> Scene:
    """The scene as the newest run read it, where there is one."""
    if scene is None:
        scenes = list(runs["scene"].unique())
        if len(scenes) != 1:
            raise LayerError(
                f"{source}: it tells of {counted(len(scenes), 'scene')}, and chips are cut from one: name it"
            )
        scene = scenes[0]
    read = json.loads(runs.iloc[-1]["parameters"]) if len(runs) else {}
    return Scene.open(scene, bands=read.get("bands"), resolution_m=resolution_m or read.get("resolution_m"))


def _objects(source: str, frame: gpd.GeoDataFrame, scene: Scene, accepted: bool) -> tuple[_Objects, list[str]]:
    outlines = outlines_on_grid(scene, frame, source)
    inside = shapely.intersects(outlines, shapely.box(0, 0, scene.width, scene.height))
    if len(frame) and not inside.any():
        raise LayerError(
            f"{source}: nothing of it lies in the scene {scene.path}: name the scene that it was made from"
        )
    notes = [] if inside.all() else [f"{counted((~inside).sum(), 'instance')} outside of the scene left out"]
    frame = frame[inside]
    rejected = (frame["status"] == REJECTED).to_numpy()
    scores = pd.to_numeric(frame["score"], errors="coerce").astype(object)
    objects = _Objects(
        outlines[inside],
        frame["object"].to_numpy(),
        frame["class"].tolist(),
        scores.where(scores.notna(), None).tolist(),
        frame["edited"].tolist(),
        (frame["status"] == ACCEPTED).to_numpy() if accepted else ~rejected,
        rejected,
    )
    return objects, notes


def _check(target: Path, images: Path, writing: _Writing) -> None:
    """See that all that was written is there. Raises OSError."""
    with target.open("rb") as file:
        lines = sum(line.startswith(b'{"id"') for line in file)
    files = sum(1 for _ in images.iterdir())
    if (lines, files) != (writing.annotations + len(writing.images), len(writing.images)):
        raise OSError(f"{files} of {counted(len(writing.images), 'chip')} reached the folder")
