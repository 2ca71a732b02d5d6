"""Reading scenes: what the model gets to see, at which resolution, and what is said about it."""

import math

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS, Transformer
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling

from rs4d_core.errors import OptionError, SceneError
from rs4d_core.scenes.reading import scene as scene_module
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

UTM = "EPSG:32633"
NORTH_UP = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)
NO_CODE = "+proj=tmerc +lat_0=45.1 +lon_0=15.2 +k=0.9999 +x_0=1000 +y_0=2000 +ellps=bessel +units=m"


def write_tif(path, planes, crs=UTM, transform=NORTH_UP, colors=None, mask=None, overviews=(), **profile):
    """A GeoTIFF of `planes (bands, h, w)`."""
    bands, height, width = planes.shape
    blocks = {"tiled": True, "blockxsize": 64, "blockysize": 64}
    options = {"driver": "GTiff", "dtype": planes.dtype, "crs": crs, "transform": transform, **blocks, **profile}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", count=bands, height=height, width=width, **options) as file,
    ):
        if colors:
            file.colorinterp = colors
        file.write(planes)
        if mask is not None:
            file.write_mask(mask)
    if overviews:
        with rasterio.open(path, "r+") as file:
            file.build_overviews(list(overviews), Resampling.average)
    return path


def everything(scene):
    return scene.read(Window(0, 0, scene.width, scene.height))


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(7).integers(1, 255, (3, 190, 230), dtype=np.uint8)


@pytest.fixture(scope="module")
def noise_tif(noise, tmp_path_factory):
    """Noise with a nodata corner and single zeros, which are not nodata."""
    planes = noise.copy()
    planes[:, :40, :60] = 0
    planes[0, 100:120, 100:120] = 0
    return write_tif(tmp_path_factory.mktemp("noise") / "noise.tif", planes, nodata=0, overviews=(2, 4))


# Windows and resampling -----------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(data=st.data(), resolution_m=st.sampled_from([0.1, 0.37, 0.5, 0.73, 1.0, 1.9, 3.3]), boxed=st.booleans())
def test_windows_agree_to_the_bit_where_they_overlap(noise_tif, data, resolution_m, boxed):
    bbox = (500_010.3, 4_999_950.2, 500_090.8, 4_999_990.9) if boxed else None
    with Scene.open(noise_tif, resolution_m=resolution_m, bbox=bbox) as scene:
        image, valid = everything(scene)
        col = data.draw(st.integers(0, scene.width - 1))
        row = data.draw(st.integers(0, scene.height - 1))
        width = data.draw(st.integers(1, scene.width - col))
        height = data.draw(st.integers(1, scene.height - row))
        part, part_valid = scene.read(Window(col, row, width, height))
    np.testing.assert_array_equal(part, image[:, row : row + height, col : col + width])
    np.testing.assert_array_equal(part_valid, valid[row : row + height, col : col + width])


def test_read_in_parts_is_the_same(noise_tif, monkeypatch):
    with Scene.open(noise_tif, resolution_m=0.8) as scene:
        whole, valid = everything(scene)
        monkeypatch.setattr(scene_module, "VALUES_AT_ONCE", 500)
        parts, parts_valid = everything(scene)
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_array_equal(valid, parts_valid)


def test_pixels_at_the_models_resolution_are_untouched(tmp_path, noise):
    with Scene.open(write_tif(tmp_path / "a.tif", noise), resolution_range_m=(0.3, 1.0)) as scene:
        image, valid = everything(scene)
    assert (scene.width, scene.height) == (230, 190)
    assert scene.transform.almost_equals(NORTH_UP)
    assert image.dtype == np.float32
    assert valid.dtype == bool
    assert valid.all()
    np.testing.assert_array_equal(image, noise)


