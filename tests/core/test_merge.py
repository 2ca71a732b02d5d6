"""Seams: what is found window by window is what one window as large as the scene would find."""

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import cover, views
from shapely import MultiPolygon, Polygon, affinity, box

from rs4d_core.scenes.seams.between_windows import MergedInstance, SeamMerger
from rs4d_core.scenes.windows.plan import Window, plan
from rs4d_core.scenes.windows.polygonize import Detection, polygonize

CLASSES = 2


def rectangle(length: float, thickness: float) -> list[Polygon]:
    return [box(0, 0, length, thickness)]


def l_shape(length: float, thickness: float) -> list[Polygon]:
    return [box(0, 0, length, thickness) | box(0, 0, thickness, length)]


def u_shape(length: float, thickness: float) -> list[Polygon]:
    return [l_shape(length, thickness)[0] | box(length - thickness, 0, length, length)]


def courtyard(length: float, thickness: float) -> list[Polygon]:
    return [u_shape(length, thickness)[0] | box(0, length - thickness, length, length)]


def comb(length: float, thickness: float) -> list[Polygon]:
    """Four teeth: of two windows with a seam across the teeth, one sees four things and the other one."""
    teeth = [box(x, 0, x + thickness / 2, length) for x in np.linspace(0, length - thickness / 2, 4)]
    return [shapely.union_all([box(0, 0, length, thickness / 2), *teeth])]


def disc(length: float, thickness: float) -> list[Polygon]:
    return [shapely.Point(0, 0).buffer(length / 2)]


def row_houses(length: float, thickness: float) -> list[Polygon]:
    """Neighbours that share a wall, in a row."""
    return [box(x, 0, x + thickness, length / 2) for x in np.arange(0, length, thickness)]


KINDS = [rectangle, l_shape, u_shape, courtyard, comb, disc, row_houses]

placed_shapes = st.tuples(
    st.sampled_from(KINDS),
    st.floats(12, 200),  # length: up to several windows
    st.floats(4, 20),  # thickness: 4 px and more, so that no object falls apart on the pixel grid
    st.floats(0, 90),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, CLASSES - 1),
)


@st.composite
def scenes(draw):
    """Width, height, and disjoint shapes with their class; each shape is one connected piece."""
    width, height = draw(st.integers(20, 220)), draw(st.integers(20, 220))
    kept: list[tuple[Polygon, int]] = []
    for kind, length, thickness, angle, x, y, label in draw(st.lists(placed_shapes, min_size=1, max_size=12)):
        for part in kind(length, min(thickness, length / 3)):
            turned = affinity.rotate(part, angle, origin=(0, 0))
            shape = affinity.translate(turned, x * width - length / 2, y * height - length / 2) & box(
                0, 0, width, height
            )
            whole = isinstance(shape, Polygon) and shape.buffer(-1.5).geom_type == "Polygon" and shape.area > 16
            if whole and shape.buffer(-1.5).area > 0 and all((shape & other).area < 1e-9 for other, _ in kept):
                kept.append((shape, label))
    return width, height, kept


def merged(truths, width, height, window_px, overlap_px, in_parts, rng) -> list[MergedInstance]:
    windows = plan(width, height, window_px, overlap_px)
    merger = SeamMerger(windows, width, height)
    found = []
    for index, window in enumerate(windows):
        detections = polygonize(views(truths, window, rng), window, width, height)
        if in_parts:
            detections = [replace(d, geometry=MultiPolygon([p])) for d in detections for p in d.geometry.geoms]
        found += merger.add(index, detections)
    return found + merger.finish()


def assert_same(found: list[MergedInstance], expected: list[Detection]) -> None:
    """One to one, class by class, with IoU 1 to rounding."""
    assert len(found) == len(expected)
    for label in range(CLASSES):
        mine = [instance.geometry for instance in found if instance.label == label]
        tree = shapely.STRtree(mine)
        partners = []
        for truth in (detection.geometry for detection in expected if detection.label == label):
            near = tree.query(truth)
            shared = shapely.area(shapely.intersection(truth, tree.geometries[near]))
            iou = shared / (truth.area + shapely.area(tree.geometries[near]) - shared)
            assert iou.max(initial=0) >= 0.9999, truth.wkt
            partners.append(near[iou.argmax()])
        assert sorted(partners) == list(range(len(mine)))


