"""Polygons of one window: sub-pixel, open where the scene goes on, away from nodata."""

import numpy as np
import pytest
import shapely
import torch
from perfect import cover, instances, views
from shapely import Point, box

from rs4d_core.models.instances import MaskPatch
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.windows.polygonize import polygonize

WHOLE = Window(0, 0, 64, 64)


def polygons_of(probabilities, box_xyxy, window=WHOLE, scene=(64, 64), valid=None):
    patch = MaskPatch(torch.tensor(probabilities, dtype=torch.float32), box_xyxy)
    return polygonize(instances([patch], [0], [0.9]), window, *scene, valid)


def test_the_outline_of_a_disc_is_finer_than_pixels():
    disc = Point(30.3, 31.7).buffer(12, quad_segs=64)
    (detection,) = polygonize(views([cover(disc, 1, 64, 64)], WHOLE, np.random.default_rng(0)), WHOLE, 64, 64)
    assert detection.label == 1
    assert shapely.hausdorff_distance(detection.geometry.boundary, disc.boundary) < 0.2
    assert detection.geometry.area == pytest.approx(disc.area, rel=0.005)


def test_coarse_cells_are_placed_in_their_box():
    (detection,) = polygons_of(np.ones((28, 28)), (5.0, 10.0, 45.0, 30.0))
    assert detection.geometry.bounds == pytest.approx((5, 10, 45, 30), abs=1e-3)
    assert detection.geometry.area == pytest.approx(40 * 20, rel=0.01)  # corners are cut by half a cell


def test_holes_stay_holes():
    ring = np.ones((20, 20))
    ring[6:14, 6:14] = 0
    (detection,) = polygons_of(ring, (10.0, 10.0, 30.0, 30.0))
    assert not detection.geometry.contains(Point(20, 20))
    assert len(detection.geometry.geoms[0].interiors) == 1


def test_diagonal_neighbours_do_not_overlap():
    chess = np.kron([[1, 0], [0, 1]], np.ones((4, 4)))
    mine, other = (polygons_of(mask, (8.0, 8.0, 16.0, 16.0))[0].geometry for mask in (chess, 1 - chess))
    assert mine.intersection(other).area < 1e-9
    assert mine.is_valid
    assert other.is_valid


def test_an_object_ends_with_the_scene_but_stays_open_at_an_inner_border():
    scene = (160, 64)
    first, second = Window(0, 0, 96, 64), Window(64, 0, 96, 64)
    (left,) = polygons_of(np.ones((64, 96)), (0.0, 0.0, 96.0, 64.0), first, scene)
    (right,) = polygons_of(np.ones((28, 28)), (0.0, 0.0, 96.0, 64.0), second, scene)
    assert left.geometry.equals(box(0, 0, 95.5, 64))
    assert right.geometry.equals(box(64.5, 0, 160, 64))
    assert left.fragment
    assert right.fragment


def test_only_inner_borders_make_fragments():
    window, scene = Window(0, 0, 64, 64), (200, 64)
    at_the_left_edge = polygons_of(np.ones((9, 9)), (0.0, 20.0, 9.0, 29.0), window, scene)[0]
    at_the_seam = polygons_of(np.ones((9, 9)), (55.0, 20.0, 64.0, 29.0), window, scene)[0]
    inside = polygons_of(np.ones((9, 9)), (50.0, 20.0, 59.0, 29.0), window, scene)[0]
    assert (at_the_left_edge.fragment, at_the_seam.fragment, inside.fragment) == (False, True, False)


def test_polygons_do_not_reach_into_padding():
    scene = (50, 40)  # a predictor would see it padded to 64 x 64
    (detection,) = polygons_of(np.ones((28, 28)), (20.0, 20.0, 64.0, 64.0), Window(0, 0, 50, 40), scene)
    assert detection.geometry.bounds == pytest.approx((20, 20, 50, 40), abs=1e-3)


def test_polygons_keep_off_pixels_without_data():
    valid = np.ones((64, 64), dtype=bool)
    valid[:, :20] = False
    (partly,) = polygons_of(np.ones((28, 28)), (10.0, 10.0, 60.0, 60.0), valid=valid)
    assert partly.geometry.bounds == pytest.approx((20, 10, 60, 60), abs=1e-3)
    assert polygons_of(np.ones((28, 28)), (5.0, 10.0, 30.0, 60.0), valid=valid) == []


def test_a_mask_below_one_half_gives_nothing():
    assert polygons_of(np.full((28, 28), 0.4), (5.0, 5.0, 30.0, 30.0)) == []
    assert polygonize(instances([], [], np.empty(0)), WHOLE, 64, 64) == []
