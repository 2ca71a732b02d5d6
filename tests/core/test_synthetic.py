"""Generated scenes: deterministic, with truth that is exact, valid and without overlaps."""

from functools import cache

import numpy as np
import pytest
import rasterio
import shapely
from pycocotools import mask as mask_utils

from rs4d_core.datasets.synthetic import (
    SYNTHETIC_CLASSES,
    SyntheticScene,
    generate_scene,
    scene_sample,
    synthetic_samples,
    truth_features,
    write_large_scene,
    write_scene,
)
from rs4d_core.datasets.synthetic.canvas import Canvas
from rs4d_core.datasets.synthetic.samples import single_ring
from rs4d_core.datasets.synthetic.shapes import ellipse, rectangle
from rs4d_core.datasets.synthetic.world import Thing, World
from rs4d_core.errors import OptionError, OutputError

SEEDS = range(20)


@cache
def scene(seed: int) -> SyntheticScene:
    return generate_scene(seed, 224, 192, 1.0)


@pytest.mark.parametrize("seed", SEEDS)
def test_truth_is_valid_inside_the_scene_and_without_overlaps(seed):
    polygons = np.array([instance.polygon for instance in scene(seed).instances])
    assert shapely.is_valid(polygons).all()
    assert (shapely.area(polygons) >= 4).all()
    bounds = shapely.bounds(polygons).reshape(-1, 4)
    assert (bounds[:, :2] >= 0).all()
    assert (bounds[:, 2:] <= (224, 192)).all()
    first, second = shapely.STRtree(polygons).query(polygons, predicate="intersects")
    pairs = first < second
    shared = shapely.area(shapely.intersection(polygons[first[pairs]], polygons[second[pairs]]))
    assert (shared < 1e-6).all()  # walls may touch


def test_scenes_show_every_class_and_many_kinds_of_place():
    scenes = [scene(seed) for seed in SEEDS]
    assert {instance.class_name for one in scenes for instance in one.instances} == set(SYNTHETIC_CLASSES)
    assert len({one.place for one in scenes}) >= 5


def test_scenes_hold_touching_instances_courtyards_and_objects_larger_than_half_a_window():
    instances = [instance for seed in SEEDS for instance in scene(seed).instances]
    assert any(instance.polygon.interiors for instance in instances)
    sides = [max(np.subtract(instance.polygon.bounds[2:], instance.polygon.bounds[:2])) for instance in instances]
    assert max(sides) > 100
    touching = 0
    for seed in SEEDS:
        polygons = [instance.polygon for instance in scene(seed).instances]
        first, second = shapely.STRtree(polygons).query(polygons, predicate="dwithin", distance=1e-6)
        touching += int((first < second).sum())
    assert touching > 20


def test_the_same_seed_gives_the_same_scene():
    one, other, different = generate_scene(5, 128, 96), generate_scene(5, 128, 96), generate_scene(6, 128, 96)
    np.testing.assert_array_equal(one.image, other.image)
    assert [i.polygon.wkb for i in one.instances] == [i.polygon.wkb for i in other.instances]
    assert (one.image != different.image).mean() > 0.5
    assert one.image.shape == (96, 128, 3)


def test_the_same_ground_is_seen_at_every_resolution():
    coarse, fine = scene(2), generate_scene(2, 448, 384, 0.5)
    expected = [(i.class_name, i.polygon) for i in fine.instances if i.polygon.area >= 16]
    assert [i.class_name for i in coarse.instances] == [name for name, _ in expected]
    for instance, (_, polygon) in zip(coarse.instances, expected, strict=True):
        np.testing.assert_allclose(np.multiply(instance.polygon.bounds, 2), polygon.bounds, atol=1e-6)
    # And it looks alike, but for the texture that only the finer one resolves.
    smaller = fine.image.reshape(192, 2, 224, 2, 3).mean(axis=(1, 3))
    assert np.corrcoef(smaller.ravel(), coarse.image.ravel())[0, 1] > 0.8


@pytest.mark.parametrize("angle", [0.0, 0.7])
def test_things_are_drawn_where_their_truth_is(angle):
    """White on black, without texture: the light lies where the outline does."""
    canvas, outline = Canvas(60, 50, 0.5, np.zeros((50, 60, 4), np.uint8)), rectangle((14.0, 12.0), 17.0, 9.0, angle)
    canvas.polygon(outline, (255, 255, 255))
    truth = shapely.Polygon(outline / 0.5)
    rows, columns = np.mgrid[:50, :60] + 0.5
    centres = shapely.points(columns, rows)
    light = canvas.pixels()[..., 0] / 255
    far = shapely.distance(truth.boundary, centres) > 1
    np.testing.assert_array_equal(light[far], shapely.contains(truth, centres)[far])
    weight = light / light.sum()
    assert abs((weight * columns).sum() - truth.centroid.x) < 0.2
    assert abs((weight * rows).sum() - truth.centroid.y) < 0.2
    # Pillow fills about a third of a fine pixel too much on each side.
    assert 0 <= light.sum() - truth.area < 0.2 * truth.length