@pytest.mark.parametrize("overviews", [(), (2, 4, 8)])
@pytest.mark.parametrize("resolution_m", [0.2, 0.31, 0.8, 1.3, 4.7])
def test_resampling_shifts_nothing(tmp_path, resolution_m, overviews):
    """On a plane that rises by 0.5 a pixel, every grid pixel holds the value at its own centre.

    To 0.07 of a grid pixel: an area mean takes the scene as made of flat squares.
    """
    cols, rows = np.meshgrid(np.arange(400), np.arange(300))
    planes = np.stack([cols * 0.5, rows * 0.5, (cols + rows) * 0.3]).astype(np.float32)
    path = write_tif(tmp_path / "ramp.tif", planes, overviews=overviews)
    with Scene.open(path, resolution_m=resolution_m, bbox=(500_020, 4_999_900, 500_150, 4_999_980)) as scene:
        image, _ = everything(scene)
        span = np.array(scene.stretch.high) - np.array(scene.stretch.low)
        values = image * span[:, None, None] / 255 + np.array(scene.stretch.low)[:, None, None]
        cols, rows = np.meshgrid(np.arange(scene.width) + 0.5, np.arange(scene.height) + 0.5)
        at_col, at_row = ~NORTH_UP @ (scene.transform @ (cols, rows))
    inner = np.s_[2:-2, 2:-2]
    tolerance = 0.5 * 0.07 * max(1.0, resolution_m / 0.5)
    np.testing.assert_allclose(values[0][inner], ((at_col - 0.5) * 0.5)[inner], atol=tolerance)
    np.testing.assert_allclose(values[1][inner], ((at_row - 0.5) * 0.5)[inner], atol=tolerance)


def test_downsampling_keeps_the_mean(tmp_path, noise):
    with Scene.open(write_tif(tmp_path / "a.tif", noise[:, :150, :200]), resolution_m=1.25) as scene:
        image, _ = everything(scene)
    assert image.shape == (3, 60, 80)
    np.testing.assert_allclose(image.mean(axis=(1, 2)), noise[:, :150, :200].mean(axis=(1, 2)), rtol=1e-3)


# Resolution -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pixel", "expected", "steps", "words"),
    [
        (0.5, (0.3, 1.0), 1.0, "read as it is"),
        (0.075, (0.3, 1.0), 4.0, "0.075 m a pixel, the model expects 0.3 to 1 m: read at 0.3 m"),
        (1.5, (0.3, 1.0), 1 / 1.5, "no detail"),
        (5.0, (0.3, 1.0), 0.25, "small objects cannot be made out"),
    ],
)
def test_a_scene_outside_the_models_range_is_read_at_its_nearer_end(tmp_path, noise, pixel, expected, steps, words):
    # EPSG:32633 has its scale factor of 0.9996 on its central meridian.
    side = pixel * 0.9996
    path = write_tif(tmp_path / "a.tif", noise, transform=Affine(side, 0, 500_000, 0, -side, 5_000_000))
    with Scene.open(path, resolution_range_m=expected) as scene:
        assert scene.transform.a == pytest.approx(side * steps, rel=1e-4)
        assert scene.resolution_m == pytest.approx(pixel * steps, rel=1e-4)
        assert scene.width == pytest.approx(230 / steps, abs=1)
        assert any(words in note for note in scene.notes), scene.notes


def ground_grid(crs, side_m, angle, lon, lat):
    """An affine with pixels of `side_m` metres on the ground in any CRS, turned by `angle` degrees."""
    plane = CRS(f"+proj=laea +lat_0={lat} +lon_0={lon} +ellps=GRS80")
    to_map = Transformer.from_crs(plane, crs, always_xy=True).transform
    turn = math.radians(angle)
    x, y = to_map(0, 0)
    across = np.subtract(to_map(100 * math.cos(turn), 100 * math.sin(turn)), (x, y)) * side_m / 100
    down = np.subtract(to_map(100 * math.sin(turn), -100 * math.cos(turn)), (x, y)) * side_m / 100
    return Affine(across[0], down[0], x, across[1], down[1], y)


