"""Scenes to layers, end to end, with a predictor that is always right."""

import threading

import geopandas as gpd
import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from perfect import ColorPredictor, cover, paint, write_raster
from shapely import affinity, box

from rs4d_core.errors import CancelledError, OptionError, SceneError
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.prediction.pace import Pace
from rs4d_core.scenes.windows.largest import largest_window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = "EPSG:32636"
PLACE = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)

# In pixels of a scene of 300 x 200: most are cut by seams of 64-pixel windows, some are larger than a window.
SHAPES = {
    "red": [
        box(20, 20, 270, 120) - box(40, 35, 250, 105),
        *(box(10 + 14 * k, 150, 22 + 14 * k, 180) for k in range(12)),
    ],
    "green": [affinity.rotate(box(60, 54, 230, 62), 8), shapely.Point(150, 88).buffer(9), box(270, 170, 300, 200)],
    "blue": [shapely.Point(240, 155).buffer(30, quad_segs=32)],
}


def paint_shapes(width=300, height=200) -> np.ndarray:
    return paint(
        [cover(shape, label, width, height) for label, shapes in enumerate(SHAPES.values()) for shape in shapes],
        width,
        height,
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", paint_shapes(), UTM, PLACE)


def read(path) -> gpd.GeoDataFrame:
    return gpd.read_file(path, layer="instances")


def in_pixels(layer: gpd.GeoDataFrame, class_name: str) -> np.ndarray:
    geometries = layer[layer["class"] == class_name].geometry
    return np.array(geometries.affine_transform((~PLACE).to_shapely()), dtype=object)


def assert_found(layer: gpd.GeoDataFrame, shapes: dict) -> None:
    """Every shape once, its outline right to a fraction of a pixel, and nothing else."""
    assert len(layer) == sum(map(len, shapes.values()))
    assert layer.geometry.is_valid.all()
    assert set(layer.geom_type) == {"MultiPolygon"}
    for class_name, truths in shapes.items():
        found = in_pixels(layer, class_name)
        assert len(found) == len(truths)
        for truth in truths:
            best = found[shapely.area(shapely.intersection(found, truth)).argmax()]
            assert shapely.hausdorff_distance(best.boundary, truth.boundary) < 1.0
            assert best.symmetric_difference(truth).area < 0.1 * truth.boundary.length


def test_a_scene_becomes_a_layer(scene, tmp_path):
    told, steps = [], []
    result = segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(), steps.append, told.extend)
    layer = read(tmp_path / "out.gpkg")
    assert layer.crs == UTM
    assert_found(layer, SHAPES)
    assert layer["area_m2"].to_numpy() == pytest.approx(layer.geometry.area.to_numpy(), rel=2e-3)
    assert result.by_class == {name: len(shapes) for name, shapes in SHAPES.items()}
    assert result.instances == len(layer) == len(told)
    assert (result.interrupted, result.device, result.windows) == (False, "cpu", 6 * 4)
    assert [step.windows_done for step in steps] == list(range(1, 25))
    assert steps[-1].fraction == 1
    assert all(step.seconds_left is None for step in steps[:7])  # the first batch of four tells nothing of the others
    assert all(step.seconds_left > 0 for step in steps[7:-1])
    assert steps[-1].seconds_left == 0
    assert 0 < result.model_seconds < result.seconds
    assert result.peak_rss_mb > 10


def test_the_pace_is_that_of_the_batches_after_the_first():
    pace, told = Pace(batch=2), []
    for done, now_s in enumerate((60, 60, 63, 63, 65, 65, 66), start=1):
        pace.window_done(now_s)
        told.append(pace.seconds_left(7 - done))
    assert told == [None, None, None, 3 / 2 * 3, 3 / 2 * 2, 5 / 4, 0]


