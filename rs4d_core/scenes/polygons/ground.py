"""Lengths and areas on the ground, for coordinates in any CRS: degrees, feet, metres, with or without a code."""

import math

import shapely
from affine import Affine
from pyproj import CRS, Transformer
from shapely.geometry.base import BaseGeometry


class Ground:
    """Measures on the ellipsoid of one CRS.

    Coordinates are taken back to longitude and latitude on the CRS's own datum, never on another one: that needs no
    datum shift and no grid files, and is exact for lengths and areas. Map units are no substitute: EPSG:3857's are
    1 / cos(latitude) times too long.

    An engineering CRS (a construction site's) has no ellipsoid but a unit: it is measured in the plane. Without a CRS
    nothing is known, and lengths and areas are NaN.
    """

    def __init__(self, crs_wkt: str | None):
        self._to_degrees: Transformer | None = None
        self._unit_m = math.nan
        if crs_wkt is None:
            return
        crs = horizontal(CRS.from_wkt(crs_wkt))
        if crs.geodetic_crs is None:
            self._unit_m = crs.axis_info[0].unit_conversion_factor if crs.axis_info else math.nan
            return
        self._geod = crs.get_geod()
        self._to_degrees = Transformer.from_crs(crs, crs.geodetic_crs, always_xy=True)
        # Some geodetic CRSs (the French NTF) count in grads.
        self._degrees_per_unit = math.degrees(crs.geodetic_crs.axis_info[0].unit_conversion_factor)

    def pixel_size_m(self, transform: Affine, col: float, row: float) -> tuple[float, float]:
        """Width and height in metres of the pixel centred at `(col, row)`, along the pixel axes of `transform`."""
        across = [transform @ (col - 0.5, row), transform @ (col + 0.5, row)]
        down = [transform @ (col, row - 0.5), transform @ (col, row + 0.5)]
        return self._distance_m(*across), self._distance_m(*down)

    def metres_a_unit(self, bounds: tuple[float, float, float, float]) -> tuple[float, float]:
        """Metres on the ground in a unit of x and of y, on the average over a place; NaN where they are unknown."""
        left, bottom, right, top = bounds
        across, up = right - left, top - bottom
        place = Affine(across, 0.0, (left + right) / 2, 0.0, up, (bottom + top) / 2)
        across_m, up_m = self.pixel_size_m(place, 0.0, 0.0)
        return across_m / across, up_m / up

    def area_m2(self, geometry: BaseGeometry) -> float:
        """Ellipsoidal area in square metres of a polygon or multipolygon, holes taken off; NaN where it is unknown."""
        if self._to_degrees is None:
            return geometry.area * self._unit_m**2
        return sum(
            self._ring_m2(polygon.exterior) - sum(self._ring_m2(hole) for hole in polygon.interiors)
            for polygon in shapely.get_parts(geometry)
        )

    def _ring_m2(self, ring: shapely.LinearRing) -> float:
        xy = shapely.get_coordinates(ring)
        lon, lat = self._degrees(xy[:, 0], xy[:, 1])
        return abs(self._geod.polygon_area_perimeter(lon, lat)[0])

    def _distance_m(self, start: tuple[float, float], end: tuple[float, float]) -> float:
        if self._to_degrees is None:
            return math.dist(start, end) * self._unit_m
        (lon0, lon1), (lat0, lat1) = self._degrees((start[0], end[0]), (start[1], end[1]))
        if not all(math.isfinite(value) for value in (lon0, lon1, lat0, lat1)) or max(abs(lat0), abs(lat1)) > 90.0:
            return math.nan
        return self._geod.inv(lon0, lat0, lon1, lat1)[2]

    def _degrees(self, x, y):
        lon, lat = self._to_degrees.transform(x, y)
        if self._degrees_per_unit == 1.0:
            return lon, lat
        return [value * self._degrees_per_unit for value in lon], [value * self._degrees_per_unit for value in lat]


def horizontal(crs: CRS) -> CRS:
    """The horizontal part of a compound CRS (map and height); any other CRS as it is."""
    return crs.sub_crs_list[0] if crs.is_compound else crs
