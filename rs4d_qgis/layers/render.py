"""Raster layers that are no files (web services, virtual rasters, rasters in memory) as a temporary GeoTIFF.

Pictures of a web service are asked for in blocks. Where it offers its tiles at certain resolutions, the one that suits
the model is taken, on the service's own tile grid: pixels are then those of the service, not resampled ones.
Rasters with values of their own are copied at their own resolution, which the engine then resamples better.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from osgeo import gdal
from qgis.core import (
    Qgis,
    QgsFeedback,
    QgsPointXY,
    QgsRasterBlockFeedback,
    QgsRasterFileWriter,
    QgsRasterLayer,
    QgsRasterPipe,
    QgsRectangle,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QImage

from rs4d_qgis.layers.errors import RenderCancelled, RenderError
from rs4d_qgis.layers.estimate import NEARLY
from rs4d_qgis.layers.source import pixel_size_m
from rs4d_qgis.translation import tr

# What web services give at once, and what is counted as missing where they do not.
TILE_PX = 256
BLOCK_PX = 4 * TILE_PX
LARGEST_PX = 400_000_000
_PICTURES = (Qgis.DataType.ARGB32, Qgis.DataType.ARGB32_Premultiplied)
_CREATION = ["TILED=YES", "COMPRESS=DEFLATE", "PREDICTOR=2", "ZLEVEL=1", "BIGTIFF=IF_SAFER"]


@dataclass(frozen=True)
class Grid:
    """The pixels of a file that is to be made: north up, in the layer's CRS.

    Attributes:
        west, north: of the corner, in units of the CRS.
        across, down: width and height of a pixel, in units of the CRS.
        width, height: in pixels.
        resolution_m: metres in a pixel; None where the ground is unknown.
    """

    west: float
    north: float
    across: float
    down: float
    width: int
    height: int
    resolution_m: float | None

    def rectangle(self, col: int, row: int, width: int, height: int) -> QgsRectangle:
        """The ground of a part of it."""
        left, top = self.west + col * self.across, self.north - row * self.down
        return QgsRectangle(left, top - height * self.down, left + width * self.across, top)

    def parts(self, side: int) -> list[tuple[int, int, int, int]]:
        """Squares of `side` pixels that cover it, row by row, as column, row, width and height."""
        return [
            (col, row, min(side, self.width - col), min(side, self.height - row))
            for row in range(0, self.height, side)
            for col in range(0, self.width, side)
        ]


class Rendering:
    """A raster layer, as another thread can read it. Made on the main thread."""

    def __init__(self, layer: QgsRasterLayer) -> None:
        self.name = layer.name()
        self._provider = layer.dataProvider().clone()
        self._crs = layer.crs()
        self._transform_context = layer.transformContext()
        self.is_picture = self._provider.dataType(1) in _PICTURES

    def plan(self, extent: QgsRectangle | None, expected_m: tuple[float, float], wanted_m: float | None = None) -> Grid:
        """The pixels that are needed of `extent` (in the layer's CRS; by default all of it). Asks the service nothing.

        Args:
            expected_m: metres a pixel, the finest and the coarsest that the model was made for.
            wanted_m: what the user asks for.

        Raises:
            RenderError: it lies outside of the layer, or is too large.
        """
        whole = self._provider.extent()
        part = whole if extent is None else extent.intersect(whole)
        if part.isEmpty():
            raise RenderError(tr("The extent lies outside of layer “{}”: choose another").format(self.name))
        middle = part.center()
        if self.is_picture:
            across, down, aligned = self._picture_pixel(middle, expected_m, wanted_m)
        else:
            across, down = whole.width() / self._provider.xSize(), whole.height() / self._provider.ySize()
            aligned = 1
        west, north = part.xMinimum(), part.yMaximum()
        if aligned:
            # Outwards, to whole tiles or pixels of the layer. A thousandth is rounding.
            west = whole.xMinimum() + math.floor((west - whole.xMinimum()) / across / aligned + 1e-3) * across * aligned
            north = whole.yMaximum() - math.floor((whole.yMaximum() - north) / down / aligned + 1e-3) * down * aligned
        sides = (part.xMaximum() - west) / across, (north - part.yMinimum()) / down
        if sides[0] * sides[1] > LARGEST_PX:
            raise RenderError(
                tr(
                    "Layer “{}” would be fetched as {:,.0f} x {:,.0f} pixels, which is too much (at most {:,} in all): "
                    "choose a smaller extent, or a coarser resolution"
                ).format(self.name, *sides, LARGEST_PX)
            )
        width, height = (max(1, math.ceil(side / (aligned or 1) - 1e-3) * (aligned or 1)) for side in sides)
        size = pixel_size_m(self._crs, middle, across, down) if self._crs.isValid() else None
        return Grid(west, north, across, down, width, height, size and math.sqrt(size[0] * size[1]))

    def write(self, grid: Grid, path: Path, feedback: QgsFeedback, tell: Callable[[float], None]) -> list[str]:
        """Makes the GeoTIFF.

        Args:
            feedback: asked for cancel.
            tell: told the fraction that is done.

        Returns:
            Notes for the user.

        Raises:
            RenderError: the layer gave nothing, or the file cannot be written.
            RenderCancelled: what there is of the file is of no use.
        """
        block_feedback = QgsRasterBlockFeedback()
        # This thread has no event loop that would bring the signal.
        feedback.canceled.connect(block_feedback.cancel, Qt.ConnectionType.DirectConnection)
        if feedback.isCanceled():
            block_feedback.cancel()
        if self.is_picture:
            return self._write_picture(grid, path, block_feedback, tell)
        return self._write_values(grid, path, block_feedback, tell)

    def _picture_pixel(
        self, middle: QgsPointXY, expected_m: tuple[float, float], wanted_m: float | None
    ) -> tuple[float, float, int]:
        """Width and height of a pixel, in units of the CRS, and of how many pixels the service's tiles are, or 0."""
        unit_m = pixel_size_m(self._crs, middle, 1e-4, 1e-4) if self._crs.isValid() else None
        if unit_m is None:
            raise RenderError(
                tr("Layer “{}” has no CRS, or the extent lies beyond it: its resolution is unknown").format(self.name)
            )
        metres_across, metres_down = unit_m[0] / 1e-4, unit_m[1] / 1e-4
        unit = math.sqrt(metres_across * metres_down)
        if not self._crs.isGeographic():
            # Square pixels, as everyone expects: a map projection's two scales differ by little.
            metres_across = metres_down = unit
        offered = self._provider.nativeResolutions()
        if not offered:
            target_m = wanted_m or math.sqrt(expected_m[0] * expected_m[1])
            return target_m / metres_across, target_m / metres_down, 0
        resolution = choose_offered([pixel * unit for pixel in offered], expected_m, wanted_m) / unit
        return resolution, resolution, TILE_PX

    def _write_picture(
        self, grid: Grid, path: Path, feedback: QgsRasterBlockFeedback, tell: Callable[[float], None]
    ) -> list[str]:
        dataset = _new_picture(path, grid.width, grid.height)
        dataset.SetGeoTransform([grid.west, grid.across, 0.0, grid.north, 0.0, -grid.down])
        dataset.SetProjection(_wkt(self._crs))
        blocks = grid.parts(min(BLOCK_PX, self._provider.stepWidth(), self._provider.stepHeight()))
        tiles = missing = 0
        for done, part in enumerate(blocks):
            picture = self._picture(grid, part, feedback)
            cells = _cells(*part[2:])
            if any(_is_empty(picture, cell) for cell in cells):
                # A server that refuses once often does not a second time, and what came is in QGIS's cache.
                again = self._picture(grid, part, feedback)
                if sum(_is_empty(again, cell) for cell in cells) < sum(_is_empty(picture, cell) for cell in cells):
                    picture = again
            if feedback.isCanceled():
                raise RenderCancelled
            tiles += len(cells)
            missing += sum(_is_empty(picture, cell) for cell in cells)
            _write_block(dataset, part, picture)
            tell((done + 1) / len(blocks))
        dataset.FlushCache()
        said = next(iter(feedback.errors()), "")
        if missing == tiles:
            raise RenderError(
                tr("Layer “{}” gave no picture for this extent: see that it can be seen on the map there {}")
                .format(self.name, f"({said})" if said else "")
                .strip()
            )
        notes = []
        if missing:
            notes.append(
                tr("{} of {} tiles of layer “{}” are empty or were refused: nothing is found there {}")
                .format(missing, tiles, self.name, f"({said})" if said else "")
                .strip()
            )
        return notes

    def _picture(self, grid: Grid, part: tuple[int, int, int, int], feedback: QgsRasterBlockFeedback) -> QImage:
        """One block, as red, green, blue and alpha; transparent where there is nothing."""
        _, _, width, height = part
        block = self._provider.block(1, grid.rectangle(*part), width, height, feedback)
        image = block.image() if block is not None and not block.isEmpty() else QImage()
        if image.size().width() != width or image.size().height() != height:
            image = QImage(width, height, QImage.Format.Format_RGBA8888)
            image.fill(0)
        return image.convertToFormat(QImage.Format.Format_RGBA8888)

    def _write_values(
        self, grid: Grid, path: Path, feedback: QgsRasterBlockFeedback, tell: Callable[[float], None]
    ) -> list[str]:
        pipe = QgsRasterPipe()
        if not pipe.set(self._provider.clone()):
            raise RenderError(tr("Layer “{}” cannot be read").format(self.name))
        writer = QgsRasterFileWriter(str(path))
        writer.setOutputFormat("GTiff")
        writer.setCreateOptions(_CREATION[:2] + _CREATION[3:])
        feedback.progressChanged.connect(lambda percent: tell(percent / 100.0), Qt.ConnectionType.DirectConnection)
        error = writer.writeRaster(
            pipe,
            grid.width,
            grid.height,
            grid.rectangle(0, 0, grid.width, grid.height),
            self._crs,
            self._transform_context,
            feedback,
        )
        if feedback.isCanceled():
            raise RenderCancelled
        if error != QgsRasterFileWriter.NoError:
            raise RenderError(tr("Layer “{}” cannot be copied to {} ({})").format(self.name, path, error))
        return []


def choose_offered(offered_m: list[float], expected_m: tuple[float, float], wanted_m: float | None) -> float:
    """Of the resolutions that a service offers, the one to fetch, in metres a pixel.

    What the user wants, or the next finer. Otherwise one that the model was made for, the nearest to the middle; else
    the next finer one, as the engine can make it coarser but not finer.
    """
    finest, coarsest = expected_m
    middle = math.sqrt(finest * coarsest)
    if wanted_m is None:
        fitting = [m for m in offered_m if finest * (1 - NEARLY) <= m <= coarsest * (1 + NEARLY)]
        if fitting:
            return min(fitting, key=lambda m: abs(math.log(m / middle)))
    finer = [m for m in offered_m if m <= (wanted_m or finest) * (1 + NEARLY)]
    return max(finer) if finer else min(offered_m)


def copy_from_memory(source: str, path: Path, feedback: QgsFeedback, tell: Callable[[float], None]) -> None:
    """Copies a GDAL raster of this process's memory to a GeoTIFF.

    Raises:
        RenderError: it cannot be read, or the file cannot be written.
        RenderCancelled: by the user.
    """

    def told(fraction: float, _message: str, _data: object) -> int:
        tell(fraction)
        return 0 if feedback.isCanceled() else 1

    try:
        made = gdal.Translate(str(path), source, format="GTiff", creationOptions=_CREATION[:2], callback=told)
    except RuntimeError:  # where another plugin has switched GDAL to exceptions
        made = None
    if feedback.isCanceled():
        raise RenderCancelled
    if made is None:
        raise RenderError(tr("{} cannot be copied to a file: {}").format(source, gdal.GetLastErrorMsg()))
    made.FlushCache()


def _new_picture(path: Path, width: int, height: int) -> gdal.Dataset:
    options = [*_CREATION, "PHOTOMETRIC=RGB", "ALPHA=YES"]
    try:
        dataset = gdal.GetDriverByName("GTiff").Create(str(path), width, height, 4, gdal.GDT_Byte, options)
    except RuntimeError:
        dataset = None
    if dataset is None:
        raise RenderError(tr("{} cannot be written: {}").format(path, gdal.GetLastErrorMsg()))
    return dataset


def _cells(width: int, height: int) -> list[tuple[int, int, int, int]]:
    """The tiles of a block, as column, row, width and height in it."""
    return Grid(0, 0, 1, 1, width, height, None).parts(TILE_PX)


def _is_empty(picture: QImage, cell: tuple[int, int, int, int]) -> bool:
    """Whether every pixel is transparent."""
    return not any(_bytes(picture.copy(*cell))[3::4])


def _write_block(dataset: gdal.Dataset, part: tuple[int, int, int, int], picture: QImage) -> None:
    col, row, width, height = part
    try:
        failed = dataset.WriteRaster(
            col, row, width, height, _bytes(picture), width, height, gdal.GDT_Byte, [1, 2, 3, 4],
            buf_pixel_space=4, buf_line_space=picture.bytesPerLine(), buf_band_space=1,
        )  # fmt: skip
    except RuntimeError:
        failed = True
    if failed:
        raise RenderError(tr("The temporary picture cannot be written: {}").format(gdal.GetLastErrorMsg()))


def _bytes(picture: QImage) -> bytes:
    pointer = picture.constBits()
    pointer.setsize(picture.sizeInBytes())
    return bytes(pointer)


def _wkt(crs) -> str:
    return crs.toWkt(crs.WKT_PREFERRED_GDAL)
