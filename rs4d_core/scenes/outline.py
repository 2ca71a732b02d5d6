"""The outline of one object, in a box that somebody has drawn around it.

Nearly all of the work is encoding the window that the box lies in. Encoded windows are kept, and places for windows are
few, so that the boxes drawn in one part of a scene share them. Which window a box is looked at in follows from the box
alone, never from what was looked at before: the same box always gets the same outline.
"""

import math
import os
from collections import OrderedDict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
import torch
from affine import Affine
from shapely import MultiPolygon, Polygon

from rs4d_core.errors import OptionError
from rs4d_core.models.checkpoint import LoadedModel
from rs4d_core.models.config import SIZE_DIVISOR
from rs4d_core.models.instances import Instances
from rs4d_core.models.segmenter import Encoded
from rs4d_core.scenes.assembly import SIMPLIFY_PX, SPECK_SHARE
from rs4d_core.scenes.polygons.areal import multipolygons, without_specks
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.polygons.regularize import CURVED_CLASSES, regularize
from rs4d_core.scenes.prediction.predictor import MODEL, out_of_memory, padded, too_large
from rs4d_core.scenes.reading.georeference import OutsideSceneError, bounds_in_pixels
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.windows.polygonize import polygonize

# What encoded windows may hold, in bytes: 50 of the default model's, two of the base model's of 1024 pixels.
MOST_BYTES = 256 << 20
# Scenes whose place is remembered: a few numbers each.
_MOST_GRIDS = 32

# A box up to this share of the window shares its window with others; it has an eighth of the window around it then.
_SHARING = 1 / 4
# A larger one has a window of its own; beyond this share it is looked at in a coarser one.
_LARGEST = 3 / 4
# Less than this, in pixels of the model's grid, shows nothing.
_SMALLEST_PX = 2.0


@dataclass(frozen=True)
class OutlineOptions:
    """Where to look, and how; None leaves a choice to the scene or the model.

    Attributes:
        box, box_crs: west, south, east, north of the box, and their CRS (by default the scene's).
        class_name: what the object is; None lets the model say.
        bands, resolution_m, window_px: as for a run, see `SegmentOptions`.
        regularize: give right angles to the outline if it nearly has them, save in classes of curved things.
    """

    box: tuple[float, float, float, float]
    box_crs: str | None = None
    class_name: str | None = None
    bands: tuple[int, ...] | None = None
    resolution_m: float | None = None
    window_px: int | None = None
    regularize: bool = False

    def label(self, model: LoadedModel) -> int | None:
        """The class as the model's label. Raises OptionError where the model does not know it."""
        if self.class_name is None:
            return None
        if self.class_name not in model.classes:
            raise OptionError(
                f"class {self.class_name!r} is not known to model {model.name}: it finds {', '.join(model.classes)}"
            )
        return model.classes.index(self.class_name)

    def window(self, model: LoadedModel) -> int:
        """Side of the window, pixels. Raises OptionError for one that the model cannot take."""
        window_px = model.window_px if self.window_px is None else self.window_px
        if window_px < SIZE_DIVISOR or window_px % SIZE_DIVISOR:
            raise OptionError(f"window of {window_px} px: it must be a multiple of {SIZE_DIVISOR} px")
        return window_px


