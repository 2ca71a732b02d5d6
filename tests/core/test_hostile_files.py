"""Hostile model files, rasters, layers and data sets: refused in one line or worked on, in bounded time and memory."""

import json
import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import safetensors.torch
import shapely
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from rasterio.windows import Window as PixelWindow
from shapely.geometry import Polygon, box, mapping
from small_model import small_config
from test_checkpoint import card_file, make_card

from rs4d_core.cli import main
from rs4d_core.datasets.coco import read_coco
from rs4d_core.errors import DatasetError, LayerError, ModelFileError, RS4DError, SceneError
from rs4d_core.evaluation.layer_metrics import evaluate_layers
from rs4d_core.models.card import read_card
from rs4d_core.models.checkpoint import load_model
from rs4d_core.models.encoder_card import ENCODER_CARD_KEY, EncoderCard
from rs4d_core.scenes.layers.export import export_layer
from rs4d_core.scenes.layers.layer_file import write_layer as write_layer_file
from rs4d_core.scenes.layers.vector_layer import read_vector_layer
from rs4d_core.scenes.polygons.areal import repair
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.writers.geopackage import RUN_FIELDS
from rs4d_core.wording import file_stem, is_name, one_line, visible

CAMPAIGN = Path(__file__).resolve().parents[1] / "faults" / "mutations.py"
OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
COLLECTION = {"type": "FeatureCollection", "features": []}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the campaign forks")
def test_a_short_campaign_of_mutated_files():
    command = [sys.executable, str(CAMPAIGN), "--rasters", "20", "--models", "20", "--seed", "7", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ends = json.loads(done.stdout)["ends"]
    assert sum(ends["raster"].values()) == 20
    assert sum(ends["model"].values()) == 40
    assert min(ends["raster"]["done"], ends["raster"]["refused"], ends["model"]["refused"]) > 3


@given(st.text())
def test_texts_of_unknown_origin_command_nothing_and_say_the_same(text):
    assert not OBEYED.search(visible(text))
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
    assert "\n" not in one_line(text)
    assert str(RS4DError(text)) == one_line(text)
    if text.isprintable():
        assert visible(text) == text


@given(st.text())
def test_names_of_unknown_origin_lead_nowhere(text):
    stem = file_stem(text)
    assert stem
    assert Path(stem).name == stem
    assert not set(stem) & set('/\\:*?"<>|')
    assert stem not in (".", "..")
    assert is_name(stem)


@pytest.mark.parametrize(
    "name", ["", " ", "two\nlines", "\x1b[2J", "\x9b31m", "\u202egnp.exe", "\ud800", "x" * 101, 5, None, ["ship"]]
)
@pytest.mark.parametrize("where", ["model", "class"])
def test_cards_with_names_that_are_no_names(tmp_path, name, where):
    card = make_card().to_json()
    if where == "model":
        card["name"] = name
    else:
        card["config"]["classes"] = [name, "vehicle"]
    with pytest.raises(ModelFileError) as refused:
        read_card(card_file(tmp_path / "card.safetensors", card))
    assert not OBEYED.search(str(refused.value))
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize(
    ("part", "changes"),
    [
        ("encoder", {"depth": 10**9}),
        ("encoder", {"dim": 10**9}),
        ("encoder", {"stem_channels": [10**9] * 3}),
        ("rpn", {"proposals": 10**9}),
        ("rpn", {"anchor_scales": [1e300]}),
        ("rpn", {"anchor_scales": [float("nan")]}),
        ("mask_head", {"convs": 10**9}),
        ("prompt_head", {"prompts": 10**9}),
        (None, {"max_instances": 10**9}),
        (None, {"nms_iou": float("nan")}),
        (None, {"classes": [f"class {number}" for number in range(100_000)]}),
    ],
)
def test_cards_that_claim_what_cannot_be(tmp_path, part, changes):
    card = make_card().to_json()
    (card["config"][part] if part else card["config"]).update(changes)
    with pytest.raises(ModelFileError):
        read_card(card_file(tmp_path / "card.safetensors", card))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path, untrained_model, value):
    tensors = safetensors.torch.load_file(untrained_model)
    tensors["box_head.fc_cls.weight"][0, 0] = value
    with safetensors.safe_open(untrained_model, framework="pt") as file:
        safetensors.torch.save_file(tensors, tmp_path / "model.safetensors", file.metadata())
    with pytest.raises(ModelFileError, match="no numbers"):
        load_model(tmp_path / "model.safetensors", "cpu")


