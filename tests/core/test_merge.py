"""Seams: what is found window by window is what one window as large as the scene would find."""

from dataclasses import replace

import numpy as np
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import cover, views
from shapely import MultiPolygon, Polygon, affinity, box

from rs4d_core.scenes.merge import MergedInstance, SeamMerger
from rs4d_core.scenes.polygonize import Detection, polygonize
from rs4d_core.scenes.windows import Window, plan

CLASSES = 2


def rectangle(length: float, thickness: float) -> list[Polygon]:
    return [box(0, 0, length, thickness)]


def l_shape(length: float, thickness: float) -> list[Polygon]:
    return [box(0, 0, length, thickness) | box(0, 0, thickness, length)]


def u_shape(length: float, thickness: float) -> list[Polygon]:
    return [l_shape(length, thickness)[0] | box(length - thickness, 0, length, length)]


def courtyard(length: float, thickness: float) -> list[Polygon]:
    return [u_shape(length, thickness)[0] | box(0, length - thickness, length, length)]


def disc(length: float, thickness: float) -> list[Polygon]:
    return [shapely.Point(0, 0).buffer(length / 2)]


def row_houses(length: float, thickness: float) -> list[Polygon]:
    """Neighbours that share a wall, in a row."""
    return [box(x, 0, x + thickness, length / 2) for x in np.arange(0, length, thickness)]


KINDS = [rectangle, l_shape, u_shape, courtyard, disc, row_houses]

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