@pytest.mark.parametrize("angle", [0.0, 33.0])
@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:2274", "EPSG:4807", NO_CODE, "EPSG:25833+5783"])
def test_metres_a_pixel_are_those_on_the_ground(tmp_path, noise, crs, angle):
    lon, lat = (-86.0, 35.5) if crs == "EPSG:2274" else (15.01, 45.0)
    path = write_tif(tmp_path / "a.tif", noise, crs=crs, transform=ground_grid(crs, 0.5, angle, lon, lat))
    with Scene.open(path, resolution_range_m=(0.3, 1.0)) as scene:
        assert scene.resolution_m == pytest.approx(0.5, rel=2e-3)
        assert scene.crs_wkt is not None
    with Scene.open(path, resolution_m=1.0) as scene:
        assert (scene.width, scene.height) == (115, 95)
        corner = scene.source_transform @ (230, 190)
        np.testing.assert_allclose(scene.transform @ (115, 95), corner, atol=abs(scene.transform.a) * 0.6)


def test_a_degree_grid_becomes_square_on_the_ground(tmp_path, noise):
    path = write_tif(tmp_path / "a.tif", noise, crs="EPSG:4326", transform=Affine(4e-6, 0, 10.0, 0, -4e-6, 60.0))
    with Scene.open(path, resolution_range_m=(0.4, 1.0)) as scene:
        geod = CRS("EPSG:4326").get_geod()
        (x0, y0), (x1, y1), (x2, y2) = (scene.transform @ corner for corner in ((0, 0), (1, 0), (0, 1)))
        assert geod.inv(x0, y0, x1, y1)[2] == pytest.approx(0.4, rel=1e-3)
        assert geod.inv(x0, y0, x2, y2)[2] == pytest.approx(0.4, rel=1e-3)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326", "EPSG:3857", "EPSG:4807", NO_CODE, "EPSG:25833+5783"])
def test_areas_are_those_on_the_ground(tmp_path, noise, crs):
    """A field of 80 m x 50 m with a pond of 10 m x 10 m, wherever and however it is mapped."""
    field = shapely.Polygon([(0, 0), (80, 0), (80, 50), (0, 50)], [[(20, 20), (20, 30), (30, 30), (30, 20)]])
    plane = CRS("+proj=laea +lat_0=45 +lon_0=15.01 +ellps=GRS80")
    to_map = Transformer.from_crs(plane, crs, always_xy=True)
    with Scene.open(write_tif(tmp_path / "a.tif", noise, crs=crs)) as scene:
        mapped = shapely.transform(field, to_map.transform, interleaved=False)
        assert scene.area_m2(shapely.MultiPolygon([mapped])) == pytest.approx(3900, rel=5e-4)


# Nodata, alpha, masks -------------------------------------------------------------------------------------------------


def test_a_pixel_is_nodata_where_all_bands_are(noise_tif):
    with Scene.open(noise_tif, resolution_range_m=(0.3, 1.0)) as scene:
        image, valid = everything(scene)
    assert not valid[:40, :60].any()
    assert valid.sum() == valid.size - 40 * 60
    assert image[:, :40, :60].max() == 0
    assert image[0, 110, 110] == 0
    assert image[1, 110, 110] > 0


def test_nodata_does_not_bleed_into_resampled_pixels(tmp_path):
    planes = np.full((3, 60, 60), 200, np.uint8)
    planes[:, :, :25] = 0
    with Scene.open(write_tif(tmp_path / "a.tif", planes, nodata=0), resolution_m=1.1) as scene:
        image, valid = everything(scene)
    np.testing.assert_allclose(image[:, valid], 200, rtol=1e-6)
    assert valid.mean() == pytest.approx(35 / 60, abs=0.03)


def test_alpha_is_no_image_band_and_hides(tmp_path, noise):
    alpha = np.full((1, *noise.shape[1:]), 255, np.uint8)
    alpha[:, :, :70] = 0
    colors = (ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha)
    path = write_tif(tmp_path / "a.tif", np.concatenate([noise, alpha]), colors=colors)
    with Scene.open(path) as scene:
        assert scene.bands == (1, 2, 3)
        _, valid = everything(scene)
    assert valid[:, 70:].all()
    assert not valid[:, :70].any()
    with pytest.raises(OptionError, match="transparency"):
        Scene.open(path, bands=(1, 2, 4))


