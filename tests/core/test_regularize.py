"""Right angles: on generated buildings with wavering outlines."""

import math

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from shapely.affinity import rotate

from rs4d_core.scenes.polygons.regularize import regularize


def iou(one, other):
    # On a grid: without one, GEOS 3.14 finds nothing shared by some outlines that differ by 1e-15.
    shared = shapely.intersection(one, other, grid_size=2.0**-20).area
    return shared / (one.area + other.area - shared)


def as_seen(polygon, seed, waver_px=0.4):
    """The outline of a mask: corners rounded, edges wavering smoothly."""
    random = np.random.default_rng(seed)
    rounded = polygon.buffer(-1.2).buffer(2.4).buffer(-1.2).segmentize(0.7)

    def wavering(ring):
        points = np.asarray(ring.coords)[:-1]
        waves = np.arange(1, max(2, len(points) // 12))[:, None]
        around = np.arange(len(points)) / len(points) * 2 * math.pi
        shift = [np.sin(waves * around + random.uniform(0, 7, waves.shape)).sum(axis=0) for _ in range(2)]
        return points + waver_px * np.stack(shift, axis=1) / np.sqrt(len(waves) / 2)

    seen = shapely.Polygon(wavering(rounded.exterior), [wavering(hole) for hole in rounded.interiors])
    return seen if seen.is_valid else rounded


def corners(polygon):
    return shapely.get_num_coordinates(polygon) - 1 - len(polygon.interiors)


def right_angles(ring):
    steps = np.diff(np.asarray(ring.coords), axis=0)
    angles = np.degrees(np.arctan2(steps[:, 1], steps[:, 0]))
    return np.abs((angles - angles[0] + 45) % 90 - 45).max() < 1e-6


def is_regular(ring):
    """At least four fifths of it along two perpendicular directions, and no corner under 60 degrees."""
    steps = np.diff(np.asarray(ring.coords), axis=0)
    lengths, ways = np.hypot(*steps.T), np.arctan2(steps[:, 1], steps[:, 0])
    apart = np.abs((np.degrees(ways[:, None] - ways) + 45) % 90 - 45)
    along = ((apart < 1e-3) * lengths).sum(axis=1).max() / lengths.sum()
    turns = np.abs((np.degrees(np.roll(ways, -1) - ways) + 180) % 360 - 180)
    return along >= 0.8 - 1e-6 and (180 - turns).min() >= 60 - 1e-3


SIDES = st.floats(12, 60)
ANGLES = st.floats(0, 90)
SEEDS = st.integers(0, 1000)


@settings(max_examples=60, deadline=None)
@given(width=SIDES, height=SIDES, angle=ANGLES, seed=SEEDS)
def test_a_rectangle_gets_its_four_corners_back(width, height, angle, seed):
    truth = rotate(shapely.box(0, 0, width, height), angle, origin=(0, 0))
    seen = as_seen(truth, seed)
    found = regularize(seen)
    assert corners(found) == 4
    assert right_angles(found.exterior)
    assert iou(found, truth) > 0.85


@settings(max_examples=60, deadline=None)
@given(width=st.floats(24, 60), height=st.floats(24, 60), angle=ANGLES, seed=SEEDS)
def test_an_l_keeps_its_six_corners(width, height, angle, seed):
    truth = shapely.box(0, 0, width, height).difference(shapely.box(width / 2, height / 2, width, height))
    truth = rotate(truth, angle, origin=(0, 0))
    seen = as_seen(truth, seed)
    found = regularize(seen)
    assert corners(found) == 6
    assert right_angles(found.exterior)
    assert iou(found, truth) >= iou(seen, truth) - 0.02


def test_outlines_get_closer_to_the_truth_on_the_whole():
    truths = [rotate(shapely.box(0, 0, 15 + n, 40 - n), 3.7 * n, origin=(0, 0)) for n in range(25)]
    seen = [as_seen(truth, seed) for seed, truth in enumerate(truths)]
    before = np.mean([iou(*pair) for pair in zip(seen, truths, strict=True)])
    after = np.mean([iou(regularize(outline), truth) for outline, truth in zip(seen, truths, strict=True)])
    assert after > before


def test_a_courtyard_is_turned_with_its_building():
    truth = shapely.box(0, 0, 60, 50).difference(shapely.box(20, 15, 45, 35))
    found = regularize(as_seen(rotate(truth, 31, origin=(0, 0)), 3))
    assert corners(found) == 8
    assert right_angles(found.exterior)
    assert right_angles(found.interiors[0])


def test_a_slanting_wall_stays_slanting():
    truth = shapely.Polygon([(0, 0), (40, 0), (40, 20), (25, 35), (0, 35)])
    found = regularize(as_seen(rotate(truth, 17, origin=(0, 0)), 5))
    assert corners(found) == 5
    assert not right_angles(found.exterior)
    assert iou(found, rotate(truth, 17, origin=(0, 0))) > 0.95


def test_round_buildings_stay_round():
    for radius in (9, 15, 40):
        tank = as_seen(shapely.Point(3, 4).buffer(radius), 1)
        assert regularize(tank) is tank


def test_an_outline_whose_walls_are_mostly_askew_gets_no_darts():
    """A dart and a house seen as a kite, found on real imagery: few of their corners would be right."""
    for points in ([(0, 0), (30, 0), (12, 26), (0, 10)], [(0, 0), (24, 4), (34, 26), (14, 36), (-4, 18)]):
        seen = as_seen(shapely.Polygon(points), 4)
        found = regularize(seen)
        assert found is seen or is_regular(found.exterior)
    sliver = as_seen(shapely.Polygon([(0, 0), (40, 0), (40, 16), (20, 40)]), 4)
    assert regularize(sliver) is sliver


@settings(max_examples=200, deadline=None)
@given(
    radii=st.lists(st.floats(8, 30), min_size=4, max_size=9),
    stretch=st.floats(0.5, 2),
    angle=ANGLES,
    seed=SEEDS,
)
def test_whatever_changed_has_walls_along_two_directions_and_no_sharp_corner(radii, stretch, angle, seed):
    around = np.arange(len(radii)) / len(radii) * 2 * math.pi
    blob = shapely.Polygon(np.stack([radii * np.cos(around) * stretch, radii * np.sin(around)], axis=1))
    seen = as_seen(rotate(blob, angle, origin=(0, 0)), seed)
    if seen.geom_type != "Polygon":
        return
    found = regularize(seen)
    assert found is seen or is_regular(found.exterior)


def test_specks_in_a_wall_go():
    seen = as_seen(shapely.box(0, 0, 30, 20), 2)
    speckled = shapely.Polygon(seen.exterior, [shapely.box(3, 3, 4, 4).exterior.coords])
    assert corners(regularize(speckled)) == 4


@settings(max_examples=150, deadline=None)
@given(
    points=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=3, max_size=9, unique=True),
    least_iou=st.sampled_from([0.5, 0.85, 0.95]),
    thick=st.floats(0.3, 6),
)
def test_whatever_comes_the_result_is_valid_and_near_or_the_same(points, least_iou, thick):
    """Odd shapes: a bent strip with loops, several parts and holes."""
    outline = shapely.LineString(points).buffer(thick)
    geometry = shapely.MultiPolygon(list(shapely.get_parts(outline.union(shapely.box(50, 50, 60, 70)))))
    found = regularize(geometry, least_iou)
    assert isinstance(found, shapely.MultiPolygon)
    assert found.is_valid
    assert len(found.geoms) == len(geometry.geoms)
    for part, raw in zip(found.geoms, geometry.geoms, strict=True):
        assert part.equals(raw) or iou(part, raw) >= least_iou - 1e-9
