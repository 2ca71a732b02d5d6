"""The outline of an object in a box: how good it is, what is kept for the next box, and what is refused."""

import json
import math
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import shapely
import torch
from affine import Affine
from engine_process import Engine
from hypothesis import given
from hypothesis import strategies as st
from perfect import write_raster
from pyproj import Transformer
from small_model import CLASSES, small_config

from rs4d_core.datasets.synthetic import generate_scene, truth_features, write_scene
from rs4d_core.engine.parameters import read_params
from rs4d_core.engine.protocol import ProtocolError
from rs4d_core.errors import CancelledError, OptionError, SceneError
from rs4d_core.models.card import ModelCard, default_model_path
from rs4d_core.models.checkpoint import LoadedModel, load_model
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.scenes.outline import OutlineOptions, Outliner, window_around
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.reading.scene import Scene

NORTH_UP = Affine(0.5, 0.0, 440_000.0, 0.0, -0.5, 4_640_000.0)


def proceed():
    """Nobody cancels."""


@pytest.fixture(scope="module")
def model():
    """The one that ships."""
    return load_model(default_model_path(), "cpu")


@pytest.fixture(scope="module")
def generated():
    return generate_scene(2_000_000_002, 640, 512, 0.5)


@pytest.fixture(scope="module")
def scene(generated, tmp_path_factory):
    path = tmp_path_factory.mktemp("outline") / "scene.tif"
    write_scene(generated, path)
    return path


@pytest.fixture(scope="module")
def buildings(generated):
    """Their true outlines on the ground, those that lie wholly in the scene."""
    truth = truth_features(generated, NORTH_UP)
    inside = shapely.box(440_001, 4_640_000 - 255, 440_319, 4_639_999)
    return [shape for shape in truth.geometry[truth["class"] == "building"] if inside.contains(shape)]


def around(shape, margin=2.0):
    x0, y0, x1, y1 = shape.bounds
    return x0 - margin, y0 - margin, x1 + margin, y1 + margin


def iou(one, other):
    return one.intersection(other).area / one.union(other).area


@pytest.fixture
def encoded(model, monkeypatch):
    """How many windows were encoded."""
    calls, encode = [], Segmenter.encode
    monkeypatch.setattr(Segmenter, "encode", lambda *args: calls.append(1) or encode(*args))
    return calls


def test_outlines_are_better_than_their_boxes_and_named(scene, buildings, model):
    outliner = Outliner()
    found = [outliner.outline(scene, model, OutlineOptions(around(shape)), proceed) for shape in buildings]
    assert len(found) > 3
    quality = [iou(seen.geometry, shape) for seen, shape in zip(found, buildings, strict=True)]
    of_boxes = [iou(shapely.box(*around(shape)), shape) for shape in buildings]
    assert np.mean(quality) > np.mean(of_boxes) + 0.1
    assert min(quality) > 0.5
    assert np.mean([seen.class_name == "building" for seen in found]) > 0.8
    for seen in found:
        assert seen.geometry.geom_type == "MultiPolygon"
        assert len(seen.geometry.geoms) == 1
        assert seen.geometry.is_valid
        assert 0 <= seen.score <= 1
        assert seen.area_m2 == Ground(seen.crs_wkt).area_m2(seen.geometry)


def test_a_window_is_encoded_once_whatever_is_asked_of_it(scene, buildings, model, encoded):
    outliner, box = Outliner(), around(buildings[0])
    first = outliner.outline(scene, model, OutlineOptions(box), proceed)
    assert (first.encoded, len(encoded)) == (True, 1)
    again = outliner.outline(scene, model, OutlineOptions(box), proceed)
    assert (again.encoded, len(encoded)) == (False, 1)
    assert again.geometry.equals_exact(first.geometry)
    tank = outliner.outline(scene, model, OutlineOptions(box, class_name="storage_tank"), proceed)
    assert (tank.class_name, len(encoded)) == ("storage_tank", 1)
    assert outliner.held_bytes > 0


def test_the_answer_does_not_depend_on_what_was_asked_before(scene, buildings, model):
    busy = Outliner()
    boxes = [around(shape, margin) for shape in buildings[:4] for margin in (1.0, 12.0)]
    for box in boxes:
        alone = Outliner().outline(scene, model, OutlineOptions(box), proceed)
        assert busy.outline(scene, model, OutlineOptions(box), proceed).geometry.equals_exact(alone.geometry)


def test_a_scene_that_was_replaced_is_noticed(tmp_path, generated, buildings, model, encoded):
    path, outliner = tmp_path / "scene.tif", Outliner()
    write_scene(generated, path)
    options = OutlineOptions(around(buildings[0]))
    outliner.outline(path, model, options, proceed)
    write_scene(replace(generated, image=255 - generated.image), path)
    with suppress(OptionError):  # it may well be that nothing can be made out
        assert outliner.outline(path, model, options, proceed).encoded
    assert len(encoded) == 2


