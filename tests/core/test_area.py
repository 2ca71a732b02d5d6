"""Looking at polygons of a scene only: nothing outside of them, and inside the same as ever."""

import json
import math

import geopandas as gpd
import numpy as np
import pyproj
import pytest
import shapely
import torch
from affine import Affine
from hypothesis import example, given, settings
from hypothesis import strategies as st
from perfect import ColorPredictor, cover, instances, paint, write_raster
from shapely import affinity, box

from rs4d_core.errors import OptionError
from rs4d_core.models.instances import MaskPatch
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.reading.area import Area, AreaMask
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = "EPSG:32636"
FEET = "+proj=lcc +lat_0=0 +lat_1=0.2 +lat_2=0.5 +lon_0=33 +units=us-ft +datum=WGS84"
PLACE = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)
WIDTH, HEIGHT = 300, 200
COURT = box(20, 20, 270, 120) - box(40, 35, 250, 105)
DISC = shapely.Point(240, 155).buffer(30, quad_segs=32)
SMALL = [box(10 + 14 * k, 150, 22 + 14 * k, 180) for k in range(12)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    truths = [cover(shape, label, WIDTH, HEIGHT) for label, shape in [(0, COURT), (2, DISC), *((1, s) for s in SMALL)]]
    return write_raster(tmp_path_factory.mktemp("scene") / "scene.tif", paint(truths, WIDTH, HEIGHT), UTM, PLACE)


def on_the_ground(pixels, transform=PLACE):
    return affinity.affine_transform(pixels, transform.to_shapely())


def found_in(scene, area, window_px=64, overlap_px=16, **options):
    """Class and polygon, in pixels, of what is found, and the predictor."""
    predictor, told = ColorPredictor(), []
    options = SegmentOptions(area=area, window_px=window_px, overlap_px=overlap_px, **options)
    result = segment_scene(scene, None, predictor, options, on_features=told.extend)
    back = (~PLACE).to_shapely()
    return [(f.class_name, affinity.affine_transform(f.geometry, back)) for f in told], predictor, result


def assert_same(found, expected, off=1e-3):
    assert len(found) == len(expected)
    for name, shape in found:
        assert any(name == other and shape.symmetric_difference(same).area < off for other, same in expected)


def test_only_what_is_inside_is_found_and_outlines_end_at_the_edge(scene):
    area = box(30, 0, 150, 165) - box(60, 100, 90, 130)
    found, _, result = found_in(scene, Area(on_the_ground(area)))
    shapes = shapely.union_all([shape for _, shape in found])
    # To the pixel whose centre is inside; outlines run between pixel centres, so half a pixel off the mask's edge.
    assert area.buffer(0.01).contains(shapes)
    truth = shapely.union_all([COURT, DISC, *SMALL]) & area
    assert shapes.symmetric_difference(truth).area < 0.6 * truth.length
    assert result.record.parameters["scene_pixels"] == {"col": 30, "row": 0, "width": 120, "height": 165}


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", FEET, pyproj.CRS("EPSG:32635").to_wkt()])
def test_an_area_of_another_crs_is_the_same_place(scene, crs):
    pixels = shapely.Polygon([(15.31, 10.17), (280.73, 40.57), (200.19, 190.43), (60.61, 170.29)])
    to_crs = pyproj.Transformer.from_crs(UTM, crs, always_xy=True)
    drawn = shapely.transform(on_the_ground(pixels), to_crs.transform, interleaved=False)
    assert_same(found_in(scene, Area(drawn, crs))[0], found_in(scene, Area(on_the_ground(pixels)))[0])


@settings(max_examples=25)
@given(
    radii=st.lists(st.floats(15, 140), min_size=3, max_size=9),
    center=st.tuples(st.floats(60, 240), st.floats(40, 160)),
    tiling=st.sampled_from([(64, 16), (96, 72), (32, 16), (128, 33)]),
)
@example(radii=[15, 115, 115, 15, 15, 15], center=(60, 51), tiling=(64, 16))
def test_windows_make_no_difference(scene, radii, center, tiling):
    angles = [2 * math.pi * k / len(radii) for k in range(len(radii))]
    star = shapely.Polygon(
        [(center[0] + r * math.cos(a), center[1] + r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]
    )
    area = Area(on_the_ground(star))
    whole, _, _ = found_in(scene, area, 320)
    # Where the ground that is read ends, a corner may be square in one and cut by half a pixel in the other.
    assert_same(found_in(scene, area, *tiling)[0], whole, off=4 * 0.5**2 / 2 + 1e-3)


def test_windows_outside_cost_nothing(scene):
    # A frame along the edge of the scene: the windows in its middle show none of it.
    frame = box(0, 0, WIDTH, HEIGHT) - box(3, 3, WIDTH - 3, HEIGHT - 3)
    _, predictor, result = found_in(scene, Area(on_the_ground(frame)))
    assert result.windows == 24
    assert predictor.images_seen == 24 - 4 * 2


def test_an_instance_that_lies_mostly_outside_is_dropped(scene):
    class Blind(ColorPredictor):
        """Sees one and the same square, whatever is there."""

        def predict(self, images, least_scores):
            patch = MaskPatch(torch.ones(40, 40), (100.0, 100.0, 140.0, 140.0))
            return [instances([patch], [0], np.array([0.9])) for _ in images]

    def count(edge):
        area = Area(on_the_ground(box(0, 0, edge, HEIGHT)))
        options = SegmentOptions(area=area, bbox=(450_000, 39_900, 450_150, 40_000), window_px=320)
        return segment_scene(scene, None, Blind(), options).instances

    assert [count(edge) for edge in (110, 130)] == [0, 1]


def test_a_bounding_box_and_an_area_are_both_kept_to(scene):
    area = Area(on_the_ground(box(100, 0, 300, 200)))
    found, _, result = found_in(scene, area, bbox=(450_000, 39_900, 450_075, 40_000))
    assert result.record.parameters["scene_pixels"]["width"] == 150
    assert found
    assert all(box(100, 0, 150, 200).buffer(0.01).contains(shape) for _, shape in found)
    with pytest.raises(OptionError, match="outside the bounding box"):
        found_in(scene, area, bbox=(450_000, 39_900, 450_040, 40_000))


def test_the_area_is_on_record(scene, tmp_path):
    area = Area(on_the_ground(box(30, 0, 150, 165)), UTM)
    segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(area=area))
    (parameters,) = gpd.read_file(tmp_path / "out.gpkg", layer="runs")["parameters"]
    recorded = json.loads(parameters)["area"]
    assert Area.from_wkb(recorded["wkb"], recorded["crs_wkt"]) == area


@settings(max_examples=60)
@given(
    points=st.lists(st.tuples(st.floats(-20, 120), st.floats(-20, 120)), min_size=3, max_size=8),
    window=st.tuples(st.integers(0, 60), st.integers(0, 60), st.integers(1, 90), st.integers(1, 90)),
)
def test_a_mask_says_of_each_pixel_whether_its_center_is_inside(points, window):
    geometry = shapely.make_valid(shapely.Polygon(points)).buffer(0)
    if geometry.is_empty:
        return
    col, row, width, height = window
    centers = np.meshgrid(col + 0.5 + np.arange(width), row + 0.5 + np.arange(height))
    expected = shapely.contains_xy(geometry, *centers)
    np.testing.assert_array_equal(AreaMask(geometry).read(*window), expected)


@pytest.mark.parametrize("resolution_m", [0.5, 0.35, 1.3])
def test_a_mask_stays_in_place_at_any_resolution(scene, resolution_m):
    area = box(31.3, 20, 155.7, 160)
    with Scene.open(scene, resolution_m=resolution_m, area=Area(on_the_ground(area))) as opened:
        _, valid = opened.read(Window(0, 0, opened.width, opened.height))
        _, small, transform = opened.thumbnail(40)
        for mask, placed in ((valid, opened.transform), (small, transform)):
            rows, cols = np.nonzero(mask)
            x, y = placed @ (cols + 0.5, rows + 0.5)
            assert shapely.contains_xy(on_the_ground(area), x, y).all()
            pixel = abs(placed.determinant)
            assert mask.sum() * pixel == pytest.approx(area.area * 0.25, rel=0.1)


def test_a_turned_scene(tmp_path):
    place = Affine.translation(450_000, 40_000) @ Affine.rotation(30) @ Affine.scale(0.5, -0.5)
    path = write_raster(tmp_path / "turned.tif", paint([cover(COURT, 0, WIDTH, HEIGHT)], WIDTH, HEIGHT), UTM, place)
    area = box(0, 0, 60, 200)
    told = []
    options = SegmentOptions(area=Area(on_the_ground(area, place)))
    segment_scene(path, None, ColorPredictor(), options, on_features=told.extend)
    (court,) = (affinity.affine_transform(feature.geometry, (~place).to_shapely()) for feature in told)
    assert court.symmetric_difference(COURT & area).area < 0.6 * court.length


def test_an_area_as_large_as_the_world_is_all_of_the_scene(scene):
    everything = Area(box(-180, -90, 180, 90), "EPSG:4326")
    assert_same(found_in(scene, everything)[0], found_in(scene, None)[0])


def test_an_area_that_crosses_itself_is_repaired(scene):
    bow_tie = shapely.Polygon([(20, 10), (280, 190), (280, 10), (20, 190)])
    found, _, _ = found_in(scene, Area(on_the_ground(bow_tie)))
    assert found


@pytest.mark.parametrize(
    ("area", "words"),
    [
        (lambda: Area(shapely.Point(0, 0)), "is a Point"),
        (lambda: Area(shapely.GeometryCollection([box(0, 0, 1, 1)])), "is a GeometryCollection"),
        (lambda: Area(shapely.Polygon()), "no extent"),
        (lambda: Area(shapely.Polygon([(0, 0), (1, 1), (2, 2)])), "no extent"),
        (lambda: Area(shapely.Polygon([(0, 0), (1, math.inf), (2, 2)])), "not a number"),
        (lambda: Area.from_wkb("rubbish"), "well-known binary"),
        (lambda: Area.from_wkb(""), "well-known binary"),
        (lambda: Area(box(0, 0, 1, 1)), "outside the scene, which covers 450000"),
        (lambda: Area(box(0, 0, 1, 1), "EPSG:4326"), "outside the scene, which covers 32"),
        (lambda: Area(box(0, 0, 1, 1), "EPSG:0"), "'EPSG:0' is unknown"),
        (lambda: Area(box(0, 0, 1, 1), "rubbish " * 50), "unknown"),
    ],
)
def test_areas_that_cannot_be(scene, tmp_path, area, words):
    with pytest.raises(OptionError, match=words) as caught:
        segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(area=area()))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250
    assert list(tmp_path.iterdir()) == []


def test_a_scene_without_a_crs_takes_areas_in_its_own_coordinates(tmp_path):
    picture = paint([cover(DISC, 2, WIDTH, HEIGHT)], WIDTH, HEIGHT)
    path = write_raster(tmp_path / "plain.tif", picture, None, Affine(1, 0, 0, 0, -1, 0))
    area = box(200, -200, 300, -100)
    assert segment_scene(path, None, ColorPredictor(), SegmentOptions(area=Area(area))).instances == 1
    with pytest.raises(OptionError, match="scene has no CRS: give the area"):
        segment_scene(path, None, ColorPredictor(), SegmentOptions(area=Area(area, UTM)))