@given(
    st.sampled_from(["name", "config", "source", "image_size", "training_data", "metrics", "created_by", "new"]),
    st.none()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers())
    | st.dictionaries(st.text(), st.text()),
)
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_encoder_cards_of_anything_are_shown_or_refused(tmp_path, field, value):
    card = EncoderCard("encoder", small_config().encoder, "a teacher").to_json() | {field: value}
    header = json.dumps({"__metadata__": {ENCODER_CARD_KEY: json.dumps(card)}}).encode()
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert main(["info", str(path)]) in (0, 2)
    assert main(["info", str(path), "--json"]) in (0, 2)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "x" * (5 << 20), "1" * 100_000])
def test_cards_that_are_deep_or_huge(tmp_path, text):
    header = json.dumps({"__metadata__": {"rs4d": text}}).encode()
    path = tmp_path / "card.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ModelFileError) as refused:
        read_card(path)
    assert len(str(refused.value)) < 1000


def test_what_a_card_tells_commands_no_terminal(tmp_path, capsys):
    told = "\x1b[2J\n\u202e"
    changes = {
        "created_by": told,
        "training_data": ({"name": told, told: "CC0"},),
        "metrics": {told: {"mask": {"ap": 1}}},
    }
    path = card_file(tmp_path / "card.safetensors", make_card(**changes).to_json())
    for arguments in (["info", str(path)], ["info", str(path), "--json"]):
        assert main(arguments) == 0
        output = capsys.readouterr().out
        assert "\\u001b[2J" in output
        assert not OBEYED.search(output.replace("\n", ""))


def sparse_scene(path, side: int, block: int, **options) -> Path:
    """A raster of which the first pixels are written."""
    place = {"crs": "EPSG:32631", "transform": from_origin(440_000, 4_640_000, 0.5, 0.5)}
    shape = {"width": side, "height": side, "count": 1, "dtype": "uint8", "blockxsize": block, "blockysize": block}
    with rasterio.open(path, "w", driver="GTiff", tiled=True, SPARSE_OK="TRUE", **shape, **place, **options) as raster:
        raster.write(np.full((1, 64, 64), 9, np.uint8), window=PixelWindow(0, 0, 64, 64))
    return path


def test_a_terapixel_of_which_nothing_is_written_opens_and_can_be_read(tmp_path):
    path = sparse_scene(tmp_path / "wide.tif", 1_000_000, 4096, compress="zstd", BIGTIFF="YES")
    with Scene.open(path, resolution_range_m=(0.3, 1.0)) as scene:
        assert (scene.width, scene.height) == (1_000_000, 1_000_000)
        image, valid = scene.read(Window(0, 0, 128, 128))
        assert image[0, 5, 5] == 9
        assert valid.all()
        assert not scene.read(Window(999_872, 999_872, 128, 128))[0].any()


def test_headers_that_claim_more_than_files_hold(tmp_path):
    path = sparse_scene(tmp_path / "small.tif", 512, 128)
    content = bytearray(path.read_bytes())
    for tag in (256, 257):  # ImageWidth, ImageLength
        place = content.index(tag.to_bytes(2, "little") + b"\3\0\1\0\0\0")
        content[place + 2 : place + 12] = b"\4\0\1\0\0\0" + (1_000_000).to_bytes(4, "little")
    path.write_bytes(content)
    with pytest.raises(SceneError, match="claims 1000000 x 1000000 pixels"):
        Scene.open(path)


def test_places_that_no_file_has_are_told_once(tmp_path, capfd):
    path = tmp_path / "far.tif"
    path.write_bytes(b"II\x2b\0\x08\0\0\0" + (1 << 61).to_bytes(8, "little") + bytes(1000))
    with pytest.raises(SceneError, match="is damaged"):
        Scene.open(path)
    assert capfd.readouterr() == ("", "")


