"""Preparing scenes with layers: outlines on the right pixels, no ground in two splits, and what the rows tell."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as mask_utils
from training_script import run_script

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.places import Split
from rs4d_core.datasets.scene_plan import Ground, plan_chips
from rs4d_core.errors import DatasetError, OptionError
from rs4d_core.models.card import read_card
from rs4d_core.scenes.layers.chips import SMALLEST_CHIP_PX

PIXEL_M = 0.5
ORIGIN = (500_000.0, 5_400_000.0)
HOUSE_PX = 20


def write_scene(path, size=(400, 300), nodata_cols=0, left_m=0.0, crs="EPSG:32632") -> gpd.GeoDataFrame:
    """A dark scene with a bright house in every 50 x 50 pixels, and the houses' outlines; the first columns without
    data are 0."""
    width, height = size
    image = np.full((3, height, width), 40, np.uint8)
    transform = Affine.translation(ORIGIN[0] + left_m, ORIGIN[1]) @ Affine.scale(PIXEL_M, -PIXEL_M)
    houses = []
    for row in range(15, height - HOUSE_PX, 50):
        for col in range(15, width - HOUSE_PX, 50):
            image[:, row : row + HOUSE_PX, col : col + HOUSE_PX] = 220
            corners = [transform @ corner for corner in ((col, row), (col + HOUSE_PX, row + HOUSE_PX))]
            houses.append(shapely.box(*corners[0], *corners[1]))
    image[:, :, :nodata_cols] = 0
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 3, "dtype": "uint8", "crs": crs}
    with rasterio.open(path, "w", **profile, transform=transform, nodata=0) as file:
        file.write(image)
    kinds = ["hut" if number % 5 == 0 else "house" for number in range(len(houses))]
    return gpd.GeoDataFrame({"kind": kinds}, geometry=houses, crs=crs)


def prepare(monkeypatch, capsys, *arguments) -> dict:
    assert run_script(monkeypatch, "prepare", "raster", *arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def rows_of(folder, split: str) -> list[dict]:
    return json.loads((folder / f"{split}.json").read_text())["images"]


@pytest.mark.parametrize("resolution_m", [0.5, 0.4, 1.0])
def test_outlines_lie_on_the_pixels_whatever_the_layers_crs(tmp_path, monkeypatch, capsys, resolution_m):
    write_scene(tmp_path / "scene.tif").to_crs("EPSG:4326").to_file(tmp_path / "labels.geojson")
    options = ["--class-field", "kind", "--classes", "house,hut", "--resolution", resolution_m, "--chip", "128"]
    output = tmp_path / "prepared"
    scene, layer = tmp_path / "scene.tif", tmp_path / "labels.geojson"
    told = prepare(monkeypatch, capsys, scene, "--layer", layer, *options, "-o", output)
    assert told["splits"]["train"]["by_class"]["hut"] > 0
    for split in ("train", "val"):
        samples = read_coco(output / f"{split}.json", output / "images", ("house", "hut"))
        for sample, row in zip(samples, rows_of(output, split), strict=True):
            bright = np.asarray(Image.open(sample.image))[:, :, 0] > 130
            drawn = np.zeros(bright.shape, bool)
            for annotation in sample.annotations:
                flat = [ring.ravel() for ring in annotation.polygons]
                drawn |= mask_utils.decode(mask_utils.merge(mask_utils.frPyObjects(flat, *bright.shape))).astype(bool)
            # All but the rims, where a pixel is half a house, and slivers at the edges of chips.
            assert (drawn ^ bright).sum() <= 0.06 * bright.sum() + 8
            with rasterio.open(sample.image) as chip:
                assert list(chip.transform)[:6] == pytest.approx(row["source"]["transform"])
                assert chip.crs == "EPSG:32632"
            assert row["source"]["scene"] == str(scene)
            assert row["source"]["crs"] == "EPSG:32632"


def ground(size, points, labels) -> Ground:
    outlines = np.array([shapely.MultiPolygon([shapely.box(x, y, x + 9, y + 9)]) for x, y in points], dtype=object)
    return Ground("scene.tif", "layer", "scene", size, Affine.identity(), None, None, outlines, np.array(labels))


@settings(max_examples=80)
@given(
    st.tuples(st.integers(300, 2500), st.integers(300, 2500)),
    st.integers(0, 2**32),
    st.sampled_from([64, 128, 250]),
    st.sampled_from([0, 16, 31]),
    st.integers(0, 40),
    st.sampled_from([0.1, 0.2, 0.4]),
)
def test_no_pixel_is_in_two_splits(size, seed, chip_px, overlap_px, margin, share):
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, np.array(size) - 9, (40, 2))
    scene = ground(size, points, rng.integers(0, 2, 40))
    try:
        jobs = plan_chips([scene], 2, chip_px, overlap_px, Split(share, margin, seed % 7), [])
    except (OptionError, DatasetError):
        # Where the scene has no two blocks, or the margin nothing of one.
        assert min(size) < 1.5 * chip_px or chip_px < 3 * margin + SMALLEST_CHIP_PX
        return
    windows = {
        split: np.array([(w.col, w.row, w.col + w.width, w.row + w.height) for w in chosen])
        for split in ("train", "val")
        for chosen in [[job.window for job in jobs if job.split == split]]
    }
    train, val = windows["train"], windows["val"]
    assert len(train)
    assert len(val)
    for box in val:
        gaps = np.maximum(train[:, :2] - box[2:], box[:2] - train[:, 2:]).max(axis=1)
        assert (gaps >= margin).all()
    every = np.vstack([train, val])
    assert (every >= 0).all()
    assert (every[:, 2:] <= size).all()
    assert (every[:, 2:] - every[:, :2] <= chip_px).all()


def test_ground_without_data_is_no_background(tmp_path, monkeypatch, capsys):
    write_scene(tmp_path / "scene.tif", (512, 256), nodata_cols=153).to_file(tmp_path / "labels.gpkg")
    output = tmp_path / "prepared"
    options = ["--class-name", "roof", "--chip", "128", "--val-share", "0", "-o", output]
    told = prepare(monkeypatch, capsys, tmp_path / "scene.tif", "--layer", tmp_path / "labels.gpkg", *options)
    assert told["counts"]["dropped images"] == {"nearly all without data": 2}
    samples = read_coco(output / "train.json", output / "images", ("roof",))
    assert len(samples) == 6
    for sample, row in zip(samples, rows_of(output, "train"), strict=True):
        for annotation in sample.annotations:
            assert annotation.box_xyxy[0] + row["source"]["col"] >= 153


def test_empty_chips_are_a_share_of_those_to_train_on(tmp_path, monkeypatch, capsys):
    houses = write_scene(tmp_path / "scene.tif", (1024, 512))
    houses.cx[: ORIGIN[0] + 60, :].to_file(tmp_path / "labels.gpkg")
    options = ["--class-name", "roof", "--chip", "64", "--val-share", "0"]
    paths = [tmp_path / "scene.tif", "--layer", tmp_path / "labels.gpkg"]
    for share in (0.0, 0.25):
        output = tmp_path / f"share{share}"
        train = prepare(monkeypatch, capsys, *paths, *options, "--empty-share", share, "-o", output)["splits"]["train"]
        assert train["empty"] == int(share * train["images"])
        assert train["images"] - train["empty"] == 24


def test_scenes_of_names_that_look_alike_are_all_there(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "flights"
    folder.mkdir()
    layers = [
        write_scene(folder / name, (128, 128), left_m=1000.0 * number)
        for number, name in enumerate(("site 1.tif", "site_1.tif", "SITE-1.tif", "Site_1_2.tif"))
    ]
    pd.concat(layers).to_file(tmp_path / "labels.gpkg")
    options = ["--class-name", "roof", "--chip", "128", "--val-share", "0", "-o", tmp_path / "prepared"]
    prepare(monkeypatch, capsys, folder, "--layer", tmp_path / "labels.gpkg", *options)
    names = [row["file_name"].casefold() for row in rows_of(tmp_path / "prepared", "train")]
    assert len(set(names)) == 4


def test_a_sliver_at_the_edge_of_a_chip_is_left_out(tmp_path, monkeypatch, capsys):
    houses = write_scene(tmp_path / "scene.tif", (2048, 1024))
    west, north = ORIGIN[0] + PIXEL_M * (1024 - 0.0045), ORIGIN[1]
    field = shapely.box(west, north - PIXEL_M * 1000, west + PIXEL_M * 80, north - PIXEL_M)
    layer = pd.concat([houses, gpd.GeoDataFrame({"kind": ["field"]}, geometry=[field], crs=houses.crs)])
    layer.to_file(tmp_path / "labels.gpkg")
    options = ["--class-name", "thing", "--chip", "1024", "--val-share", "0", "-o", tmp_path / "prepared"]
    prepare(monkeypatch, capsys, tmp_path / "scene.tif", "--layer", tmp_path / "labels.gpkg", *options)
    boxes = [row["bbox"] for row in json.loads((tmp_path / "prepared" / "train.json").read_text())["annotations"]]
    assert sum(height > 900 for _, _, _, height in boxes) == 1


def test_scenes_that_overlap_share_no_ground_between_the_splits(tmp_path, monkeypatch, capsys):
    """Two flights over one place, the second one shifted by some pixels, in a folder with one layer."""
    folder = tmp_path / "flights"
    folder.mkdir()
    write_scene(folder / "may.tif", (384, 384)).to_file(tmp_path / "labels.gpkg")
    write_scene(folder / "june.tif", (384, 384), left_m=25.0)
    write_scene(folder / "far.tif", (128, 128), left_m=90_000.0)
    output = tmp_path / "prepared"
    options = ["--class-name", "roof", "--chip", "64", "--margin", "0", "-o", output]
    told = prepare(monkeypatch, capsys, folder, "--layer", tmp_path / "labels.gpkg", *options)
    assert told["counts"]["dropped images"]["scene that its layer does not reach"] == 1
    assert told["counts"]["dropped images"]["shows ground held back in another scene"] > 0
    train, val = (
        [
            shapely.box(*transform @ (0, 0), *transform @ (row["width"], row["height"]))
            for row in rows_of(output, split)
            for transform in [Affine(*row["source"]["transform"])]
        ]
        for split in ("train", "val")
    )
    assert shapely.union_all(train).intersection(shapely.union_all(val)).area == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    ("layer", "options", "message"),
    [
        ("empty.gpkg", ["--class-name", "roof"], "empty.gpkg: no labelled polygon in it"),
        ("far.gpkg", ["--class-name", "roof"], "far.gpkg: lies outside of"),
        ("bare.gpkg", ["--class-name", "roof"], "bare.gpkg has no CRS"),
        ("labels.gpkg", [], "no field 'class'; its fields are kind"),
        ("labels.gpkg", ["--class-field", "kind", "--classes", "house"], "the class 'hut' is not a known one"),
        ("labels.gpkg", ["--class-field", "kind", "--class-name", "roof"], "either a class field or one class name"),
        ("missing.gpkg", ["--class-name", "roof"], "missing.gpkg: no such file"),
        ("labels.gpkg", ["--class-name", "roof", "--chip", "8"], "chips of 8 px are too small"),
        ("labels.gpkg", ["--class-name", "roof", "--chip", "128", "--margin", "120"], "leaves nothing of a block"),
        ("labels.gpkg", ["--class-name", "roof", "--resolution", "6"], "is 34 x 25 pixels as it would be read"),
        ("one.gpkg", ["--class-name", "roof"], "all objects lie in one block of ground"),
    ],
)
@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_what_does_not_fit_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, capsys, layer, options, message):
    houses = write_scene(tmp_path / "scene.tif")
    houses.to_file(tmp_path / "labels.gpkg")
    houses[:1].to_file(tmp_path / "one.gpkg")
    houses[:0].to_file(tmp_path / "empty.gpkg")
    houses.set_crs("EPSG:32633", allow_override=True).to_file(tmp_path / "far.gpkg")
    houses.set_crs(None, allow_override=True).to_file(tmp_path / "bare.gpkg")
    arguments = [tmp_path / "scene.tif", "--layer", tmp_path / layer, *options, "-o", tmp_path / "out" / "prepared"]
    assert run_script(monkeypatch, "prepare", "raster", *arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
    assert not any(tmp_path.glob("out/*"))


RECIPE = """
[model]
name = "roofs"
preset = "tiny"
classes = ["roof"]
colors = ["#ff0000"]
resolution_m = [0.5, 0.5]