def test_without_an_output_the_instances_are_told_and_nothing_is_written(scene, tmp_path):
    order, told, started = [], [], []

    def on_start(start):
        order.append("start")
        started.append(start)

    predictor, before = ColorPredictor(), sorted(scene.parent.iterdir())
    result = segment_scene(
        scene,
        None,
        predictor,
        SegmentOptions(),
        lambda progress: order.append("window"),
        told.extend,
        on_start=on_start,
    )
    assert order == ["start", *["window"] * 24]
    (start,) = started
    assert (start.record, start.crs_wkt, start.windows) == (result.record, result.crs_wkt, result.windows_total)
    assert result.output is None
    assert sorted(scene.parent.iterdir()) == before
    segment_scene(scene, tmp_path / "out.gpkg", predictor, SegmentOptions())
    assert read(tmp_path / "out.gpkg").geometry.tolist() == [feature.geometry for feature in told]
    assert read(tmp_path / "out.gpkg").crs == start.crs_wkt


@pytest.mark.parametrize(("window_px", "overlap_px"), [(320, 16), (96, 72), (32, 16)])
def test_windows_make_no_difference(scene, tmp_path, window_px, overlap_px):
    options = SegmentOptions(window_px=window_px, overlap_px=overlap_px)
    segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), options)
    assert_found(read(tmp_path / "out.gpkg"), SHAPES)


@pytest.mark.parametrize(("bytes_a_pixel", "window_px"), [(1.0, 4096), (1e12, 64)])
def test_the_largest_window_is_what_memory_holds_but_no_smaller_than_the_models_own(
    scene, tmp_path, bytes_a_pixel, window_px
):
    predictor = ColorPredictor()
    predictor.bytes_a_pixel = bytes_a_pixel
    result = segment_scene(scene, tmp_path / "out.gpkg", predictor, SegmentOptions(window_px="auto"))
    assert result.record.parameters["window"] == [min(window_px, 300), min(window_px, 200)]
    assert_found(read(tmp_path / "out.gpkg"), SHAPES)


def test_a_pixel_that_takes_more_memory_makes_the_largest_window_smaller():
    sides = [largest_window(bytes_a_pixel, 64, "cpu") for bytes_a_pixel in (1.0, 1e4, 1e5, 1e12)]
    assert sides == sorted(sides, reverse=True)
    assert (sides[0], sides[-1]) == (4096, 64)
    assert all(side % 32 == 0 for side in sides)


def test_a_small_window_needs_no_overlap_of_its_own(scene, tmp_path):
    layer = tmp_path / "small.gpkg"
    segment_scene(scene, layer, ColorPredictor(256, 96), SegmentOptions(window_px=64))
    assert_found(read(layer), SHAPES)


def test_there_are_no_polygons_where_there_is_no_data(tmp_path):
    picture = paint_shapes()
    alpha = np.full((1, 200, 300), 255, np.uint8)
    alpha[:, :, :130] = 0
    scene = write_raster(tmp_path / "scene.tif", np.concatenate([picture, alpha]), UTM, PLACE, alpha="yes")
    predictor = ColorPredictor()
    result = segment_scene(scene, tmp_path / "out.gpkg", predictor, SegmentOptions())
    found = np.array(read(tmp_path / "out.gpkg").geometry.affine_transform((~PLACE).to_shapely()), dtype=object)
    assert shapely.area(shapely.intersection(found, box(0, 0, 129.5, 200))).max() < 1e-6
    court = SHAPES["red"][0] & box(130, 0, 300, 200)
    assert max(shapely.area(shapely.intersection(found, court))) > 0.99 * court.area
    assert result.windows == 24
    assert predictor.images_seen == 16  # the two columns of windows without data cost nothing


def test_score_and_classes_choose(scene, tmp_path):
    options = SegmentOptions(classes=("green", "blue"))
    result = segment_scene(scene, tmp_path / "two.gpkg", ColorPredictor(), options)
    assert result.by_class == {"green": 3, "blue": 1}
    assert set(read(tmp_path / "two.gpkg")["class"]) == {"green", "blue"}
    result = segment_scene(scene, tmp_path / "none.gpkg", ColorPredictor(), SegmentOptions(score=0.95))
    assert result.instances == 0
    assert len(read(tmp_path / "none.gpkg")) == 0


