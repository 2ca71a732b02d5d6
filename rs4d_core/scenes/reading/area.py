"""The ground to look at, where that is not a rectangle: polygons, as a mask over the pixels of a grid."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from shapely import MultiPolygon, Polygon
from shapely.errors import ShapelyError

from rs4d_core.errors import OptionError
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.reading.georeference import EDGE_POINTS, between, numbers, scene_points

# Edges are straight in the CRS that they were drawn in, and get this many corners along the whole area on their way to
# another: half a pixel or better for areas of a hundred kilometres.
CORNERS = 256
# Blocks of pixels up to this side are asked about pixel by pixel, larger ones as wholes first.
BLOCK_PX = 32


@dataclass(frozen=True)
class Area:
    """Polygons on the ground.

    Attributes:
        geometry: two-dimensional and valid; repaired where what was given is not.
        crs: of the geometry, anything pyproj understands; None is the scene's own.
    """

    geometry: MultiPolygon
    crs: str | None = None

    def __post_init__(self) -> None:
        """Raises OptionError for what is no polygon."""
        geometry = shapely.force_2d(self.geometry)
        if not isinstance(geometry, Polygon | MultiPolygon):
            raise OptionError(f"the area is a {self.geometry.geom_type}: give a polygon or a multipolygon")
        if not np.isfinite(shapely.get_coordinates(geometry)).all():
            raise OptionError("the area has a coordinate that is not a number: draw it again")
        geometry = multipolygons([geometry])[0]
        if geometry.is_empty:
            raise OptionError("the area has no extent: give a polygon that covers ground")
        object.__setattr__(self, "geometry", geometry)

    @classmethod
    def from_wkb(cls, wkb: bytes | str, crs: str | None = None) -> "Area":
        """The area in well-known binary, or that in hexadecimal. Raises OptionError."""
        try:
            return cls(shapely.from_wkb(wkb), crs)
        except ShapelyError as error:
            raise OptionError(f"the area is not well-known binary ({error}): give a polygon or multipolygon") from error

    def to_json(self) -> dict[str, str | None]:
        """Plain values, for the record of a run."""
        return {"wkb": shapely.to_wkb(self.geometry, hex=True), "crs_wkt": self.crs}

    def in_pixels(self, transform: Affine, crs_wkt: str | None, width: int, height: int) -> MultiPolygon:
        """The part of a scene that the area covers, in the scene's own pixels.

        Args:
            transform: of the whole scene.
            crs_wkt: of the scene.
            width, height: of the whole scene, pixels.

        Raises:
            OptionError: it covers nothing of the scene, or its CRS is unknown or cannot be brought into the scene's.
        """
        to_scene, from_scene = between(self.crs, crs_wkt, "area")
        geometry = self.geometry
        _, scene_xy = scene_points(from_scene, transform, width, height, "area")
        low, high = scene_xy.min(axis=0), scene_xy.max(axis=0)
        if self.crs is not None:
            # What lies far from the scene may have no place in its CRS.
            margin = (high - low) / (EDGE_POINTS - 1)
            geometry = multipolygons([geometry.intersection(shapely.box(*low - margin, *high + margin))])[0]
            if not geometry.is_empty:
                west, south, east, north = geometry.bounds
                geometry = geometry.segmentize(max(east - west, north - south) / CORNERS)
        pixels = shapely.transform(
            geometry, lambda x, y: ~transform @ tuple(np.asarray(axis) for axis in to_scene(x, y)), interleaved=False
        )
        if not np.isfinite(shapely.get_coordinates(pixels)).all():
            raise OptionError("the area cannot be brought into the scene's CRS: give it in the scene's CRS")
        scene = shapely.box(0, 0, width, height)
        inside = multipolygons([shapely.intersection(multipolygons([pixels])[0], scene)])[0]
        if inside.is_empty:
            here, there = numbers(self.geometry.bounds), numbers((*low, *high))
            raise OptionError(f"the area ({here}) lies outside the scene, which covers {there}: choose another")
        return inside


class AreaMask:
    """Which pixels of a grid lie in an area: those whose centre does, whatever window is asked about.

    Args:
        geometry: in pixels of the grid.
    """

    def __init__(self, geometry: MultiPolygon) -> None:
        self._geometry = geometry
        shapely.prepare(geometry)

    def read(self, col: int, row: int, width: int, height: int) -> np.ndarray:
        """`(height, width)` bool for a window of the grid."""
        mask = np.zeros((height, width), dtype=bool)
        self._fill(mask, col, row)
        return mask

    def _fill(self, mask: np.ndarray, col: int, row: int) -> None:
        height, width = mask.shape
        block = shapely.box(col, row, col + width, row + height)
        if not self._geometry.intersects(block):
            return
        if self._geometry.contains(block):
            mask[:] = True
        elif max(height, width) <= BLOCK_PX:
            mask[:] = shapely.contains_xy(
                self._geometry, *np.meshgrid(col + 0.5 + np.arange(width), row + 0.5 + np.arange(height))
            )
        elif width >= height:
            self._fill(mask[:, : width // 2], col, row)
            self._fill(mask[:, width // 2 :], col + width // 2, row)
        else:
            self._fill(mask[: height // 2], col, row)
            self._fill(mask[height // 2 :], col, row + height // 2)