@dataclass(frozen=True)
class Outlined:
    """What was made out in a box.

    Attributes:
        geometry: one polygon, in `crs_wkt`, valid.
        class_name, score: what it is, and how sure the model is of that, 0..1.
        area_m2: on the ellipsoid; NaN without a CRS.
        resolution_m: at which the box was looked at; None without a CRS.
        encoded: its window had to be encoded first.
        notes: how the scene was read.
    """

    geometry: MultiPolygon
    class_name: str
    score: float
    area_m2: float
    crs_wkt: str | None
    resolution_m: float | None
    encoded: bool
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Grid:
    """Where a scene's pixels and the model's lie: all that a box needs of a scene that is not read."""

    width: int
    height: int
    transform: Affine
    crs_wkt: str | None
    resolution_m: float | None
    source_width: int
    source_height: int
    source_transform: Affine
    ground: Ground
    notes: tuple[str, ...]

    @classmethod
    def of(cls, scene: Scene) -> "_Grid":
        return cls(
            scene.width,
            scene.height,
            scene.transform,
            scene.crs_wkt,
            scene.resolution_m,
            scene.source_width,
            scene.source_height,
            scene.source_transform,
            Ground(scene.crs_wkt),
            tuple(scene.notes),
        )

    def box(self, options: OutlineOptions) -> tuple[float, float, float, float]:
        """The part of a box that lies in the scene, in pixels of the grid. Raises OptionError where there is none."""
        try:
            x0, y0, x1, y1 = bounds_in_pixels(
                options.box, options.box_crs, self.source_transform, self.crs_wkt, self.source_width, self.source_height
            )
        except OutsideSceneError:
            # Who draws a box has not typed its coordinates.
            raise OptionError("the box lies outside the image: draw it where the image is") from None
        to_grid = ~self.transform @ self.source_transform
        (left, top), (right, bottom) = to_grid @ (x0, y0), to_grid @ (x1, y1)
        # The last column and row of a grid may end a little before the scene does.
        box = max(left, 0.0), max(top, 0.0), min(right, float(self.width)), min(bottom, float(self.height))
        if min(box[2] - box[0], box[3] - box[1]) < _SMALLEST_PX:
            raise OptionError(
                f"the box is {box[2] - box[0]:.1f} x {box[3] - box[1]:.1f} pixels of what the model sees: "
                "draw it around a whole object"
            )
        return box

    def placed(self, geometry: MultiPolygon) -> MultiPolygon:
        """A geometry of grid pixels in the scene's CRS."""
        a, b, c, d, e, f = self.transform[:6]
        to_ground = np.array([[a, d], [b, e]])
        return multipolygons([shapely.transform(geometry, lambda points: points @ to_ground + (c, f))])[0]


@dataclass(frozen=True)
class _View:
    """A window of a grid, encoded; `valid (h, w)` bool is False where the scene has no data."""

    image: Encoded
    valid: np.ndarray
    window: Window


