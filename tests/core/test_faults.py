"""Scenes that can be read in part, and windows that memory does not hold."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from perfect import ColorPredictor, cover, paint, write_raster
from shapely import box
from test_pipeline import PLACE, SHAPES, UTM, assert_found, in_pixels, paint_shapes, read

from rs4d_core.errors import OptionError, SceneError
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

BLOCK = 64


def damage(path, blocks) -> list[shapely.Polygon]:
    """Spoils blocks (column, row) of a tiled TIFF; returns where they are, in pixels of the scene."""
    with rasterio.open(path) as dataset:
        width, height = dataset.width, dataset.height
        places = [
            tuple(int(dataset.get_tag_item(f"BLOCK_{item}_{c}_{r}", "TIFF", bidx=1)) for item in ("OFFSET", "SIZE"))
            for c, r in blocks
        ]
    with path.open("r+b") as file:
        for offset, size in places:
            file.seek(offset)
            file.write(b"\xff" * size)
    return [box(c * BLOCK, r * BLOCK, min((c + 1) * BLOCK, width), min((r + 1) * BLOCK, height)) for c, r in blocks]


def tiled(path, pixels: np.ndarray):
    return write_raster(
        path, pixels, UTM, PLACE, tiled=True, blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", interleave="pixel"
    )


@pytest.mark.parametrize("window_px", [None, 96, 320])
def test_blocks_that_cannot_be_read_are_left_out_and_marked(tmp_path, window_px):
    scene = tiled(tmp_path / "scene.tif", paint_shapes())
    bad = shapely.union_all(damage(scene, [(0, 0), (1, 0), (3, 2)]))
    output = tmp_path / "out.gpkg"
    result = segment_scene(scene, output, ColorPredictor(), SegmentOptions(window_px=window_px))
    marked = gpd.read_file(output, layer="not_read")
    assert marked.crs == UTM
    assert set(marked["run"]) == {result.record.run}
    assert len(marked) == 2  # neighbours as one
    assert marked.geometry.affine_transform((~PLACE).to_shapely()).union_all().equals(bad)
    (note,) = (note for note in result.notes if "could not be read" in note)
    assert note.startswith("3 blocks of the scene, 20 % of it, could not be read and were left out; the layer not_read")
    layer = read(output)
    for name, truths in SHAPES.items():
        found = in_pixels(layer, name)
        assert shapely.area(shapely.intersection(found, bad.buffer(-0.5))).max() < 1e-6
        for truth in truths:
            left = truth - bad
            if left.area > 0.98 * truth.area:
                assert shapely.area(shapely.intersection(found, truth)).max() > 0.95 * truth.area


def test_the_picture_of_a_damaged_scene_lacks_what_cannot_be_read(tmp_path):
    path = tiled(tmp_path / "scene.tif", np.full((3, 192, 256), 120, np.uint8))
    damage(path, [(1, 1)])
    with Scene.open(path) as scene:
        _, valid, _ = scene.thumbnail(256)
    assert not valid[64:128, 64:128].any()
    assert valid.sum() == 192 * 256 - 64 * 64


def test_other_formats_tell_where_blocks_are_missing(tmp_path):
    scene = tiled(tmp_path / "scene.tif", paint_shapes())
    damage(scene, [(0, 0)])
    result = segment_scene(scene, tmp_path / "out.geojson", ColorPredictor(), SegmentOptions())
    (note,) = (note for note in result.notes if "could not be read" in note)
    assert "1 block of the scene" in note
    assert "was left out; they lie in 450000 39968 to 450032 40000" in note


def test_a_scene_without_a_readable_block_is_an_error(tmp_path):
    scene = tiled(tmp_path / "scene.tif", paint_shapes())
    damage(scene, [(c, r) for c in range(5) for r in range(4)])
    with pytest.raises(SceneError, match="none of its pixels can be read"):
        segment_scene(scene, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions())
    assert list(tmp_path.iterdir()) == [scene]


@pytest.mark.parametrize("resolution_m", [0.5, 0.8, 1.3])
def test_all_windows_miss_the_same_of_a_damaged_scene(tmp_path, resolution_m):
    rng = np.random.default_rng(2)
    scene = tiled(tmp_path / "scene.tif", rng.integers(1, 4000, (3, 200, 300), dtype=np.uint16))
    (bad,) = damage(scene, [(2, 1)])
    with Scene.open(scene, resolution_m=resolution_m) as opened:
        whole = opened.read_readable(Window(0, 0, opened.width, opened.height))
        (missing,) = whole[2]
        assert missing == pytest.approx(np.array(bad.bounds) * 0.5 / resolution_m, rel=1e-3)
        for col, row in [(0, 0), (40, 20), (60, 30)]:
            window = Window(col, row, 50, 40)
            image, valid, not_read = opened.read_readable(window)
            assert np.array_equal(image, whole[0][:, row : row + 40, col : col + 50])
            assert np.array_equal(valid, whole[1][row : row + 40, col : col + 50])
            assert not_read in ((), (missing,))
        y, x = np.mgrid[: opened.height, : opened.width] + 0.5
        inside = shapely.contains_xy(box(*missing).buffer(-1), x, y)
        assert not whole[1][inside].any()
        assert whole[1][~shapely.contains_xy(box(*missing).buffer(1), x, y)].all()


class Cramped(ColorPredictor):
    """A device whose memory holds so many pixels, and that raises what torch does."""

    def __init__(self, pixels: int, window_px: int, device: str):
        super().__init__(window_px, 32, device=device)
        self.pixels = pixels
        self.seen: list[tuple[int, ...]] = []

    def predict(self, images, least_scores):
        count, _, height, width = images.shape
        if count * height * width > self.pixels:
            if self.device == "cpu":
                raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        self.seen.append(images.shape)
        return super().predict(images, least_scores)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    shapes = {
        "red": [box(30, 30, 640, 60), *(box(20 + 47 * k, 300, 55 + 47 * k, 340) for k in range(14))],
        "green": [box(700, 80, 730, 500)],
        "blue": [shapely.Point(500, 200).buffer(70, quad_segs=32)],
    }
    truths = [cover(s, label, 760, 560) for label, some in enumerate(shapes.values()) for s in some]
    folder = tmp_path_factory.mktemp("large")
    return write_raster(folder / "scene.tif", paint(truths, 760, 560), UTM, PLACE), shapes


@pytest.mark.parametrize(("device", "pixels"), [("cpu", 300 * 300), ("cuda:0", 300 * 300), ("cpu", 512 * 512)])
def test_windows_that_memory_does_not_hold_are_seen_in_parts(large, tmp_path, device, pixels):
    scene, shapes = large
    predictor = Cramped(pixels, 512, device)
    result = segment_scene(scene, tmp_path / "out.gpkg", predictor, SegmentOptions())
    assert_found(read(tmp_path / "out.gpkg"), shapes)
    assert result.windows == 4
    in_parts = any("memory does not hold windows of 512 x 512 px" in note for note in result.notes)
    assert in_parts == (pixels < 512 * 512)
    assert {shape[-1] for shape in predictor.seen} == ({288} if pixels < 512 * 512 else {512})


def test_a_window_that_cannot_be_made_smaller_is_an_error(large, tmp_path):
    with pytest.raises(OptionError, match=r"512 x 512 px does not fit .*choose a smaller window"):
        segment_scene(large[0], tmp_path / "out.gpkg", Cramped(1000, 512, "cpu"), SegmentOptions())
    assert list(tmp_path.iterdir()) == []