@pytest.mark.parametrize("resolution_m", [0.5, 2.0])
@pytest.mark.parametrize("where", ["in the file", "beside it", "in it, without overviews"])
def test_mask_bands_hide_at_every_resolution(tmp_path, noise, resolution_m, where):
    mask = np.full(noise.shape[1:], 255, np.uint8)
    mask[:, :110] = 0
    path = write_tif(tmp_path / "a.tif", noise, overviews=(2, 4), mask=mask if where == "in the file" else None)
    if where != "in the file":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=where != "beside it"), rasterio.open(path, "r+") as file:
            file.write_mask(mask)
    with Scene.open(path, resolution_m=resolution_m) as scene:
        _, valid = everything(scene)
    assert valid.mean() == pytest.approx(120 / 230, abs=0.02)


def test_values_that_are_not_finite_are_nodata(tmp_path):
    planes = np.random.default_rng(0).normal(1000, 50, (3, 80, 80)).astype(np.float32)
    planes[:, :20] = np.nan
    planes[:, 20:30] = np.inf
    planes[0, 50, 50] = np.nan
    path = write_tif(tmp_path / "a.tif", planes)
    for resolution_m in (0.5, 1.0):
        with Scene.open(path, resolution_m=resolution_m) as scene:
            image, valid = everything(scene)
        assert np.isfinite(image).all()
        assert valid.mean() == pytest.approx(50 / 80)
        assert 850 < scene.stretch.low[0] < scene.stretch.high[0] < 1150


# Bands and stretch ----------------------------------------------------------------------------------------------------


def test_bands_by_color_by_number_and_by_choice(tmp_path, noise):
    planes = np.concatenate([noise, noise[:2]])
    gray, other = ColorInterp.gray, ColorInterp.undefined
    red, green, blue = ColorInterp.red, ColorInterp.green, ColorInterp.blue
    numbered = write_tif(tmp_path / "a.tif", planes, colors=(gray, other, other, other, other))
    colored = write_tif(tmp_path / "b.tif", planes, colors=(gray, blue, green, red, other))
    with Scene.open(numbered) as scene:
        assert scene.bands == (1, 2, 3)
    with Scene.open(colored) as scene:
        assert scene.bands == (4, 3, 2)
        np.testing.assert_array_equal(everything(scene)[0], planes[[3, 2, 1]])
    with Scene.open(colored, bands=(5, 5, 1)) as scene:
        np.testing.assert_array_equal(everything(scene)[0], planes[[4, 4, 0]])
    with Scene.open(write_tif(tmp_path / "c.tif", planes[:2], photometric="minisblack")) as scene:
        assert scene.bands == (1, 1, 1)
        np.testing.assert_array_equal(everything(scene)[0], planes[[0, 0, 0]])


def test_a_palette_is_read_in_its_colors(tmp_path):
    numbers = np.arange(64, dtype=np.uint8).reshape(1, 8, 8) % 3
    path = write_tif(tmp_path / "a.tif", numbers, photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {0: (10, 20, 30), 1: (200, 100, 0), 2: (0, 0, 255)})
    with Scene.open(path) as scene:
        image, _ = everything(scene)
    assert image[:, 0, 1].tolist() == [200, 100, 0]
    assert image[:, 0, 2].tolist() == [0, 0, 255]


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_other_types_are_stretched_once_for_the_whole_scene(tmp_path, dtype):
    planes = np.random.default_rng(1).normal(3000, 400, (1, 100, 120)).clip(1, 6000).astype(dtype)
    path = write_tif(tmp_path / "a.tif", planes)
    low, high = np.percentile(planes, [2, 98])
    for bbox in (None, (500_005, 4_999_960, 500_020, 4_999_990)):
        with Scene.open(path, bbox=bbox) as scene:
            assert scene.stretch.low == pytest.approx((low,))
            assert scene.stretch.high == pytest.approx((high,))
            assert scene.record["stretch"] == [[scene.stretch.low[0], scene.stretch.high[0]]]
            assert any("stretched" in note for note in scene.notes)
            image, _ = everything(scene)
        assert image.shape[0] == 3
        assert (image.min(), image.max()) == (0, 255)
    assert np.median(image) == pytest.approx(127, abs=12)