def test_blocks_that_no_memory_holds(tmp_path):
    path = sparse_scene(tmp_path / "block.tif", 40_000, 32_768, compress="zstd")
    with pytest.raises(SceneError, match="too large to be read"):
        Scene.open(path)


@pytest.mark.parametrize("name", ["self.vrt", "/etc/passwd", "/dev/zero", "http://127.0.0.1:9/none.tif", "\x1b[31m"])
def test_vrts_that_name_themselves_or_no_raster(tmp_path, name, capsys, untrained_model):
    path = tmp_path / "self.vrt"
    source = (
        f'<SourceFilename relativeToVRT="{int(name == path.name)}">{name}</SourceFilename><SourceBand>1</SourceBand>'
    )
    path.write_text(
        '<VRTDataset rasterXSize="64" rasterYSize="64"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource>{source}</SimpleSource></VRTRasterBand></VRTDataset>"
    )
    code = main(["segment", str(path), "-o", str(tmp_path / "out.gpkg"), "--model", str(untrained_model)])
    errors = capsys.readouterr().err
    assert code in (0, 2)
    assert "internal error" not in errors
    assert not OBEYED.search(errors.replace("\n", ""))


def write_layer(path, *geometries, **properties) -> Path:
    features = [
        {"type": "Feature", "properties": {"class": "ship", "score": 0.5} | properties, "geometry": geometry}
        for geometry in geometries
    ]
    path.write_text(json.dumps(COLLECTION | {"features": features}))
    return path


def test_outlines_that_cross_themselves_without_end_are_left_out(tmp_path):
    scribble = mapping(Polygon(np.random.default_rng(0).random((3000, 2)) / 1000))
    path = write_layer(tmp_path / "layer.geojson", scribble, mapping(box(0, 0, 1e-3, 1e-3)))
    layer = read_vector_layer(path)
    assert len(layer.frame) == 1
    assert "1 feature left out: nothing remained after the repair" in " ".join(layer.notes)


def test_large_outlines_that_cross_themselves_once_are_repaired():
    turn = np.linspace(0, 2 * np.pi, 50_000)
    wavy = np.stack([np.cos(turn), np.sin(turn)], axis=1) * (1 + np.random.default_rng(0).random((50_000, 1)) / 10_000)
    outlines = np.array([Polygon([*wavy[:-1], (0.5, 0.5), (-2.0, 0.0)])], dtype=object)
    assert repair(outlines) == 1
    assert shapely.is_valid(outlines[0])
    assert outlines[0].area == pytest.approx(np.pi, rel=0.5)


def test_outlines_of_very_many_points_become_geojson_in_time(tmp_path):
    rng = np.random.default_rng(0)
    turn, reach = np.sort(rng.random(20_000)) * 2 * np.pi, 1e-3 * (1 + rng.random(20_000) / 2)
    star = Polygon(np.stack([reach * np.cos(turn), reach * np.sin(turn)], axis=1))
    told = {"status": "pending", "edited": False, "area_m2": 1.0, "run": "r"}
    export_layer(write_layer(tmp_path / "layer.geojson", mapping(star), **told), tmp_path / "out.geojson")
    (written,) = gpd.read_file(tmp_path / "out.geojson").geometry
    assert written.is_valid
    assert written.area == pytest.approx(star.area)


ODD_GEOMETRIES = [
    None,
    {"type": "Point", "coordinates": [0, 0]},
    {"type": "Polygon", "coordinates": [[[0, 0], [1e300, 1e300], [0, 1e300], [0, 0]]]},
    {"type": "Polygon", "coordinates": [[[float("nan"), 0], [1, 1], [1, 0], [float("nan"), 0]]]},
    {"type": "Polygon", "coordinates": [[[1e4, 1e4], [1e4 + 1, 1e4 + 1], [1e4, 1e4 + 1], [1e4, 1e4]]]},
    {"type": "Polygon", "coordinates": [[[0, 0], [1, 1], [1, 0], [0, 1], [0, 0]]]},
    {"type": "Polygon", "coordinates": [[[0, 0], [1, 1]]]},
    {"type": "Polygon", "coordinates": []},
    {"type": "GeometryCollection", "geometries": []},
]


