"""A reviewed layer as image chips to train on."""

import json
import math

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image
from shapely.geometry import MultiPolygon, box
from small_runs import FINETUNING, RUNNING

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.synthetic import generate_scene, truth_features, write_scene
from rs4d_core.errors import CancelledError, LayerError, OptionError, OutputError
from rs4d_core.finetuning.loop import train
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.runs.tables import read_settings
from rs4d_core.scenes.layers.chip_export import export_chips
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.writers import Feature, RunRecord, open_writer

UTM = "EPSG:32631"
SIZE = (320, 256)
PLACE = Affine(0.5, 0, 440_000, 0, -0.5, 4_640_000)
CLASSES = ("building", "ship")


def write_layer(path, scene, crs: str, shapes: list, statuses: list[str], names: list[str], **parameters):
    """A result layer of polygons in the scene's CRS."""
    run, started = RunRecord.new_id()
    parameters = {"least_scores": dict.fromkeys(CLASSES, 0.5), **parameters}
    record = RunRecord(run, started, "hand", "0" * 64, parameters, str(scene), *SIZE, tuple(PLACE)[:6], "cpu")
    with open_writer(path, gpd.GeoSeries(crs=crs).crs.to_wkt(), CLASSES, ("#ff0000",) * 2, record) as out:
        out.add([Feature(MultiPolygon([s]), name, 0.5, 1.0) for s, name in zip(shapes, names, strict=True)])
    frame = pyogrio.read_dataframe(path, layer="instances", fid_as_index=True)
    runs = pyogrio.read_dataframe(path, layer="runs")
    frame["status"] = statuses
    path.unlink()
    pyogrio.write_dataframe(frame, path, layer="instances")
    pyogrio.write_dataframe(runs, path, layer="runs", append=True)
    return path


def on_ground(*boxes: tuple[float, float, float, float]) -> list:
    """Boxes in pixels of the scene at `PLACE`, as polygons on the map."""
    return [shapely.transform(box(*b), lambda x, y: PLACE @ (x, y), interleaved=False) for b in boxes]


@pytest.fixture
def scene(tmp_path):
    path = tmp_path / "scene.tif"
    write_scene(generate_scene(5, *SIZE, 0.5), path, UTM, PLACE)
    return path


@pytest.mark.parametrize(
    ("crs", "place"),
    [
        (UTM, PLACE),
        (UTM, Affine.translation(440_000, 4_640_000) @ Affine.rotation(33) @ Affine.scale(0.5, -0.5)),
        ("EPSG:4326", Affine(6.04e-6, 0, 2.28, 0, -4.5e-6, 41.9)),
    ],
    ids=["upright", "turned", "degrees"],
)
@pytest.mark.parametrize("resolution_m", [None, 0.7], ids=["own", "coarser"])
def test_outlines_come_back_to_their_place(tmp_path, crs, place, resolution_m):
    path = tmp_path / "scene.tif"
    truth = generate_scene(5, *SIZE, 0.5)
    write_scene(truth, path, crs, place)
    features = truth_features(truth, place)
    layer = write_layer(
        tmp_path / "layer.gpkg",
        path,
        crs,
        list(features.geometry),
        ["accepted"] * len(features),
        [name if name in CLASSES else "vehicle" for name in features["class"]],
    )
    result = export_chips(layer, tmp_path / "set" / "annotations.json", 100, resolution_m, accepted=True)
    coco = json.loads(result.output.read_text())
    samples = read_coco(result.output, tmp_path / "set" / "images", (*CLASSES, "vehicle"))
    assert len(samples) == result.chips == len(coco["images"])
    assert sum(len(sample.annotations) for sample in samples) == result.annotations
    assert result.instances == sum(result.by_class.values()) <= len(features)
    places = {image["id"]: Affine(*image["transform"]) for image in coco["images"]}
    parts: dict[int, list] = {}
    for annotation in coco["annotations"]:
        back = places[annotation["image_id"]]
        for ring in annotation["segmentation"]:
            piece = shapely.Polygon(np.reshape(ring, (-1, 2)))
            parts.setdefault(annotation["object"], []).append(
                shapely.transform(piece.buffer(0.01), lambda x, y, back=back: back @ (x, y), interleaved=False)
            )
    pixel = abs(next(iter(places.values())).determinant)
    for number, pieces in parts.items():
        whole = features.geometry[number - 1]
        differing = shapely.union_all(pieces).symmetric_difference(whole).area / pixel
        # A hundredth of a pixel along the outline; and 4 square pixels are too small a piece.
        length = whole.length / math.sqrt(pixel)
        assert differing < 4.0 + 0.05 * length
    with Scene.open(path, resolution_m=resolution_m) as opened:
        for image in coco["images"]:
            with Image.open(tmp_path / "set" / "images" / image["file_name"]) as picture:
                assert picture.size == (image["width"], image["height"]) == (100, 100)
                pixels = np.asarray(picture)
            col, row = ~opened.transform @ Affine(*image["transform"]) @ (0, 0)
            here, _ = opened.read(Window(round(col), round(row), 100, 100))
            assert (pixels == np.rint(here).astype(np.uint8).transpose(1, 2, 0)).all()