def test_a_large_scene_is_stretched_from_its_overview_or_from_samples(tmp_path):
    """A brightness that drifts across the scene: samples from one corner would be far off."""
    drift = np.linspace(100, 10_000, 2400)[None, None, :] + np.linspace(0, 3000, 2000)[None, :, None]
    planes = drift.astype(np.uint16)
    low, high = np.percentile(planes, [2, 98])
    for name, overviews in (("plain.tif", ()), ("pyramid.tif", (2, 4, 8))):
        path = write_tif(tmp_path / name, planes, overviews=overviews, blockxsize=256, blockysize=256)
        with Scene.open(path) as scene:
            assert scene.stretch.low[0] == pytest.approx(low, abs=150)
            assert scene.stretch.high[0] == pytest.approx(high, abs=150)


def test_the_few_valid_pixels_of_a_large_scene_are_found(tmp_path):
    planes = np.zeros((1, 2100, 2100), np.uint16)
    planes[:, 300:340, 300:340] = np.arange(1000, 2600).reshape(40, 40)
    path = write_tif(tmp_path / "a.tif", planes, nodata=0, blockxsize=256, blockysize=256)
    with Scene.open(path) as scene:
        assert 1000 <= scene.stretch.low[0] < 1100
        assert 2500 < scene.stretch.high[0] <= 2600


@pytest.mark.parametrize("value", [0, 700, 65535])
def test_a_constant_or_empty_scene_is_dark_not_an_error(tmp_path, value):
    path = write_tif(tmp_path / "a.tif", np.full((3, 20, 20), value, np.uint16), nodata=0)
    with Scene.open(path) as scene:
        image, valid = everything(scene)
    assert image.max() == 0
    assert valid.all() == (value != 0)
    assert any("same value" in note for note in scene.notes)


# Place ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    col=st.floats(0, 226), row=st.floats(0, 186), width=st.floats(4, 230), height=st.floats(4, 190),
    resolution_m=st.sampled_from([0.5, 0.3, 1.7]),
)  # fmt: skip
def test_a_bounding_box_is_covered_and_little_more(noise_tif, col, row, width, height, resolution_m):
    right, bottom = min(col + width, 230), min(row + height, 190)
    (west, north), (east, south) = NORTH_UP @ (col, row), NORTH_UP @ (right, bottom)
    with Scene.open(noise_tif, resolution_m=resolution_m, bbox=(west, south, east, north)) as scene:
        x0, y0 = scene.transform @ (0, 0)
        x1, y1 = scene.transform @ (scene.width, scene.height)
    slack = 1e-3
    assert x0 <= west + slack
    assert x1 >= east - slack - resolution_m * 0.1
    assert y0 >= north - slack
    assert y1 <= south + slack + resolution_m * 0.1
    assert west - x0 <= 0.51
    assert x1 - east <= 0.51 + resolution_m


def test_a_bounding_box_of_another_crs(noise_tif):
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    west, south = back.transform(500_020.0, 4_999_940.0)
    east, north = back.transform(500_060.0, 4_999_980.0)
    with Scene.open(noise_tif, bbox=(west, south, east, north), bbox_crs="EPSG:4326") as scene:
        assert (scene.width, scene.height) == pytest.approx((80, 80), abs=1)
        assert scene.transform @ (0, 0) == pytest.approx((500_020, 4_999_980), abs=0.6)
    with Scene.open(noise_tif, bbox=(-180, -90, 180, 90), bbox_crs="EPSG:4326") as scene:
        assert (scene.width, scene.height) == (230, 190)


def test_a_large_bounding_box_that_takes_in_a_strip_of_the_scene(noise_tif):
    back = Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    west, _ = back.transform(500_114.0, 4_999_950.0)
    with Scene.open(noise_tif, bbox=(west, -90, 180, 90), bbox_crs="EPSG:4326") as scene:
        assert 2 <= scene.width < 230 / 8
        assert scene.height == 190
        assert scene.transform @ (scene.width, 0) == pytest.approx((500_115, 5_000_000))