def test_memory_is_bounded_and_the_last_window_is_kept(scene, buildings, model, encoded):
    one = Outliner()
    one.outline(scene, model, OutlineOptions(around(buildings[0])), proceed)
    tight = Outliner(most_bytes=one.held_bytes + 1)
    for shape in buildings:
        tight.outline(scene, model, OutlineOptions(around(shape), window_px=128), proceed)
        assert tight.held_bytes <= one.held_bytes + 1
    nothing = Outliner(most_bytes=0)
    encoded.clear()
    for _ in range(2):
        nothing.outline(scene, model, OutlineOptions(around(buildings[0])), proceed)
    assert len(encoded) == 1


def test_a_box_larger_than_a_window_is_looked_at_with_coarser_pixels(scene, model):
    box = (440_000, 4_640_000 - 256, 440_320, 4_640_000)
    seen = Outliner().outline(scene, model, OutlineOptions(box, window_px=128), proceed)
    assert seen.resolution_m == pytest.approx(0.5 * 8, rel=0.01)
    assert any("8 times as long" in note for note in seen.notes)
    assert shapely.box(*box).buffer(8).contains(seen.geometry)


def test_boxes_of_another_crs_and_scenes_in_degrees(tmp_path, generated, scene, buildings, model):
    to_degrees = Transformer.from_crs("EPSG:32631", "EPSG:4326", always_xy=True)
    shape = buildings[0]
    degrees = shapely.transform(shapely.box(*around(shape)), to_degrees.transform, interleaved=False).bounds
    there = Outliner().outline(scene, model, OutlineOptions(degrees, "EPSG:4326"), proceed)
    assert iou(there.geometry, shape) > 0.6

    flat = tmp_path / "degrees.tif"
    corner = to_degrees.transform(440_000, 4_640_000)
    step = 0.5 / 111_320
    transform = Affine(step / math.cos(math.radians(corner[1])), 0, corner[0], 0, -step, corner[1])
    write_scene(generated, flat, "EPSG:4326", transform)
    true = truth_features(generated, transform, "EPSG:4326")
    inside = shapely.Polygon([transform @ corner for corner in ((4, 4), (636, 4), (636, 508), (4, 508))])
    true = [shape for shape in true.geometry[true["class"] == "building"] if inside.contains(shape)][:4]
    outliner = Outliner()
    seen = [outliner.outline(flat, model, OutlineOptions(around(shape, 4 * step)), proceed) for shape in true]
    assert np.median([iou(found.geometry, shape) for found, shape in zip(seen, true, strict=True)]) > 0.6
    assert seen[0].area_m2 == Ground(seen[0].crs_wkt).area_m2(seen[0].geometry) > 50


def test_a_turned_scene_gives_turned_outlines(tmp_path, generated, model):
    turned, path = NORTH_UP @ Affine.rotation(30), tmp_path / "turned.tif"
    write_scene(generated, path, transform=turned)
    true = truth_features(generated, turned)
    inside = shapely.Polygon([turned @ corner for corner in ((20, 20), (620, 20), (620, 492), (20, 492))])
    true = [shape for shape in true.geometry[true["class"] == "building"] if inside.contains(shape)]
    quality = [
        iou(Outliner().outline(path, model, OutlineOptions(around(shape)), proceed).geometry, shape)
        for shape in true[:4]
    ]
    assert np.median(quality) > 0.6


def test_nodata_is_no_object(tmp_path, generated, model):
    picture = generated.image.transpose(2, 0, 1).copy()
    picture[:, :, :320] = 0
    path = write_raster(tmp_path / "half.tif", picture, "EPSG:32631", NORTH_UP, nodata=0)
    with pytest.raises(OptionError, match="no data in the box"):
        Outliner().outline(path, model, OutlineOptions((440_100, 4_639_900, 440_120, 4_639_920)), proceed)
    options = OutlineOptions((440_010, 4_639_900, 440_020, 4_639_910), window_px=96)
    with pytest.raises(OptionError, match="no data around the box"):
        Outliner().outline(path, model, options, proceed)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"box": (0.0, 0.0, 1.0, 1.0)}, "^the box lies outside the image"),
        ({"box": (440_100.0, 4_639_900.0, 440_100.4, 4_639_950.0)}, "around a whole object"),
        ({"box": (440_100.0, 4_639_950.0, 440_120.0, 4_639_900.0)}, "turned round"),
        ({"box": (440_100.0, 4_639_900.0, 440_120.0, math.nan)}, "not a number"),
        ({"box_crs": "nowhere"}, "unknown"),
        ({"class_name": "unicorn"}, "not known to model"),
        ({"window_px": 100}, "multiple of 32"),
        ({"bands": (1, 2, 9)}, "band"),
        ({"resolution_m": -1.0}, "above 0"),
    ],
)
def test_what_cannot_be_outlined_is_said(scene, model, options, words):
    wanted = OutlineOptions(**{"box": (440_100.0, 4_639_900.0, 440_120.0, 4_639_920.0), **options})
    with pytest.raises(OptionError, match=words):
        Outliner().outline(scene, model, wanted, proceed)