@settings(max_examples=60, deadline=None)
@given(scene=scenes(), window_px=st.sampled_from([32, 64, 96]), data=st.data())
def test_tiled_is_untiled(scene, window_px, data):
    width, height, shapes = scene
    overlap_px = data.draw(st.integers(16, window_px * 3 // 4), label="overlap")
    soft = data.draw(st.booleans(), label="soft")
    in_parts = data.draw(st.booleans(), label="pieces of an object are instances of their own")
    truths = [cover(shape, label, width, height) for shape, label in shapes]
    if not soft:
        truths = [replace(truth, coverage=(truth.coverage > 0.5).astype(float)) for truth in truths]
    rng = np.random.default_rng(0)
    whole = Window(0, 0, width, height)
    expected = polygonize(views(truths, whole, rng), whole, width, height)
    assert len(expected) == len(shapes)

    found = merged(truths, width, height, window_px, overlap_px, in_parts, rng)

    assert_same(found, expected)
    assert all(instance.geometry.is_valid for instance in found)


def test_pieces_that_the_next_window_shows_to_be_one_are_joined():
    with_its_back_to_the_right = affinity.translate(affinity.rotate(comb(90, 16)[0], 90, origin=(45, 45)), 50)
    truth = cover(with_its_back_to_the_right, 0, 160, 96)
    (found,) = merged([truth], 160, 96, 96, 32, True, np.random.default_rng(0))
    whole = Window(0, 0, 160, 96)
    assert_same([found], polygonize(views([truth], whole, np.random.default_rng(0)), whole, 160, 96))


# What a real model gets wrong.


def seen(x0: float, y0: float, x1: float, y1: float, score: float, fragment: bool = False, label: int = 0) -> Detection:
    return Detection(MultiPolygon([box(x0, y0, x1, y1)]), score, label, fragment)


def from_two_windows(left: list[Detection], right: list[Detection]) -> list[MergedInstance]:
    """Windows over columns 0..96 and 64..160 of a scene 96 pixels high."""
    merger = SeamMerger(plan(160, 96, 96, 32), 160, 96)
    found = merger.add(0, left) + merger.add(1, right)
    assert merger.finish() == []
    return sorted(found, key=lambda instance: instance.geometry.bounds)


def test_of_two_whole_views_the_better_is_kept_and_once():
    (kept,) = from_two_windows([seen(70, 10, 90, 30, 0.6)], [seen(71, 11, 91, 30, 0.8)])
    assert kept.score == 0.8
    assert kept.geometry.bounds == (71, 11, 91, 30)


def test_a_whole_view_beats_a_fragment_of_itself_with_a_better_score():
    (kept,) = from_two_windows([seen(80, 10, 95.5, 30, 0.9, fragment=True)], [seen(80, 10, 120, 30, 0.5)])
    assert kept.geometry.bounds == (80, 10, 120, 30)


def test_fragments_that_agree_only_roughly_are_one_instance():
    left, right = seen(20, 10, 95.5, 30, 0.9, fragment=True), seen(64.5, 12, 150, 33, 0.6, fragment=True)
    (kept,) = from_two_windows([left], [right])
    assert kept.geometry.bounds == (20, 10, 150, 33)
    assert 0.6 < kept.score < 0.9


def test_fragments_of_two_classes_stay_apart():
    found = from_two_windows(
        [seen(20, 10, 95.5, 30, 0.9, fragment=True, label=0)], [seen(64.5, 10, 150, 30, 0.9, fragment=True, label=1)]
    )
    assert [instance.label for instance in found] == [0, 1]


def test_neighbours_are_not_joined_by_a_mask_that_bleeds_across_the_wall():
    houses = [seen(50, 10, 66, 30, 0.9), seen(66, 10, 90, 30, 0.8)]
    bled = seen(64.5, 10, 90, 30, 0.7, fragment=True)
    first, second = from_two_windows(houses, [bled])
    assert first.geometry.bounds == (50, 10, 66, 30)
    assert second.geometry.bounds == (66, 10, 90, 30)


def test_a_view_that_ends_short_of_the_border_is_no_whole():
    """A large roof across three windows; the middle one loses its last pixels and would seem complete."""
    merger = SeamMerger(plan(224, 96, 96, 32), 224, 96)
    found = merger.add(0, [seen(10, 10, 95.5, 80, 0.9, fragment=True)])
    found += merger.add(1, [seen(68, 10, 155, 80, 0.95)])
    found += merger.add(2, [seen(128.5, 10, 210, 80, 0.9, fragment=True)]) + merger.finish()
    (roof,) = found
    assert roof.geometry.bounds == (10, 10, 210, 80)


def test_what_a_border_cuts_is_nothing_where_the_window_that_shows_it_whole_tells_nothing():
    strip = seen(80, 10, 95.5, 30, 0.9, fragment=True)
    roof = seen(20, 50, 95.5, 80, 0.5, fragment=True)  # the right window does not show all of it
    (kept,) = from_two_windows([strip, roof], [])
    assert kept.geometry.bounds == (20, 50, 95.5, 80)
    assert from_two_windows([], [seen(64.5, 10, 80, 30, 0.9, fragment=True)]) == []


def test_a_window_that_was_not_seen_yet_denies_nothing():
    merger = SeamMerger(plan(160, 96, 96, 32), 160, 96)
    assert merger.add(0, [seen(80, 10, 95.5, 30, 0.9, fragment=True)]) == []
    (kept,) = merger.finish()  # the run was broken off
    assert kept.geometry.bounds == (80, 10, 95.5, 30)


def test_two_things_seen_whole_are_not_joined_by_a_fragment_that_takes_them_for_one():
    first, second = from_two_windows(
        [seen(70, 10, 95.5, 30, 0.9, fragment=True)], [seen(70, 10, 82, 30, 0.5), seen(82, 10, 100, 30, 0.6)]
    )
    assert first.geometry.bounds == (70, 10, 82, 30)
    assert second.geometry.bounds == (82, 10, 100, 30)


def test_overlaps_inside_a_class_go_to_the_better_instance():
    low, high = from_two_windows([seen(10, 10, 30, 30, 0.5), seen(25, 10, 45, 30, 0.9)], [])
    assert low.geometry.bounds == (10, 10, 25, 30)
    assert high.geometry.bounds == (25, 10, 45, 30)


def test_an_instance_that_better_ones_cover_is_dropped():
    part_of_a_roof, roof = seen(20, 20, 30, 30, 0.4), seen(10, 10, 60, 60, 0.9)
    (kept,) = from_two_windows([part_of_a_roof, roof], [])
    assert kept.geometry.bounds == (10, 10, 60, 60)


def test_one_thing_gets_the_class_with_the_better_score():
    tank, roof = seen(10, 10, 40, 40, 0.8, label=0), seen(11, 10, 40, 41, 0.6, label=1)
    (kept,) = from_two_windows([roof, tank], [])
    assert (kept.label, kept.geometry.bounds) == (0, (10, 10, 40, 40))


def test_the_better_class_may_come_from_a_later_window():
    (kept,) = from_two_windows([seen(70, 10, 90, 30, 0.4, label=0)], [seen(70, 10, 90, 30, 0.7, label=1)])
    assert kept.label == 1


def test_things_of_two_classes_may_overlap():
    roof, car = seen(10, 10, 60, 60, 0.9, label=0), seen(20, 20, 30, 25, 0.5, label=1)
    found = from_two_windows([roof, car], [])
    assert [instance.geometry.area for instance in found] == [2500, 50]


def test_an_overlap_waits_for_a_better_instance_of_a_later_window():
    cut, better = from_two_windows(
        [seen(30, 10, 70, 30, 0.3), seen(60, 10, 95.5, 30, 0.8, fragment=True)], [seen(64.5, 10, 120, 30, 0.8, True)]
    )
    assert cut.geometry.bounds == (30, 10, 60, 30)
    assert better.geometry.bounds == (60, 10, 120, 30)


def test_an_outline_that_bulges_far_is_not_taken():
    merger = SeamMerger(plan(96, 96, 96, 32), 96, 96, lambda geometries, labels: shapely.buffer(geometries, 20))
    (kept,) = merger.add(0, [seen(30, 30, 50, 50, 0.9)])
    assert kept.geometry.bounds == (30, 30, 50, 50)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_nothing_overlaps_and_order_inside_a_window_does_not_matter(seed):
    """Random boxes, many of which overlap: the result is the rule's, not the order's."""
    rng = np.random.default_rng(seed)
    windows = plan(200, 160, 64, 20)
    detections = []
    for window in windows:
        frame = box(*window.trusted_box(200, 160))
        x, y = rng.uniform(window.col, window.col + 60, 12), rng.uniform(window.row, window.row + 60, 12)
        shapes = shapely.intersection(shapely.box(x, y, x + rng.uniform(4, 30, 12), y + rng.uniform(4, 30, 12)), frame)
        scores = rng.uniform(0, 1, 12)
        detections.append(
            [
                Detection(MultiPolygon([shape]), float(score), int(rng.integers(2)), frame.boundary.intersects(shape))
                for shape, score in zip(shapes, scores, strict=True)
                if shape.geom_type == "Polygon"
            ]
        )

    def run(ordered):
        merger = SeamMerger(windows, 200, 160)
        found = [instance for index, some in enumerate(ordered) for instance in merger.add(index, some)]
        return sorted(found + merger.finish(), key=lambda instance: (instance.score, instance.geometry.wkt))

    found = run(detections)
    for label in range(CLASSES):
        mine = np.array([instance.geometry for instance in found if instance.label == label])
        assert shapely.is_valid(mine).all()
        first, second = shapely.STRtree(mine).query(mine)
        different = first < second
        shared = shapely.area(shapely.intersection(mine[first[different]], mine[second[different]]))
        assert shared.max(initial=0) < 1e-6
    everything = np.array([instance.geometry for instance in found])
    first, second = shapely.STRtree(everything).query(everything)
    one, other = everything[first[first < second]], everything[second[first < second]]
    assert (shapely.area(shapely.intersection(one, other)) < 0.7 * shapely.area(shapely.union(one, other))).all()
    again = run([some[::-1] for some in detections])
    assert [round(i.score, 9) for i in again] == [round(i.score, 9) for i in found]
    assert [i.geometry.area for i in again] == [pytest.approx(i.geometry.area) for i in found]