@pytest.mark.parametrize("crs", [None, "EPSG:4326", "EPSG:3857"])
def test_the_extent_that_a_refusal_tells_can_be_typed_back(noise_tif, crs):
    with pytest.raises(OptionError) as refusal:
        Scene.open(noise_tif, bbox=(-10, -10, -9, -9), bbox_crs=crs)
    told = str(refusal.value).rpartition("which covers ")[2]
    with Scene.open(noise_tif, bbox=tuple(float(number) for number in told.split(" ")), bbox_crs=crs) as scene:
        assert (scene.width, scene.height) == (230, 190)


def test_a_bounding_box_on_a_turned_scene(tmp_path, noise):
    turned = NORTH_UP @ Affine.rotation(30)
    path = write_tif(tmp_path / "a.tif", noise, transform=turned)
    x, y = turned @ (115, 95)
    with Scene.open(path, bbox=(x - 5, y - 5, x + 5, y + 5)) as scene:
        side = 20 * (math.cos(math.radians(30)) + math.sin(math.radians(30)))
        assert (scene.width, scene.height) == pytest.approx((side, side), abs=2)
        corners = shapely.Polygon(
            [scene.transform @ c for c in ((0, 0), (scene.width, 0), (scene.width, scene.height), (0, scene.height))]
        )
    assert corners.covers(shapely.box(x - 5, y - 5, x + 5, y + 5))
    # Beside the turned scene, though inside its bounds.
    left, top = turned @ (0, 190)
    with pytest.raises(OptionError, match="outside"):
        Scene.open(path, bbox=(left, top + 90, left + 3, top + 93))


@pytest.mark.parametrize(
    ("bbox", "crs", "words"),
    [
        ((500_000, 4_999_990, 499_000, 5_000_000), None, "turned round"),
        ((500_010, 4_999_990, 500_010, 5_000_000), None, "empty"),
        ((500_010, math.nan, 500_020, 5_000_000), None, "not a number"),
        ((0, 0, 10, 10), None, "outside the scene, which covers 500000 4999905 500115 5000000$"),
        ((-10, 10, -9, 11), "EPSG:4326", "outside"),
        ((500_000, 4_999_990, 500_010, 5_000_000), "EPSG:999999", "EPSG:999999"),
    ],
)
def test_bounding_boxes_that_cannot_be(noise_tif, bbox, crs, words):
    with pytest.raises(OptionError, match=words):
        Scene.open(noise_tif, bbox=bbox, bbox_crs=crs)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_without_a_crs_coordinates_are_pixels(tmp_path, noise):
    path = write_tif(tmp_path / "a.tif", noise, crs=None, transform=None)
    with Scene.open(path, resolution_range_m=(0.3, 1.0)) as scene:
        assert scene.crs_wkt is None
        assert scene.resolution_m is None
        assert scene.transform @ (230, 190) == (230, -190)
        assert any("no CRS" in note for note in scene.notes)
        assert math.isnan(scene.area_m2(shapely.box(0, 0, 1, 1)))
    with Scene.open(path, bbox=(10, -50, 40, -20)) as scene:
        np.testing.assert_array_equal(everything(scene)[0], noise[:, 20:50, 10:40])
    with pytest.raises(OptionError, match="no known size"):
        Scene.open(path, resolution_m=0.5)
    with pytest.raises(OptionError, match="no CRS"):
        Scene.open(path, bbox=(10, -50, 40, -20), bbox_crs="EPSG:4326")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("affine", [True, False])
def test_ground_control_points_place_a_scene_if_they_are_affine(tmp_path, noise, affine):
    bend = 0.0 if affine else 1e-3
    points = [
        GroundControlPoint(row, col, 500_000 + 0.5 * col + bend * row**2, 5_000_000 - 0.5 * row)
        for col in (0, 100, 230)
        for row in (0, 90, 190)
    ]
    path = write_tif(tmp_path / "a.tif", noise, transform=None, crs=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, rasterio.CRS.from_string(UTM))
    with Scene.open(path) as scene:
        assert (scene.crs_wkt is not None) == affine
        assert any("control points" in note for note in scene.notes)
        if affine:
            assert scene.transform.almost_equals(NORTH_UP, precision=1e-4)


# Pictures of the whole ------------------------------------------------------------------------------------------------