[[datasets]]
kind = "coco"
name = "roofs"
annotations = "roofs/train.json"
images = "roofs/images"
weight = 1
scale = [0.8, 1.25]
licence = "generated"
held_back = { annotations = "roofs/val.json" }

[optimization]
image_size = 64
batch = 2
steps = 1
lr = 1e-4
warmup_steps = 0

[running]
workers = 0
"""


def test_a_recipe_trains_on_what_was_prepared_and_evaluate_measures_it(tmp_path, monkeypatch, capsys):
    write_scene(tmp_path / "scene.tif").to_file(tmp_path / "labels.gpkg")
    (tmp_path / "roofs.toml").write_text(RECIPE)
    roofs, runs = tmp_path / "roofs", tmp_path / "runs"
    options = ["--class-name", "roof", "--chip", "128", "-o", roofs]
    told = prepare(monkeypatch, capsys, tmp_path / "scene.tif", "--layer", tmp_path / "labels.gpkg", *options)
    train = ["finetune", tmp_path / "roofs.toml", "--data", tmp_path, "--runs", runs]
    assert run_script(monkeypatch, *train) == 0
    model = runs / "roofs" / "final.safetensors"
    assert read_card(model).training_data == ({"name": "roofs", "licence": "generated"},)
    capsys.readouterr()
    measure = ["--images", roofs / "images", "--annotations", roofs / "val.json", "--json"]
    assert run_script(monkeypatch, "evaluate", "--model", model, *measure) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == told["splits"]["val"]["images"]
    assert figures["by_class"]["roof"]["instances"] == told["splits"]["val"]["objects"]


def test_a_real_scene_is_cut_with_its_layer(data_folder, tmp_path, monkeypatch, capsys):
    folder = data_folder / "buildings" / "kampala"
    output = tmp_path / "kampala"
    options = ["--resolution", "0.3", "--chip", "256", "-o", output]
    told = prepare(monkeypatch, capsys, folder / "scene_epsg3857.tif", "--layer", folder / "labels.geojson", *options)
    assert told["splits"]["val"]["objects"] > 10
    assert told["splits"]["train"]["objects"] > 70
    assert run_script(monkeypatch, "prepare", "check", output) == 0