class Outliner:
    """Proposes outlines. Holds encoded windows, and no file.

    Args:
        most_bytes: memory for encoded windows, on the model's device; the last one is held in any case.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._grids: OrderedDict[tuple, _Grid] = OrderedDict()
        self._views: OrderedDict[tuple, _View] = OrderedDict()

    @property
    def held_bytes(self) -> int:
        """Memory that the encoded windows take."""
        return sum(view.image.nbytes + view.valid.nbytes for view in self._views.values())

    def outline(
        self, scene_path: Path | str, model: LoadedModel, options: OutlineOptions, check: Callable[[], None]
    ) -> Outlined:
        """The outline of the object in a box.

        Args:
            scene_path: a file, or a name that GDAL understands. One that was replaced is noticed.
            check: called between the steps; may raise to end it.

        Raises:
            OptionError: the box lies outside or where there is no data, nothing can be made out in it, the class is
                unknown, or the window does not fit into memory.
            SceneError: the scene cannot be read.
        """
        label, window_px = options.label(model), options.window(model)
        place = (str(scene_path), _stamp(scene_path), options.bands, options.resolution_m, model.resolution_m)
        with ExitStack() as stack:
            opened: list[Scene] = []

            def scene(factor: int) -> Scene:
                if not opened:
                    opened.append(
                        stack.enter_context(
                            Scene.open(scene_path, options.bands, model.resolution_m, options.resolution_m)
                        )
                    )
                return opened[0] if factor == 1 else stack.enter_context(opened[0].coarser(factor))

            factor, grid = 1, self._grid(place, 1, scene)
            box = grid.box(options)
            longest = max(box[2] - box[0], box[3] - box[1])
            if longest > _LARGEST * window_px:
                factor = 2 ** math.ceil(math.log2(longest / (_LARGEST * window_px)))
                grid = self._grid(place, factor, scene)
                box = grid.box(options)
            window = window_around(box, grid.width, grid.height, window_px)
            key = (*place, factor, window, model.sha256, model.device)
            view = self._views.get(key)
            encoded = view is None
            if view is None:
                view = self._encode(scene(factor), window, model, check)
        check()
        self._keep(key, view)
        shape, found = _look(view, grid, box, model, label)
        class_name = model.classes[int(found.labels[0])]
        geometry = grid.placed(_shaped(shape, options.regularize and class_name not in CURVED_CLASSES))
        notes = [*grid.notes]
        if factor > 1:
            notes.append(f"the box is larger than a window: looked at with pixels {factor} times as long")
        return Outlined(
            geometry,
            class_name,
            float(found.scores[0]),
            grid.ground.area_m2(geometry),
            grid.crs_wkt,
            grid.resolution_m,
            encoded,
            tuple(notes),
        )

    def _grid(self, place: tuple, factor: int, scene: Callable[[int], Scene]) -> _Grid:
        grid = self._grids.get((place, factor))
        if grid is None:
            grid = self._grids[place, factor] = _Grid.of(scene(factor))
            while len(self._grids) > _MOST_GRIDS:
                self._grids.popitem(last=False)
        self._grids.move_to_end((place, factor))
        return grid

    @staticmethod
    def _encode(scene: Scene, window: Window, model: LoadedModel, check: Callable[[], None]) -> _View:
        check()
        image, valid = scene.read(window)
        if not valid.any():
            raise OptionError("the scene has no data around the box: draw it elsewhere")
        images = padded([(image, valid)])
        check()
        try:
            with MODEL:
                return _View(model.encode(images), valid, window)
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error):
                raise too_large(*images.shape[:1:-1], model.device) from error
            raise

    def _keep(self, key: tuple, view: _View) -> None:
        self._views[key] = view
        self._views.move_to_end(key)
        while len(self._views) > 1 and self.held_bytes > self._most_bytes:
            self._views.popitem(last=False)


def window_around(box: tuple[float, float, float, float], width: int, height: int, window_px: int) -> Window:
    """The window in which a box of a grid of `width` x `height` pixels is looked at; it holds all of the box.

    Args:
        box: left, top, right, bottom, its sides at most three quarters of the window.
    """
    col, row = (
        _start(low, high, size, window_px) for low, high, size in ((box[0], box[2], width), (box[1], box[3], height))
    )
    return Window(col, row, min(window_px, width), min(window_px, height))


def _start(low: float, high: float, size: int, window_px: int) -> int:
    step = window_px // 2 if high - low <= _SHARING * window_px else window_px // 8
    centred = ((low + high) / 2 - window_px / 2) / step
    return min(max(round(centred) * step, 0), max(size - window_px, 0))


def _look(
    view: _View, grid: _Grid, box: tuple[float, float, float, float], model: LoadedModel, label: int | None
) -> tuple[Polygon, Instances]:
    """The polygon in a box of the grid, and what was found there.

    Looked at twice: masks are as coarse as their boxes are large, and a box that was drawn by hand has room to spare.
    Raises OptionError where there is nothing.
    """
    window = view.window
    rows, cols = (
        slice(math.floor(low) - start, math.ceil(high) - start)
        for low, high, start in ((box[1], box[3], window.row), (box[0], box[2], window.col))
    )
    if not view.valid[rows, cols].any():
        raise OptionError("the scene has no data in the box: draw it elsewhere")
    shape, found = _glance(view, grid, box, model, label)
    if shape is None:
        raise OptionError("nothing can be made out in the box: draw it closer around the object, or the object by hand")
    x0, y0, x1, y1 = shape.bounds
    closer = max(x0, box[0]), max(y0, box[1]), min(x1, box[2]), min(y1, box[3])
    if min(closer[2] - closer[0], closer[3] - closer[1]) < _SMALLEST_PX:
        return shape, found
    nearer, found_nearer = _glance(view, grid, closer, model, label)
    return (shape, found) if nearer is None else (nearer, found_nearer)


def _glance(
    view: _View, grid: _Grid, box: tuple[float, float, float, float], model: LoadedModel, label: int | None
) -> tuple[Polygon | None, Instances]:
    corner = np.array([view.window.col, view.window.row] * 2)
    with MODEL:
        found = model.outline(view.image, torch.tensor(np.array([box]) - corner, dtype=torch.float32), label)
    detections = polygonize(found, view.window, grid.width, grid.height, view.valid)
    # A box is drawn around one object: lesser parts are of its neighbours.
    parts = [part for seen in detections for part in seen.geometry.geoms]
    return max(parts, key=lambda part: part.area, default=None), found


def _shaped(polygon: Polygon, straight: bool) -> MultiPolygon:
    """A polygon of grid pixels in its final shape, as a run gives it."""
    shape = without_specks(MultiPolygon([polygon]), SPECK_SHARE)
    if straight:
        shape = regularize(shape)
    return shapely.simplify(shapely.normalize(shape), SIMPLIFY_PX)


def _stamp(path: Path | str) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None for what is no file."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns, status.st_ino