def test_a_thumbnail_shows_the_whole_extent(noise_tif):
    with Scene.open(noise_tif, resolution_m=0.25) as scene:
        image, valid, transform = scene.thumbnail(100)
        assert max(image.shape) <= 101
        assert valid.shape == image.shape[1:]
        far = transform @ (image.shape[2], image.shape[1])
        np.testing.assert_allclose(far, NORTH_UP @ (230, 190), atol=1.2)


# What cannot be read --------------------------------------------------------------------------------------------------


def one_line(error) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


def test_files_that_are_no_scene(tmp_path, noise):
    text = tmp_path / "text.tif"
    text.write_text("not a raster")
    empty = tmp_path / "empty.tif"
    empty.touch()
    for path, words in (
        (tmp_path / "missing.tif", "does not exist"),
        (tmp_path / ("long" * 100), "does not exist"),
        (text, "not a raster"),
        (empty, "is empty"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(SceneError) as error:
            Scene.open(path)
        assert words in one_line(error)
        assert str(path) in one_line(error)


@pytest.mark.parametrize("interleave", ["pixel", "band"])
def test_a_truncated_tiff_is_noticed_at_opening(tmp_path, noise, interleave):
    path = write_tif(tmp_path / "a.tif", noise, compress="deflate", interleave=interleave)
    whole = path.read_bytes()
    for share in (0.5, 0.97):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(SceneError, match=r"truncated|damaged") as error:
            Scene.open(path)
        one_line(error)


def test_a_damaged_block_is_named_when_it_is_read(tmp_path, noise):
    path = write_tif(tmp_path / "a.tif", noise, compress="deflate")
    with rasterio.open(path) as file:
        offset = int(file.get_tag_item("BLOCK_OFFSET_2_1", "TIFF", bidx=1))
    content = bytearray(path.read_bytes())
    content[offset : offset + 200] = b"\xff" * 200
    path.write_bytes(content)
    with Scene.open(path) as scene:
        scene.read(Window(0, 0, 64, 64))
        with pytest.raises(SceneError, match="columns 120 to 220, rows 60 to 160") as error:
            scene.read(Window(120, 60, 100, 100))
    one_line(error)


def test_complex_values_are_refused(tmp_path):
    path = write_tif(tmp_path / "a.tif", np.ones((1, 64, 64), np.complex64))
    with pytest.raises(SceneError, match="amplitude") as error:
        Scene.open(path)
    one_line(error)


@pytest.mark.parametrize(("bands", "words"), [((1, 2, 4), "has 3"), ((0, 1, 2), "band 0"), ((1, 2), "three")])
def test_bands_that_cannot_be(noise_tif, bands, words):
    with pytest.raises(OptionError, match=words):
        Scene.open(noise_tif, bands=bands)


@pytest.mark.parametrize(
    ("resolution_m", "words"),
    [(0.0, "above 0"), (-1.0, "above 0"), (math.nan, "above 0"), (1e-6, "coarser"), (1e4, "finer")],
)
def test_resolutions_that_cannot_be(noise_tif, resolution_m, words):
    with pytest.raises(OptionError, match=words):
        Scene.open(noise_tif, resolution_m=resolution_m)


# Real scenes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "bands", "resolution_m", "invalid"),
    [
        ("scenes/rasterio_RGB.byte.tif", (1, 2, 3), 75.0, 0.34),
        ("scenes/naip_nd_2020.tif", (1, 2, 3), 1.25, 0.0),
        ("scenes/umbra_mount_yasur.tiff", (1, 1, 1), 0.594, 0.0),
        ("scenes/paris_suburb_epsg4326.tif", (1, 2, 3), 0.3, 0.0),
        ("buildings/kampala/scene_epsg3857.tif", (1, 2, 3), 0.3, 0.0),
    ],
)
def test_real_scenes(data_folder, name, bands, resolution_m, invalid):
    path = data_folder / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    with Scene.open(path, resolution_range_m=(0.3, 1.0)) as scene:
        assert scene.bands == bands
        assert scene.resolution_m == pytest.approx(resolution_m, rel=5e-3)
        image, valid, _ = scene.thumbnail(400)
        assert 1 - valid.mean() == pytest.approx(invalid, abs=0.02)
        assert 20 < image[:, valid].mean() < 160