def test_a_scene_that_is_not_there_is_said(tmp_path, model):
    with pytest.raises(SceneError, match="does not exist"):
        Outliner().outline(tmp_path / "none.tif", model, OutlineOptions((0, 0, 9, 9)), proceed)


def test_it_can_be_given_up(scene, buildings, model, encoded):
    def enough():
        raise CancelledError("cancelled")

    outliner = Outliner()
    with pytest.raises(CancelledError):
        outliner.outline(scene, model, OutlineOptions(around(buildings[0])), enough)
    assert (encoded, outliner.held_bytes) == ([], 0)


@pytest.mark.parametrize("head", ["box", "prompt"])
def test_both_heads_take_a_box(scene, buildings, head):
    torch.manual_seed(0)
    segmenter = Segmenter(small_config(head)).eval()
    card = ModelCard(
        name="untrained",
        config=segmenter.config,
        colors=("#e41a1c", "#377eb8"),
        resolution_m=(0.3, 1.0),
        window_px=128,
        overlap_px=32,
        default_scores=(0.0, 0.0),
    )
    untrained = LoadedModel(card, segmenter, "0" * 64, "cpu", "asked for", torch.float32)
    image = torch.rand(1, 3, 128, 128) * 255
    boxes = torch.tensor([[10.0, 20.0, 60.0, 50.0], [70.0, 70.0, 120.0, 110.0]])
    kept = untrained.encode(image)
    found = untrained.outline(kept, boxes, label=1)
    assert found.labels.tolist() == [1, 1]
    assert found.boxes_xyxy.tolist() == boxes.tolist()
    for patch, box in zip(found.masks, boxes, strict=True):
        low, high = np.array(patch.box_xyxy).reshape(2, 2)
        assert (low <= box[:2].numpy() + 1e-3).all()
        assert (high >= box[2:].numpy() - 1e-3).all()
        assert ((patch.probabilities >= 0) & (patch.probabilities <= 1)).all()
    alone = untrained.outline(kept, boxes[1:], label=1)
    assert torch.allclose(alone.masks[0].probabilities, found.masks[1].probabilities, atol=1e-5)
    assert untrained.outline(kept, boxes).labels.max() < len(CLASSES)


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.sampled_from([32, 96, 384, 512]),
    st.floats(0, 1),
    st.floats(0, 1),
    st.floats(0.01, 0.75),
    st.floats(0.01, 0.75),
)
def test_a_window_lies_in_the_scene_and_holds_its_box(width, height, window_px, x, y, across, down):
    across, down = min(across * window_px, width), min(down * window_px, height)
    left, top = x * (width - across), y * (height - down)
    window = window_around((left, top, left + across, top + down), width, height, window_px)
    assert 0 <= window.col <= left + 1e-6
    assert 0 <= window.row <= top + 1e-6
    assert left + across <= window.col + window.width + 1e-6 <= width + 1e-6
    assert top + down <= window.row + window.height + 1e-6 <= height + 1e-6
    assert (window.width, window.height) == (min(window_px, width), min(window_px, height))


def test_a_coarser_view_shows_the_same_place(scene):
    with Scene.open(scene) as fine:
        coarse = fine.coarser(2)
        assert (coarse.width, coarse.height) == (320, 256)
        assert coarse.transform @ (320, 256) == pytest.approx(fine.transform @ (640, 512))
        assert coarse.resolution_m == pytest.approx(2 * fine.resolution_m)


# Over the protocol.


@pytest.fixture(scope="module")
def engine():
    with Engine() as engine:
        yield engine


def test_the_engine_outlines_what_is_in_a_box(engine, scene, buildings, model):
    request = {"scene": str(scene), "box": list(around(buildings[0])), "regularize": True}
    first, second = (engine.ask("outline", request)["result"] for _ in range(2))
    assert (first["encoded"], second["encoded"]) == (True, False)
    assert first["wkb"] == second["wkb"]
    expected = Outliner().outline(scene, model, OutlineOptions(tuple(request["box"]), regularize=True), proceed)
    assert shapely.from_wkb(first["wkb"]).equals_exact(expected.geometry, 1e-6)
    assert (first["class"], first["area_m2"]) == (expected.class_name, pytest.approx(expected.area_m2))
    refused = engine.ask("outline", {**request, "class": "unicorn"})["error"]
    assert (refused["code"], refused["data"]) == (2, {"kind": "OptionError"})
    named = engine.ask("outline", {**request, "class": "building"})["result"]
    assert (named["class"], named["encoded"]) == ("building", False)


