"""A scene as the model sees it: three bands of 0..255 on a grid of square pixels at the model's resolution."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from shapely import MultiPolygon, box
from shapely.geometry.base import BaseGeometry

from rs4d_core.errors import OptionError
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.reading.area import Area, AreaMask
from rs4d_core.scenes.reading.damage import Block, blocks_of, read_readable
from rs4d_core.scenes.reading.georeference import georeference, pixels_around, pixels_inside
from rs4d_core.scenes.reading.raster import Raster, opens_raster
from rs4d_core.scenes.reading.resample import Axis, resample
from rs4d_core.scenes.reading.resolution import Scale, choose_scale
from rs4d_core.scenes.reading.stretch import Stretch, measure_stretch

if TYPE_CHECKING:
    from rs4d_core.scenes.windows.detections import Box
    from rs4d_core.scenes.windows.plan import Window

# Scene values read at once. A window that covers more of the scene is read in parts: a fine scene is then read at a
# coarse resolution in the memory that any other takes.
VALUES_AT_ONCE = 16_000_000

# The last column and row of a grid stick out of the scene, but at least this share of a pixel lies inside.
LEAST_SHARE = 0.1


@dataclass(frozen=True)
class _Level:
    """A raster, or one of its overviews, with the grid laid over its pixels, and the area to look at over that."""

    raster: Raster
    cols: Axis
    rows: Axis
    mask: AreaMask | None


class Scene:
    """An open scene. Made by `Scene.open`; a context manager.

    The grid is never turned or warped, only scaled along the scene's own pixel axes: one affine transform takes grid
    pixels to the scene's CRS, and a rotated scene stays rotated. A grid in degrees is scaled differently in x and y,
    so that its pixels become square on the ground.

    One GDAL handle serves a scene: it must not be read by two threads at the same time.

    Attributes:
        path: as it was given.
        width, height: of the grid, over the chosen extent.
        transform: grid pixels (column, row; integers are corners) to the scene's CRS.
        crs_wkt: WKT 2, the horizontal part; None for a scene without a CRS.
        resolution_m: metres in a grid pixel; None where the ground is unknown.
        bands: the three bands, from 1, read as red, green and blue.
        stretch: the values of each distinct band that become 0 and 255; None where values are brightnesses already.
        source_width, source_height, source_transform: of the whole scene's own pixels.
        notes: what was chosen, resampled, stretched or is amiss: sentences for the user.
    """

    def __init__(
        self,
        path: Path | str,
        raster: Raster,
        extent: tuple[int, int, int, int],
        scale: Scale,
        source_transform: Affine,
        crs_wkt: str | None,
        stretch: Stretch | None,
        notes: list[str],
        area: MultiPolygon | None = None,
    ):
        """In the scene's own pixels, `extent`: the chosen column, row, width, height; `area`: what may be seen."""
        self.path = path
        self.crs_wkt = crs_wkt
        self.resolution_m = scale.resolution_m
        self.bands = raster.bands
        self.stretch = stretch
        self.source_width, self.source_height = raster.dataset.width, raster.dataset.height
        self.source_transform = source_transform
        self.notes = notes
        self._extent = extent
        self._area = area
        self._base = raster
        self._steps = (scale.step_x, scale.step_y)
        self._level = self._at(*self._steps)
        self.width, self.height = self._level.cols.size, self._level.rows.size
        self.transform = self._transform(*self._steps)
        self._ground = Ground(crs_wkt)
        self._bad: dict[Raster, set[Block]] = {}

    @classmethod
    @opens_raster
    def open(
        cls,
        path: Path | str,
        bands: Sequence[int] | None = None,
        resolution_range_m: tuple[float, float] = (0.0, math.inf),
        resolution_m: float | None = None,
        bbox: tuple[float, float, float, float] | None = None,
        bbox_crs: str | None = None,
        area: Area | None = None,
    ) -> "Scene":
        """Open a raster that GDAL can read.

        Args:
            path: a file, or a name that GDAL understands.
            bands: three band numbers from 1, or one for all three. By default red, green and blue where the file says
                which they are, else the first three, or the first where there are fewer than three.
            resolution_range_m: the metres a pixel that the model was made for; a scene within is read as it is, any
                other is resampled to the nearer end.
            resolution_m: metres a pixel to read at, whatever the model was made for.
            bbox: west, south, east, north: read only the pixels that this touches.
            bbox_crs: of `bbox`; by default the scene's own.
            area: all outside of it is as if the scene had no data there. Without a `bbox`, its extent is read.

        Raises:
            SceneError: missing, damaged, or of a kind that cannot be read.
            OptionError: bands, resolution, bounding box or area do not fit the scene.
        """
        raster = Raster.open(path, bands)
        try:
            width, height = raster.dataset.width, raster.dataset.height
            transform, crs_wkt, notes = georeference(raster.dataset)
            extent = (0, 0, width, height)
            if bbox is not None:
                extent = pixels_inside(bbox, bbox_crs, transform, crs_wkt, width, height)
            shown = None
            if area is not None:
                shown = area.in_pixels(transform, crs_wkt, width, height)
                if bbox is None:
                    extent = pixels_around(shown.bounds, width, height)
                elif not shown.intersects(box(*extent[:2], extent[0] + extent[2], extent[1] + extent[3])):
                    raise OptionError("the area lies outside the bounding box: leave one of them out")
            middle = (extent[0] + extent[2] / 2, extent[1] + extent[3] / 2)
            pixel_m = Ground(crs_wkt).pixel_size_m(transform, *middle)
            scale = choose_scale(pixel_m, resolution_range_m, resolution_m, extent[2], extent[3])
            notes += [scale.note] if scale.note else []
            notes += _band_notes(raster)
            stretch = None
            if not raster.is_picture:
                stretch = _measure(raster)
                notes.append(_stretch_note(raster, stretch))
            return cls(path, raster, extent, scale, transform, crs_wkt, stretch, notes, shown)
        except BaseException:
            raster.close()
            raise

    def read(self, window: "Window") -> tuple[np.ndarray, np.ndarray]:
        """The pixels of a window of the grid.

        Windows that overlap give the same values, to the bit, where they do.

        Returns:
            The image `(3, h, w)` float32 in 0..255, 0 where invalid, and which pixels are valid `(h, w)` bool.

        Raises:
            SceneError: the file is damaged there.
        """
        return self._read(self._level, window.col, window.row, window.width, window.height)

    def read_readable(self, window: "Window") -> tuple[np.ndarray, np.ndarray, tuple["Box", ...]]:
        """As `read`, but where the file is damaged it is as if there were no data.

        A block that could not be read is not tried again: all windows that share it see the same.

        Returns:
            Image and validity as `read` gives them, and the boxes of the blocks that are missing in this window.
        """
        bad = self._bad.setdefault(self._level.raster, set())
        image, valid = self._read(self._level, window.col, window.row, window.width, window.height, bad)
        if not bad:
            return image, valid, ()
        cols = self._level.cols.taps(window.col, window.col + window.width)
        rows = self._level.rows.taps(window.row, window.row + window.height)
        place = (cols.first, rows.first, cols.last - cols.first, rows.last - rows.first)
        reached = [block for block in blocks_of(self._level.raster, *place) if block in bad]
        return image, valid, tuple(self._in_grid(block) for block in reached)

    @property
    def files(self) -> list[str]:
        """See `Raster.files`."""
        return self._base.files

    def signature(self) -> str:
        """See `Raster.signature`."""
        return self._base.signature()

    def thumbnail(self, longest_side: int) -> tuple[np.ndarray, np.ndarray, Affine]:
        """The chosen extent as one picture, at most `longest_side` pixels long, and finer than the grid only where the
        scene is. What cannot be read in it counts as invalid.

        Returns:
            The image `(3, h, w)` and validity `(h, w)` as `read` gives them, and the transform of the picture's pixels.
        """
        smaller = max(max(self.width, self.height) / longest_side, 1.0 / max(1.0, *self._steps))
        steps = (self._steps[0] * smaller, self._steps[1] * smaller)
        level = self._at(*steps)
        try:
            image, valid = self._read(level, 0, 0, level.cols.size, level.rows.size, set())
        finally:
            if level.raster not in (self._base, self._level.raster):
                level.raster.close()
        return image, valid, self._transform(*steps)

    def coarser(self, factor: float) -> "Scene":
        """The same extent on a grid of pixels `factor` times as long. The two share one file: closing one closes it."""
        resolution_m = None if self.resolution_m is None else self.resolution_m * factor
        scale = Scale(self._steps[0] * factor, self._steps[1] * factor, resolution_m, None)
        place = (self._extent, scale, self.source_transform, self.crs_wkt)
        return Scene(self.path, self._base, *place, self.stretch, self.notes, self._area)

    def area_m2(self, geometry: BaseGeometry) -> float:
        """Area on the ground, on the ellipsoid, of a polygon or multipolygon in the scene's CRS; NaN without a CRS."""
        return self._ground.area_m2(geometry)

    @property
    def record(self) -> dict:
        """How the scene was read, as plain values for the record of a run."""
        col, row, width, height = self._extent
        return {
            "bands": list(self.bands),
            "resolution_m": self.resolution_m,
            "scene_pixels": {"col": col, "row": row, "width": width, "height": height},
            "stretch": [list(pair) for pair in zip(self.stretch.low, self.stretch.high, strict=True)]
            if self.stretch
            else None,
        }

    def close(self) -> None:
        """Release the file."""
        if self._level.raster is not self._base:
            self._level.raster.close()
        self._base.close()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def _transform(self, step_x: float, step_y: float) -> Affine:
        corner = Affine.translation(self._extent[0], self._extent[1])
        return self.source_transform @ corner @ Affine.scale(step_x, step_y)

    def _at(self, step_x: float, step_y: float) -> _Level:
        """A grid of these steps (scene pixels in a grid pixel) over the extent, on the overview that suits it."""
        raster = self._base.overview(min(step_x, step_y))
        axes = []
        for start, length, step, whole, limit in (
            (self._extent[0], self._extent[2], step_x, self.source_width, raster.dataset.width),
            (self._extent[1], self._extent[3], step_y, self.source_height, raster.dataset.height),
        ):
            size = max(1, math.ceil(length / step - LEAST_SHARE))
            axes.append(Axis(start * limit / whole, step * limit / whole, size, limit))
        mask = None
        if self._area is not None:
            corner, steps = np.array(self._extent[:2]), np.array([step_x, step_y])
            mask = AreaMask(shapely.transform(self._area, lambda points: (points - corner) / steps))
        return _Level(raster, *axes, mask)

    def _in_grid(self, block: Block) -> "Box":
        """A block of the raster that is read, cut to the grid, in pixels of the grid."""
        cols, rows = self._level.cols, self._level.rows
        left, right = (min(max((x - cols.start) / cols.step, 0.0), cols.size) for x in (block[0], block[2]))
        top, bottom = (min(max((y - rows.start) / rows.step, 0.0), rows.size) for y in (block[1], block[3]))
        return left, top, float(right), float(bottom)

    def _read(
        self, level: _Level, col: int, row: int, width: int, height: int, bad: set[Block] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """`bad`: blocks that cannot be read are passed over and added to it; without it, they are an error."""
        if level.mask is None:
            return self._read_unmasked(level, col, row, width, height, bad)
        inside = level.mask.read(col, row, width, height)
        if not inside.any():
            return np.zeros((3, height, width), np.float32), inside
        image, valid = self._read_unmasked(level, col, row, width, height, bad)
        image[:, ~inside] = 0.0
        return image, valid & inside

    def _read_unmasked(self, level: _Level, col: int, row: int, width: int, height: int, bad: set[Block] | None):
        cols, rows = level.cols.taps(col, col + width), level.rows.taps(row, row + height)
        values = (cols.last - cols.first) * (rows.last - rows.first) * level.raster.planes
        resampled = not (level.cols.identity and level.rows.identity)
        if resampled and values > VALUES_AT_ONCE and max(width, height) > 1:
            return self._read_halves(level, col, row, width, height, bad)
        place = (cols.first, rows.first, cols.last - cols.first, rows.last - rows.first)
        planes, valid = level.raster.read(*place) if bad is None else read_readable(level.raster, *place, bad)
        if planes.dtype.kind == "f":
            # One band of a pixel that others hold valid: the darkest value, as nothing is known.
            lowest = self.stretch.low if self.stretch else (0.0,) * len(planes)
            np.copyto(planes, np.array(lowest, planes.dtype)[:, None, None], where=np.isnan(planes))
        if resampled:
            if valid.all():
                planes, valid = resample(planes, rows, cols), np.ones((height, width), dtype=bool)
            else:
                share = resample(valid[None].astype(np.float32), rows, cols)
                # Exactly 1, as in a window without a single invalid pixel, and not 1 give or take rounding.
                share[share > 1.0 - 1e-5] = 1.0
                planes = resample(planes * valid, rows, cols) / np.where(share > 0, share, 1.0)
                valid = share[0] >= 0.5
        image = self.stretch.apply(planes) if self.stretch else planes.astype(np.float32)
        image = np.clip(self._base.spread(image), 0.0, 255.0)
        image[:, ~valid] = 0.0
        return image, valid

    def _read_halves(self, level: _Level, col: int, row: int, width: int, height: int, bad: set[Block] | None):
        if width >= height:
            half = width // 2
            parts = [(col, row, half, height), (col + half, row, width - half, height)]
        else:
            half = height // 2
            parts = [(col, row, width, half), (col, row + half, width, height - half)]
        (image0, valid0), (image1, valid1) = (self._read_unmasked(level, *part, bad) for part in parts)
        axis = 1 if width >= height else 0
        return np.concatenate([image0, image1], axis=axis + 1), np.concatenate([valid0, valid1], axis=axis)


def _measure(raster: Raster) -> Stretch:
    """The stretch of a whole scene, from its overviews where it has them: 512 pixels or more along the longer side."""
    longest = max(raster.dataset.width, raster.dataset.height)
    small = raster.overview(longest / 512)
    try:
        stretch = measure_stretch(small.samples(), raster.planes)
    finally:
        if small is not raster:
            small.close()
    return stretch or Stretch((0.0,) * raster.planes, (0.0,) * raster.planes)


def _band_notes(raster: Raster) -> list[str]:
    count = raster.dataset.count
    if len(set(raster.bands)) == 1:
        return [f"band {raster.bands[0]} of {count} read as grey"] if count > 1 else []
    if raster.bands != (1, 2, 3) or count > 3:
        return [f"bands {', '.join(map(str, raster.bands))} of {count} read as red, green, blue"]
    return []


def _stretch_note(raster: Raster, stretch: Stretch) -> str:
    if stretch.low == stretch.high:
        return "the scene has no valid pixels, or all have the same value: nothing can be found in it"
    spans = ", ".join(f"{low:.6g} to {high:.6g}" for low, high in zip(stretch.low, stretch.high, strict=True))
    return f"{raster.dataset.dtypes[raster.bands[0] - 1]} values stretched to brightness over the whole scene: {spans}"