def test_nothing_is_placed_where_something_stands():
    world = World(100, 100, np.random.default_rng(0), np.array([1.0, 0.0]))
    tank = Thing("storage_tank", ellipse(np.array([50.0, 50.0]), 10, 10), lambda canvas: None)
    near = Thing("building", rectangle((66.0, 50.0), 10, 10), lambda canvas: None)
    assert world.place([tank])
    assert not world.place([near], gap=2)
    assert world.place([near], gap=0.5)
    assert not world.place([Thing("building", rectangle((200.0, 50.0), 10, 10), lambda canvas: None)])
    assert len(world.things) == 2


def test_a_courtyard_survives_as_a_single_ring():
    polygon = shapely.Polygon(rectangle((30.0, 30.0), 40, 30, 0.4), [rectangle((30.0, 30.0), 14, 9, 0.4)])
    ring = single_ring(polygon)
    outer, hole, joined = (
        mask_utils.decode(mask_utils.frPyObjects([np.array(points).ravel().tolist()], 64, 64))[..., 0]
        for points in (polygon.exterior.coords, polygon.interiors[0].coords, ring)
    )
    assert hole.sum() > 100
    np.testing.assert_array_equal(joined, outer & (1 - hole))


def test_samples_label_only_what_scenes_hold():
    classes = ("airplane", *SYNTHETIC_CLASSES, "bridge")
    (sample,) = synthetic_samples([3], 160, 128, classes, (1.0, 1.0))
    assert (sample.width, sample.height) == (160, 128)
    assert {name for name, labelled in zip(classes, sample.annotated, strict=True) if labelled} == set(
        SYNTHETIC_CLASSES
    )
    assert len(sample.annotations) == len(generate_scene(3, 160, 128, 1.0).instances)
    with pytest.raises(OptionError, match="vehicle"):
        synthetic_samples([3], 160, 128, ("building",))


def test_samples_keep_class_and_outline():
    classes = ("airplane", *SYNTHETIC_CLASSES, "bridge")
    source = scene(0)
    sample = scene_sample(source, 0, classes)
    for annotation, instance in zip(sample.annotations, source.instances, strict=True):
        assert classes[annotation.label] == instance.class_name
        assert shapely.Polygon(annotation.polygons[0]).area == pytest.approx(instance.polygon.area)
        assert annotation.crowd != instance.recognizable


def test_only_what_the_edge_cuts_can_be_too_little_to_recognize():
    edge = shapely.box(0, 0, 224, 192).exterior
    instances = [instance for seed in SEEDS for instance in scene(seed).instances]
    cut = [instance for instance in instances if instance.polygon.distance(edge) == 0]
    too_little = [instance for instance in instances if not instance.recognizable]
    assert set(too_little) < set(cut)
    assert too_little
    assert all(instance.polygon.area < 400 for instance in too_little)
    assert all(not instance.recognizable for instance in cut if instance.polygon.area < 32)


def test_written_scenes_read_back_with_their_truth_on_the_ground(tmp_path):
    source = generate_scene(1, 300, 200, 0.5)
    transform = write_scene(source, tmp_path / "scene.tif")
    with rasterio.open(tmp_path / "scene.tif") as raster:
        np.testing.assert_array_equal(raster.read().transpose(1, 2, 0), source.image)
        assert raster.crs.to_epsg() == 32631
        assert raster.transform == transform
        assert raster.is_tiled
        bounds = raster.bounds
    truth = truth_features(source, transform)
    assert truth.crs.to_epsg() == 32631
    assert truth["class"].tolist() == [instance.class_name for instance in source.instances]
    areas = np.array([instance.polygon.area for instance in source.instances])
    np.testing.assert_allclose(truth.area, areas * 0.25)
    left, bottom, right, top = truth.total_bounds
    assert bounds.left <= left < right <= bounds.right
    assert bounds.bottom <= bottom < top <= bounds.top


def test_large_scenes_have_any_size(tmp_path):
    write_large_scene(tmp_path / "large.tif", 1300, 1100, seed=0, resolution_m=0.2)
    with rasterio.open(tmp_path / "large.tif") as raster:
        assert (raster.width, raster.height, raster.count) == (1300, 1100, 3)
        assert raster.read(1)[:, 1024:].std() > 5
        assert raster.read(1)[1024:].std() > 5


def test_scenes_that_cannot_be_written_say_so(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_scene(generate_scene(0, 32, 32), tmp_path / "missing" / "scene.tif")


@pytest.mark.parametrize("wrong", [(0, 10, 0.5), (10, 0, 0.5), (10, 10, 0.0)])
def test_sizes_that_cannot_be_are_refused(wrong):
    with pytest.raises(OptionError):
        generate_scene(0, *wrong)