@pytest.mark.filterwarnings("ignore")  # GDAL and GEOS say of these geometries what they are
@given(
    st.lists(st.sampled_from(ODD_GEOMETRIES), max_size=4),
    st.dictionaries(
        st.sampled_from(["class", "score", "status", "edited", "run", "fid", "geometry", ""]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers(), max_size=2),
    ),
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_layers_of_anything_are_evaluated_or_refused(tmp_path, geometries, properties):
    odd = write_layer(tmp_path / "odd.geojson", *geometries, **properties)
    good = write_layer(tmp_path / "good.geojson", mapping(box(0, 0, 1, 1)))
    for pair in ((odd, good), (good, odd)):
        with suppress(LayerError):
            evaluate_layers(*pair)


def coco(**changes) -> dict:
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "segmentation": [[1, 1, 9, 1, 9, 9]]}
    image = {"id": 1, "file_name": "a.png", "width": 64, "height": 48}
    for record in (annotation, image):
        record.update({key: value for key, value in changes.items() if key in {*record, "iscrowd"}})
    return {"images": [image], "categories": [{"id": 1, "name": "ship"}], "annotations": [annotation]}


@pytest.fixture
def images(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images" / "a.png")
    return tmp_path / "images"


@pytest.mark.parametrize(
    "name", ["../a.png", "/etc/passwd", "/dev/zero", "C:\\a.png", "\\\\host\\a.png", "x/../../a.png", "a\0.png"]
)
def test_image_names_that_lead_out_of_the_folder(tmp_path, images, name):
    (tmp_path / "coco.json").write_text(json.dumps(coco(file_name=name)))
    with pytest.raises(DatasetError, match="leads out of the folder"):
        read_coco(tmp_path / "coco.json", images, ("ship",))


def test_an_outline_of_ten_million_points_is_refused(tmp_path, images):
    text = json.dumps(coco()).replace("[[1, 1, 9, 1, 9, 9]]", f"[[{'1,' * 19_999_999}1]]")
    (tmp_path / "coco.json").write_text(text)
    with pytest.raises(DatasetError, match="10000000 points"):
        read_coco(tmp_path / "coco.json", images, ("ship",))


ODD_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, "a.png", 1, 48, 64]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.sampled_from(["size", "counts"]), inner),
    max_leaves=8,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["id", "image_id", "category_id", "bbox", "segmentation", "iscrowd", "file_name", "width", "height"]
        ),
        ODD_VALUES,
        min_size=1,
    )
)
@example({"width": 10**400})
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_coco_files_of_anything_are_read_or_refused(tmp_path, images, changes):
    (tmp_path / "coco.json").write_text(json.dumps(coco(**changes)))
    with suppress(DatasetError):
        read_coco(tmp_path / "coco.json", images, ("ship",))


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet", ".shp"])
def test_classes_that_are_lists_are_exported_as_texts(tmp_path, suffix):
    result = {"class": ["a", "b"], "status": "pending", "edited": False, "area_m2": 1.0, "run": "r"}
    layer = write_layer(tmp_path / "layer.geojson", mapping(box(0, 0, 1, 1)), **result)
    assert sum(export_layer(layer, tmp_path / f"out{suffix}").by_class.values()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"parameters": "{"},
        {"parameters": "[]"},
        {"parameters": "[" * 100_000},
        {"parameters": '{"least_scores": 5}'},
        {"parameters": '{"bands": "1,2,3"}'},
        {"parameters": None},
        {"scene": None},
    ],
)
def test_damaged_records_of_runs_are_refused(tmp_path, changes):
    features = {"class": "ship", "score": 0.5, "status": "pending", "edited": False, "area_m2": 1.0, "run": "r"}
    frame = gpd.GeoDataFrame([features], geometry=[box(440_000, 4_639_990, 440_010, 4_640_000)], crs="EPSG:32631")
    record = dict.fromkeys(RUN_FIELDS, "x") | {"run": "r", "parameters": "{}", "scene": "scene.tif", "seconds": 1.0}
    path = tmp_path / "layer.gpkg"
    write_layer_file(path, frame, pd.DataFrame([record | changes]))
    with pytest.raises(LayerError, match="record of run r is damaged"):
        export_layer(path, tmp_path / "out.json")