def annotations_of(output) -> list[tuple]:
    """Object, class, whether ignored, and the chip, of each annotation."""
    coco = json.loads(output.read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    chips = {image["id"]: image["file_name"] for image in coco["images"]}
    return [
        (a["object"], names[a["category_id"]], a["iscrowd"], chips[a["image_id"]][-19:-4]) for a in coco["annotations"]
    ]


def test_the_rules_for_what_is_rejected_open_or_cut(tmp_path, scene):
    shapes = on_ground(
        (10, 10, 30, 30),  # accepted, whole
        (40, 10, 60, 30),  # not decided
        (200, 200, 220, 220),  # rejected, alone on its chip
        (61, 100, 90, 130),  # accepted, most of it on the second chip
        (100, 10, 110, 20),  # of a class of which nothing is decided
    )
    statuses = ["accepted", "pending", "rejected", "accepted", "pending"]
    layer = write_layer(tmp_path / "layer.gpkg", scene, UTM, shapes, statuses, ["building"] * 4 + ["ship"])
    result = export_chips(layer, tmp_path / "set" / "a.json", 64, accepted=True)
    assert annotations_of(result.output) == [
        (1, "building", 0, "x000000_y000000"),
        (2, "building", 1, "x000000_y000000"),
        (4, "building", 1, "x000000_y000064"),  # 3 columns of 29
        (4, "building", 0, "x000064_y000064"),
        (4, "building", 1, "x000000_y000128"),
        (4, "building", 1, "x000064_y000128"),  # 2 rows of 30
    ]
    chips = [path.stem[-15:] for path in (tmp_path / "set" / "images").iterdir()]
    assert len(chips) == result.chips == 6
    assert "x000192_y000192" in chips
    assert (result.instances, result.by_class) == (2, {"building": 2})
    assert "4 cut pieces that show too little, and what was not chosen or decided are regions to ignore" in result.notes
    # Without a review all that is not rejected counts.
    everything = export_chips(layer, tmp_path / "all" / "a.json", 64)
    assert everything.by_class == {"building": 3, "ship": 1}
    # All that is left to decide on was taken as objects, whoever asked: nothing undecided is ignored.
    statuses = ["rejected" if status == "rejected" else "accepted" for status in statuses]
    layer = write_layer(tmp_path / "decided.gpkg", scene, UTM, shapes, statuses, ["building"] * 4 + ["ship"])
    chosen = export_chips(layer, tmp_path / "chosen" / "a.json", 64, accepted=True)
    assert any("cut pieces that show too little are regions to ignore" in note for note in chosen.notes)
    assert "decided" not in " ".join(chosen.notes)


def test_chips_without_data_are_skipped_and_the_run_is_followed(tmp_path, scene):
    with rasterio.open(scene, "r+") as file:
        file.nodata = 0
        file.write(np.zeros((3, 64, 64), np.uint8), window=((0, 64), (0, 64)))
    shapes = on_ground((10, 10, 30, 30), (70, 10, 90, 30))
    layer = write_layer(
        tmp_path / "layer.gpkg", scene, UTM, shapes, ["accepted"] * 2, ["ship"] * 2, bands=[3, 2, 1], resolution_m=0.5
    )
    result = export_chips(layer, tmp_path / "set" / "a.json", 64)
    assert (result.chips, result.instances) == (1, 1)
    notes = " ".join(result.notes)
    assert "1 chip without data skipped" in notes
    assert "1 object on no chip" in notes
    (name,) = (tmp_path / "set" / "images").iterdir()
    with Image.open(name) as chip, rasterio.open(scene) as file:
        pixels = file.read([3, 2, 1], window=((0, 64), (64, 128)))
        assert (np.asarray(chip).transpose(2, 0, 1) == pixels).all()


def test_training_takes_the_folder_as_it_is(tmp_path, scene):
    shapes = on_ground(*((x, y, x + 24, y + 20) for x in range(10, 300, 60) for y in range(10, 230, 60)))
    layer = write_layer(tmp_path / "layer.gpkg", scene, UTM, shapes, ["accepted"] * 20, ["building", "ship"] * 10)
    export_chips(layer, tmp_path / "harbour" / "annotations.json", 96, accepted=True)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(FINETUNING + RUNNING)
    data = {
        "annotations": '"harbour/annotations.json"',
        "images": '"harbour/images"',
        "held_back": "{ place = 'x(\\d+)_y(\\d+)', block = [0, 0, 90, 90] }",
    }
    short = "optimization.batch=1", "optimization.steps=2", "optimization.warmup_steps=1"
    overrides = [*(f"datasets.squares.{name}={value}" for name, value in data.items()), *short]
    result = train(read_settings(Recipe, recipe, overrides), tmp_path, tmp_path / "run")
    assert result.step == 2
    assert result.metrics["squares"]["images"] > 0


def test_refusals_leave_nothing(tmp_path, scene):
    layer = write_layer(tmp_path / "layer.gpkg", scene, UTM, on_ground((10, 10, 30, 30)), ["accepted"], ["ship"])
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious").write_text("kept")
    before = sorted(path.name for path in tmp_path.iterdir())
    elsewhere = write_layer(tmp_path / "elsewhere.gpkg", scene, UTM, [box(0, 0, 9, 9)], ["accepted"], ["ship"])
    for source, output, chip_px, error, message in (
        (layer, full / "a.json", 64, OutputError, "no empty folder"),
        (layer, tmp_path / "no" / "where" / "a.json", 64, OutputError, "does not exist"),
        (layer, tmp_path / "set" / "a.json", 8, OptionError, "too small"),
        (layer, tmp_path / "set" / "a.json", 5000, OptionError, "too large"),
        (layer, tmp_path / "set" / "a.gpkg", 64, OptionError, r"annotations\.json"),
        (elsewhere, tmp_path / "set" / "a.json", 64, LayerError, "nothing of it lies in the scene"),
    ):
        with pytest.raises(error, match=message):
            export_chips(source, output, chip_px)
    with pytest.raises(CancelledError):
        export_chips(layer, tmp_path / "set" / "a.json", 64, cancelled=iter([False, True]).__next__)
    elsewhere.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    empty = tmp_path / "set"
    empty.mkdir()
    assert export_chips(layer, empty / "a.json", 64).instances == 1