def test_outlines_can_be_given_right_angles(tmp_path):
    roof, tank = affinity.rotate(box(60, 50, 160, 110), 27), shapely.Point(230, 140).buffer(30)
    picture = paint([cover(roof, 0, 300, 200), cover(tank, 0, 300, 200)], 300, 200)
    scene = write_raster(tmp_path / "scene.tif", picture, UTM, PLACE)
    segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(regularize=True))
    found = sorted(in_pixels(read(tmp_path / "out.gpkg"), "red"), key=lambda geometry: geometry.bounds)
    assert [len(shape.geoms[0].exterior.coords) > 5 for shape in found] == [False, True]
    for shape, truth in zip(found, (roof, tank), strict=True):
        assert shape.symmetric_difference(truth).area < 0.02 * truth.area


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"classes": ("green", "bridge")}, "'bridge'.*red, green, blue"),
        ({"score": 1.5}, "between 0 and 1"),
        ({"window_px": 64, "overlap_px": 64}, "not smaller"),
        ({"window_px": 50}, "multiple of 32"),
    ],
)
def test_options_that_cannot_work_leave_no_file(scene, tmp_path, options, words):
    with pytest.raises(OptionError, match=words):
        segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_a_scene_that_breaks_off_leaves_no_file(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3, 512, 512), dtype=np.uint8)
    scene = write_raster(tmp_path / "scene.tif", picture, UTM, PLACE, tiled=True)
    with scene.open("r+b") as file:
        file.truncate(scene.stat().st_size * 2 // 3)
    with pytest.raises(SceneError):
        segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions())
    assert list(tmp_path.iterdir()) == [scene]


class Stuck(ColorPredictor):
    """Predicts two rows of windows, and then computes for as long as the test lasts."""

    def __init__(self):
        super().__init__()
        self.stuck, self.done = threading.Event(), threading.Event()

    def predict(self, images, least_scores):
        if self.images_seen >= 12:
            self.stuck.set()
            self.done.wait(60)
        return super().predict(images, least_scores)


def test_cancelling_does_not_wait_for_the_model_and_keeps_what_is_finished(scene, tmp_path):
    predictor, told = Stuck(), []
    try:
        result = segment_scene(
            scene, tmp_path / "out.gpkg", predictor, SegmentOptions(), None, told.extend, predictor.stuck.is_set
        )
    finally:
        predictor.done.set()
    assert result.interrupted
    assert result.windows < 24
    layer = read(tmp_path / "out.gpkg")
    assert result.instances == len(layer) == len(told)
    (disc,) = (shape for shape in SHAPES["green"] if shape.contains(shapely.Point(150, 88)))
    assert max(shapely.area(shapely.intersection(in_pixels(layer, "green"), disc))) > 0.98 * disc.area


def test_a_run_that_is_cancelled_at_once_writes_nothing(scene, tmp_path):
    with pytest.raises(CancelledError, match="no window was finished"):
        segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(), cancelled=lambda: True)
    assert list(tmp_path.glob("*out.gpkg*")) == []


class SmallMemory(ColorPredictor):
    """A GPU that holds `room` images."""

    def __init__(self, room: int):
        super().__init__(device="cuda:0")
        self.room = room

    def predict(self, images, least_scores):
        if len(images) > self.room:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().predict(images, least_scores)


def test_batches_that_do_not_fit_into_memory_are_halved(scene, tmp_path):
    segment_scene(scene, tmp_path / "out.gpkg", SmallMemory(room=3), SegmentOptions())
    assert_found(read(tmp_path / "out.gpkg"), SHAPES)
    with pytest.raises(OptionError, match="64 x 64 px does not fit"):
        segment_scene(scene, tmp_path / "never.gpkg", SmallMemory(room=0), SegmentOptions())
    assert not (tmp_path / "never.gpkg").exists()


def test_a_fault_of_the_model_comes_through_and_leaves_an_existing_layer_alone(scene, tmp_path):
    class Broken(ColorPredictor):
        def predict(self, images, least_scores):
            raise RuntimeError("a bug")

    segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions())
    before = (tmp_path / "out.gpkg").read_bytes()
    with pytest.raises(RuntimeError, match="a bug"):
        segment_scene(scene, tmp_path / "out.gpkg", Broken(), SegmentOptions())
    assert (tmp_path / "out.gpkg").read_bytes() == before
