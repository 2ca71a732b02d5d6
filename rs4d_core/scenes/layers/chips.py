"""Chips: small pieces of a scene with the outlines that lie in them, as a model trains on them."""

import io
import math
from dataclasses import dataclass

import geopandas as gpd
import numpy as np
import rasterio
import shapely
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.features import shapes
from shapely import MultiPolygon, Polygon

from rs4d_core.errors import LayerError, OptionError
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

# Less than this of an outline, in square pixels, shows nothing that could be learned or ignored.
SMALLEST_PX2 = 4.0
# Chips are at least this long: a model's coarsest feature map has a pixel for it.
SMALLEST_CHIP_PX = 32


@dataclass(frozen=True, eq=False)
class Piece:
    """What one chip shows of one outline.

    Attributes:
        index: of the outline among those that were given to `ChipCutter`.
        outline: in the chip's pixels, cut at its edges and where the scene has no data; not empty.
        visible: share of the whole outline's area that this is, 0..1.
    """

    index: int
    outline: MultiPolygon
    visible: float


@dataclass(frozen=True, eq=False)
class Chip:
    """A piece of a scene.

    Attributes:
        window: where it lies on the scene's grid.
        image: `(h, w, 3)` uint8, as the model sees the scene: resampled and stretched; 0 where invalid.
        valid: `(h, w)` bool.
        transform: the chip's pixels to the scene's CRS.
        crs_wkt: of the scene.
        pieces: of the outlines, in their order.
    """

    window: Window
    image: np.ndarray
    valid: np.ndarray
    transform: Affine
    crs_wkt: str | None
    pieces: tuple[Piece, ...]


def chip_windows(area: Window, chip_px: int, overlap_px: int) -> list[Window]:
    """Windows of `chip_px`, spread evenly, that cover the whole of `area`, row by row.

    Neighbours overlap by `overlap_px` or more. Along a side that is shorter than a chip, chips are as long as that is.

    Raises:
        OptionError: chips are too small, or overlap by all they have.
    """
    if chip_px < SMALLEST_CHIP_PX:
        raise OptionError(f"chips of {chip_px} px are too small to learn from: give {SMALLEST_CHIP_PX} px or more")
    if not 0 <= overlap_px < chip_px:
        raise OptionError(
            f"an overlap of {overlap_px} px does not suit chips of {chip_px} px: give 0 px or more, less than a chip"
        )
    width, height = min(chip_px, area.width), min(chip_px, area.height)
    return [
        Window(area.col + col, area.row + row, width, height)
        for row in _starts(area.height, chip_px, overlap_px)
        for col in _starts(area.width, chip_px, overlap_px)
    ]


def _starts(size: int, chip_px: int, overlap_px: int) -> list[int]:
    if size <= chip_px:
        return [0]
    count = math.ceil((size - overlap_px) / (chip_px - overlap_px))
    return [round(i * (size - chip_px) / (count - 1)) for i in range(count)]


def outlines_on_grid(scene: Scene, frame: gpd.GeoDataFrame, source: str) -> np.ndarray:
    """The polygons of a layer in pixels of a scene's grid: `(N,)` valid MultiPolygons, empty where the scene's CRS has
    no place for them.

    Args:
        source: of the layer, for errors.

    Raises:
        LayerError: only one of the layer and the scene has a CRS.
    """
    if (frame.crs is None) != (scene.crs_wkt is None):
        bare, other = (source, scene.path) if frame.crs is None else (scene.path, source)
        raise LayerError(f"{bare} has no CRS, and {other} has one: assign the right CRS to {bare}")
    if frame.crs is not None:
        frame = frame.to_crs(scene.crs_wkt)
    geometries = frame.geometry.to_numpy().copy()
    geometries[~np.isfinite(shapely.bounds(geometries)).all(axis=1)] = MultiPolygon()
    to_grid = ~scene.transform
    return multipolygons(shapely.transform(geometries, lambda x, y: to_grid @ (x, y), interleaved=False))


class ChipCutter:
    """Cuts chips out of an open scene.

    Args:
        scene: stays open and in use by this only.
        outlines: `(N,)` MultiPolygons in pixels of the scene's grid, see `outlines_on_grid`.
    """

    def __init__(self, scene: Scene, outlines: np.ndarray):
        self._scene = scene
        self._outlines = outlines
        self._tree = shapely.STRtree(outlines)

    def touching(self, window: Window) -> np.ndarray:
        """Indices of the outlines of which a window shows something, whether or not there is data."""
        box = _box(window)
        near = np.sort(self._tree.query(box, predicate="intersects"))
        return near[shapely.area(shapely.intersection(self._outlines[near], box)) >= SMALLEST_PX2]

    def cut(self, window: Window) -> Chip:
        """Read one chip.

        Raises:
            SceneError: the scene is damaged there.
        """
        image, valid = self._scene.read(window)
        indices = self.touching(window)
        shown: Polygon | MultiPolygon = _box(window)
        if len(indices) and not valid.all():
            # Traced along the pixels' edges.
            traced = shapes(valid.astype(np.uint8), mask=valid, transform=Affine.translation(window.col, window.row))
            shown = shapely.union_all([shapely.geometry.shape(outline) for outline, _ in traced])
        parts = multipolygons(shapely.intersection(self._outlines[indices], shown))
        pieces = tuple(
            Piece(
                int(index),
                shapely.transform(part, lambda points: points - (window.col, window.row)),
                part.area / self._outlines[index].area,
            )
            for index, part in zip(indices, parts, strict=True)
            if part.area >= SMALLEST_PX2
        )
        return Chip(
            window,
            np.rint(image).astype(np.uint8).transpose(1, 2, 0),
            valid,
            self._scene.transform @ Affine.translation(window.col, window.row),
            self._scene.crs_wkt,
            pieces,
        )


def chip_geotiff(chip: Chip) -> bytes:
    """A chip as the content of a GeoTIFF file: QGIS shows it in its place, and Pillow opens it too."""
    height, width = chip.valid.shape
    memory = io.BytesIO()
    with rasterio.open(
        memory,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=3,
        dtype="uint8",
        crs=chip.crs_wkt,
        transform=chip.transform,
        compress="deflate",
        photometric="RGB",
    ) as file:
        file.write(chip.image.transpose(2, 0, 1))
        file.colorinterp = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
    return memory.getvalue()


def _box(window: Window) -> Polygon:
    return shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
