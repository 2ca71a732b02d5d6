"""Polygons, and nothing but polygons."""

import numpy as np
import shapely
from shapely import MultiPolygon, box

from rs4d_core.scenes.polygons.areal import multipolygons, without_specks


def test_lines_points_and_slivers_go_and_knots_are_untied():
    mixed = shapely.from_wkt(
        [
            "GEOMETRYCOLLECTION (MULTIPOLYGON (((0 0, 2 0, 2 2, 0 0)), ((5 5, 6 5, 6 6, 5 5))), LINESTRING (0 0, 9 9))",
            "POINT (1 1)",
            "POLYGON ((0 0, 4 4, 4 0, 0 4, 0 0))",
        ]
    )
    found = multipolygons(mixed, smallest_part=1.0)
    assert [geometry.geom_type for geometry in found] == ["MultiPolygon"] * 3
    assert [geometry.area for geometry in found] == [2.0, 0.0, 8.0]
    assert shapely.is_valid(found).all()
    assert len(multipolygons(np.empty(0, dtype=object))) == 0


def test_specks_and_pinholes_go_but_courtyards_stay():
    roof = box(0, 0, 20, 20) - box(2, 2, 8, 8) - box(15, 15, 16, 16)
    speck = box(30, 30, 31, 31)
    clean = without_specks(MultiPolygon([roof, speck]), 0.01)
    assert clean.equals(MultiPolygon([box(0, 0, 20, 20) - box(2, 2, 8, 8)]))
    dust = MultiPolygon([box(x, 0, x + 0.5, 1) for x in range(200)])
    assert without_specks(dust, 0.01).equals(dust)
