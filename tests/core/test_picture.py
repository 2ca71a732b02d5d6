"""The overview picture: what is drawn, where, and in which colour."""

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.scenes.layers.picture import NODATA_COLOR, STRIP_COLOR, check_picture_path, write_picture
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.writers import Feature, RunRecord, open_writer

PIXEL = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)
COLORS = {"ship": "#0000ff", "storage_tank": "#ff0000"}


@pytest.fixture
def scene_tif(tmp_path):
    """400 x 300 pixels of mid grey, with a nodata strip on the right."""
    planes = np.full((3, 300, 400), 120, np.uint8)
    planes[:, :, 360:] = 0
    planes[:, 0, :10] = 255  # so that nothing is lightened
    planes[:, :20, :100] = 250
    path = tmp_path / "scene.tif"
    options = {"driver": "GTiff", "width": 400, "height": 300, "count": 3, "dtype": "uint8", "nodata": 0}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=PIXEL, **options) as file:
        file.write(planes)
    return path


def feature(name, *pixel_box, hole=None):
    shape = shapely.box(*pixel_box)
    if hole:
        shape = shape.difference(shapely.box(*hole))
    placed = shapely.transform(shape, lambda x, y: PIXEL @ (x, y), interleaved=False)
    return Feature(shapely.MultiPolygon([placed]), name, 0.5, 1.0)


FEATURES = (
    feature("storage_tank", 50, 100, 150, 200, hole=(80, 130, 120, 170)),
    feature("storage_tank", 90, 140, 110, 160),
    feature("ship", 200, 100, 300, 140),
)


def drawn(scene_tif, features, tmp_path, **options):
    path = tmp_path / "picture.png"
    with Scene.open(scene_tif, **options) as scene:
        write_picture(scene, features, path, COLORS)
    return np.asarray(Image.open(path)).astype(int)


def test_instances_are_outlined_and_faintly_filled_in_their_colors(scene_tif, tmp_path):
    picture = drawn(scene_tif, FEATURES, tmp_path)
    assert picture.shape[1] == 400
    red, blue = picture[100, 100], picture[120, 300]
    assert red[0] - red[2] > 120
    assert blue[2] - blue[0] > 120
    filled = picture[120, 250]
    assert filled[2] > filled[0]
    assert abs(filled[0] - 120) < 50
    # A hole is not filled, an island in it is.
    assert picture[135, 100].tolist() == [120, 120, 120]
    assert picture[150, 100][0] > picture[150, 100][2]
    assert picture[50, 380].tolist() == list(NODATA_COLOR)


def test_the_strip_below_has_a_swatch_for_each_class(scene_tif, tmp_path):
    strip = drawn(scene_tif, FEATURES, tmp_path)[300:]
    assert strip.shape[0] > 20
    for color in ((255, 0, 0), (0, 0, 255)):
        assert (strip == color).all(axis=2).sum() > 50
    only_ships = drawn(scene_tif, FEATURES[2:], tmp_path)[300:]
    assert not (only_ships == (255, 0, 0)).all(axis=2).any()
    assert (only_ships[0] == STRIP_COLOR).all()


def test_a_scene_without_a_place_has_no_scale_bar(scene_tif, tmp_path):
    with_bar = drawn(scene_tif, [], tmp_path)[300:]
    with rasterio.open(scene_tif, "r+") as file:
        file.crs = rasterio.CRS()
    without = drawn(scene_tif, [], tmp_path)[300:]
    assert np.abs(with_bar - without)[:, 250:].max() > 100
    assert (without[:, 250:] == STRIP_COLOR).all()


def test_a_picture_of_a_layer_leaves_out_what_was_rejected(scene_tif, tmp_path):
    layer = tmp_path / "result.geojson"
    run = RunRecord("a", "2024-05-01T10:00:00Z", "m", "0", {}, "scene.tif", 400, 300, tuple(PIXEL)[:6], "cpu")
    with Scene.open(scene_tif) as scene, open_writer(layer, scene.crs_wkt, COLORS, COLORS.values(), run) as writer:
        writer.add(FEATURES)
    before = drawn(scene_tif, layer, tmp_path)
    assert before[120, 300][2] - before[120, 300][0] > 120
    text = layer.read_text()
    layer.write_text(
        text.replace('"class": "ship", "score": 0.5, "status": "pending"', '"class": "ship", "status": "rejected"')
    )
    after = drawn(scene_tif, layer, tmp_path)
    assert after[120, 250].tolist() == [120, 120, 120]


def test_only_the_extent_is_drawn_and_large_ones_are_reduced(scene_tif, tmp_path):
    box = (500_100, 4_999_900, 500_160, 4_999_960)
    picture = drawn(scene_tif, FEATURES, tmp_path, bbox=box)
    assert not (picture == (255, 0, 0)).all(axis=2).any()
    path = tmp_path / "small.png"
    with Scene.open(scene_tif, resolution_m=0.2) as scene:
        write_picture(scene, FEATURES, path, COLORS, longest_side=200)
    assert Image.open(path).width == 360  # the strip is never narrower
    with Scene.open(scene_tif, resolution_m=2.0) as scene:
        image, _, _ = scene.thumbnail(1600)
    assert image.shape == (3, 300, 400)


def test_a_tiny_scene_and_many_classes(tmp_path):
    path = tmp_path / "scene.tif"
    with rasterio.open(path, "w", driver="GTiff", width=8, height=5, count=1, dtype="uint8", crs="EPSG:32633",
                       transform=PIXEL) as file:  # fmt: skip
        file.write(np.full((1, 5, 8), 9, np.uint8))
    features = [feature(f"some_long_class_name_{number}", 1, 1, 4, 4) for number in range(30)]
    picture = drawn(path, features, tmp_path)
    assert picture.shape[0] > 300


def test_places_that_cannot_be_written_to_are_told_before(scene_tif, tmp_path):
    with pytest.raises(OptionError, match=r"\.png"):
        check_picture_path(tmp_path / "picture.jpg")
    with pytest.raises(OutputError, match="does not exist"):
        check_picture_path(tmp_path / "missing" / "picture.png")
    check_picture_path(tmp_path / "picture.png")
    drawn(scene_tif, FEATURES, tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["picture.png", "scene.tif"]