def test_an_outline_that_waits_can_be_cancelled(engine, scene, buildings, untrained_model, soon_s):
    request = {"scene": str(scene), "box": list(around(buildings[0]))}
    running = engine.send("segment", {"scene": str(scene), "window_px": 96, "overlap_px": 48})
    waiting = engine.send("outline", request)
    begun = time.monotonic()
    engine.notify("cancel", {"id": waiting})
    answer, _ = engine.until(waiting)
    assert answer["error"]["code"] == 3
    assert time.monotonic() - begun < soon_s
    engine.notify("cancel", {"id": running})
    engine.until(running)
    assert "result" in engine.ask("outline", request)


ROOF = [(0, 0), (20, 0.4), (20.3, 12), (10, 12), (10, 20), (0, 19.6)]


def test_the_engine_straightens_by_the_rule_of_its_runs(engine):
    crooked = shapely.Polygon([(440_000 + x, 4_640_000 + y) for x, y in ROOF])
    round_one = shapely.Point(440_100, 4_640_000).buffer(9)
    told = [
        {"wkb": shapely.to_wkb(crooked, hex=True), "pixel_m": 0.5},
        {"wkb": shapely.to_wkb(round_one, hex=True), "class": "building"},
        {"wkb": shapely.to_wkb(crooked, hex=True), "class": "ship"},
    ]
    straight, still, ship = engine.ask("reshape", {"features": told, "crs_wkt": "EPSG:32631", "regularize": True})[
        "result"
    ]["features"]
    assert [straight["changed"], still["changed"], ship["changed"]] == [True, False, False]
    shape = shapely.from_wkb(straight["wkb"])
    corners = np.array(shape.geoms[0].exterior.coords)
    edges = np.diff(corners, axis=0)
    edges /= np.linalg.norm(edges, axis=1, keepdims=True)
    assert np.abs((edges[:-1] * edges[1:]).sum(axis=1)).max() < 1e-6
    assert iou(shape, crooked) > 0.85
    assert shapely.from_wkb(still["wkb"]).equals(round_one)
    fewer = engine.ask("reshape", {"features": told[1:2], "crs_wkt": "EPSG:32631", "simplify_m": 0.5})
    (fewer,) = fewer["result"]["features"]
    assert shapely.get_num_coordinates(shapely.from_wkb(fewer["wkb"])) < shapely.get_num_coordinates(round_one)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"features": []}, "nothing to do"),
        ({"features": [], "simplify_m": -1.0}, "0 or more"),
        ({"features": [], "regularize": True, "crs_wkt": "nowhere"}, "is unknown"),
        ({"features": [{"wkb": "00"}], "regularize": True}, "feature 1 is not well-known binary"),
        ({"features": [{"wkb": shapely.to_wkb(shapely.Point(1, 1), hex=True)}], "regularize": True}, "is a Point"),
        (
            {
                "features": [{"wkb": shapely.to_wkb(shapely.box(0, 0, 9, 9), hex=True), "pixel_m": 0}],
                "regularize": True,
            },
            "larger than 0",
        ),
        ({"features": [{"wkb": shapely.to_wkb(shapely.Polygon(), hex=True)}], "regularize": True}, "covers no ground"),
    ],
)
def test_what_cannot_be_reshaped_is_said(engine, params, words):
    error = engine.ask("reshape", {"crs_wkt": "EPSG:32631", **params})["error"]
    assert (error["code"], error["data"]["kind"]) == (2, "OptionError")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("outline", {"scene": "a"}),
        ("outline", {"scene": "a", "box": [1, 2, 3]}),
        ("outline", {"scene": "a", "box": [1, 2, 3, "4"]}),
        ("outline", {"scene": "a", "box": [1, 2, 3, 4], "class": 5}),
        ("reshape", {"features": [], "regularize": True}),
        ("reshape", {"features": [{}], "crs_wkt": "EPSG:4326"}),
        ("reshape", {"features": [{"wkb": "00", "kind": "x"}], "crs_wkt": "EPSG:4326"}),
        ("reshape", {"features": [{"wkb": "00", "pixel_m": True}], "crs_wkt": "EPSG:4326"}),
    ],
)
def test_parameters_are_checked(method, params):
    with pytest.raises(ProtocolError, match=method):
        read_params(method, json.loads(json.dumps(params)))
