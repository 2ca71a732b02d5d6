"""Predicted layer against reference layer."""

import contextlib
import io
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from shapely import affinity
from shapely.geometry import Point, Polygon, box

from rs4d_core.errors import LayerError, OptionError, OutputError
from rs4d_core.evaluation.layer_errors import find_mistakes
from rs4d_core.evaluation.layer_matching import Matcher
from rs4d_core.evaluation.layer_metrics import evaluate_layers
from rs4d_core.evaluation.score_curve import score_curve

UTM = "EPSG:32636"
ORIGIN = (452_000.0, 35_000.0)


def square(x: float, y: float, side: float = 10.0):
    return box(ORIGIN[0] + x, ORIGIN[1] + y, ORIGIN[0] + x + side, ORIGIN[1] + y + side)


def write(path: Path, geometries: list, crs: str | None = UTM, **fields) -> Path:
    gpd.GeoDataFrame(fields, geometry=geometries, crs=crs).to_file(path, layer="instances", engine="pyogrio")
    return path


def test_counts_classes_and_overlaps(tmp_path):
    predicted = write(
        tmp_path / "predicted.gpkg",
        # found, found a second time with a lower score, half beside, wrong class, nothing there
        [square(0, 0), square(0, 1), square(105, 0), square(200, 0), square(500, 0)],
        **{"class": ["building", "building", "building", "ship", "ship"], "score": [0.9, 0.8, 0.7, 0.6, 0.5]},
    )
    reference = write(
        tmp_path / "reference.gpkg",
        [square(0, 0), square(100, 0), square(200, 0), square(300, 0)],
        **{"class": ["building", "building", "building", "tank"]},
    )
    result = evaluate_layers(predicted, reference)
    assert (result.overall.predicted, result.overall.reference, result.overall.matched) == (5, 4, 1)
    assert result.overall.precision == pytest.approx(1 / 5)
    assert result.overall.recall == pytest.approx(1 / 4)
    assert result.overall.f1 == pytest.approx(2 / 9)
    assert result.overall.mean_iou == pytest.approx(1.0)
    # One of three buildings at full precision: recalls 0.00 to 0.33 of 101.
    assert result.by_class["building"].ap50 == pytest.approx(34 / 101)
    assert result.by_class["tank"].ap50 == 0
    assert result.by_class["ship"].ap50 is None
    assert result.by_class["ship"].precision == 0
    assert result.overall.ap50 == pytest.approx(34 / 101 / 2)
    assert "ship" in " ".join(result.notes)
    # Half a side beside: IoU 1/3, a match once the threshold asks for no more than that.
    assert evaluate_layers(predicted, reference, iou=0.3).by_class["building"].matched == 2


def test_reference_in_degrees_without_classes_is_the_same_ground(tmp_path):
    squares = [square(0, 0), square(40, 0), square(0, 70)]
    predicted = write(tmp_path / "p.gpkg", squares, **{"class": ["ship"] * 3, "score": [0.5] * 3})
    reference = tmp_path / "r.geojson"
    gpd.GeoDataFrame(geometry=squares, crs=UTM).to_crs("EPSG:4326").to_file(reference, engine="pyogrio")
    for first, second in ((predicted, reference), (reference, predicted)):
        result = evaluate_layers(first, second, iou=0.99)
        assert result.overall.f1 == 1
        assert result.overall.ap == 1
        assert not result.by_class
        assert any("classes were not compared" in note for note in result.notes)


def test_what_was_rejected_in_review_is_in_neither_layer(tmp_path):
    squares = [square(0, 0), square(100, 0), square(200, 0)]
    predicted = write(tmp_path / "predicted.gpkg", squares[:2], score=[0.9, 0.8])
    reference = write(tmp_path / "reference.gpkg", squares, status=["accepted", "accepted", "rejected"])
    errors = tmp_path / "errors.gpkg"
    result = evaluate_layers(predicted, reference, errors=errors)
    assert (result.overall.recall, result.overall.ap50) == (1, 1)
    assert f"{reference}: 1 rejected in review, not counted" in result.notes
    assert not any(result.errors.values())


def test_numbers_of_classes_are_the_same_where_one_is_missing(tmp_path):
    squares = [square(0, 0), square(100, 0), square(200, 0)]
    predicted = write(tmp_path / "predicted.gpkg", squares[:2], **{"class": [1, 2]})
    reference = write(tmp_path / "reference.gpkg", squares, **{"class": pd.array([1, 2, None], dtype="Int64")})
    assert evaluate_layers(predicted, reference).overall.matched == 2


def test_class_field_of_the_reference(tmp_path):
    predicted = write(tmp_path / "p.gpkg", [square(0, 0)], **{"class": ["ship"], "score": [1.0]})
    reference = write(tmp_path / "r.gpkg", [square(0, 0)], kind=["ship"])
    assert list(evaluate_layers(predicted, reference, class_field="kind").by_class) == ["ship"]
    with pytest.raises(LayerError, match=r"no field 'type'; it has kind"):
        evaluate_layers(predicted, reference, class_field="type")


def test_what_is_broken_is_repaired_and_said(tmp_path):
    x, y = ORIGIN
    bow_tie = Polygon([(x, y), (x + 10, y + 10), (x + 10, y), (x, y + 10)])
    predicted = write(
        tmp_path / "p.gpkg",
        [bow_tie, None, Point(x, y), square(50, 0), square(90, 0)],
        status=["pending", "pending", "pending", "accepted", "rejected"],
    )
    reference = write(tmp_path / "r.gpkg", [bow_tie.buffer(0), square(50, 0), square(90, 0)])
    result = evaluate_layers(predicted, reference, iou=0.3)
    assert (result.overall.predicted, result.overall.matched) == (2, 2)
    notes = " ".join(result.notes)
    for said in ("1 feature with invalid geometry repaired", "without geometry", "not polygons", "1 rejected"):
        assert said in notes


@pytest.mark.parametrize(("found", "truth"), [(0, 0), (0, 2), (2, 0)])
def test_empty_layers_give_zeros_and_none(tmp_path, found, truth):
    squares = [square(0, 0), square(30, 0)]
    predicted = write(tmp_path / "p.gpkg", squares[:found], **{"class": ["a"] * found, "score": [0.5] * found})
    reference = write(tmp_path / "r.gpkg", squares[:truth], **{"class": ["a"] * truth})
    overall = evaluate_layers(predicted, reference).overall
    assert (overall.predicted, overall.reference, overall.matched, overall.mean_iou) == (found, truth, 0, None)
    assert overall.ap50 == (0 if truth else None)
    assert overall.precision == (0 if found else None)
    assert overall.recall == (0 if truth else None)
    assert overall.f1 == (0 if found or truth else None)


def test_every_error_is_in_the_file_once(tmp_path):
    predicted = write(
        tmp_path / "p.gpkg",
        # found, found again, half beside, a tank called ship, nothing there, rejected
        [square(0, 0), square(1, 0), square(105, 0), square(200, 0), square(500, 0), square(900, 0)],
        **{
            "class": ["building", "building", "building", "ship", "ship", "ship"],
            "score": [0.9, 0.8, 0.7, 0.6, 0.5, 0.4],
            "status": ["pending"] * 5 + ["rejected"],
        },
    )
    reference = tmp_path / "r.geojson"
    truth = [square(0, 0), square(100, 0), square(200, 0), square(300, 0)]
    gpd.GeoDataFrame({"class": ["building", "building", "tank", "tank"]}, geometry=truth, crs=UTM).to_crs(
        "EPSG:4326"
    ).to_file(reference, engine="pyogrio")
    result = evaluate_layers(predicted, reference, errors=tmp_path / "errors.gpkg")
    assert result.errors == {"missed": 1, "false": 2, "badly shaped": 1, "wrong class": 1}
    written = gpd.read_file(tmp_path / "errors.gpkg", layer="errors")
    assert written.crs == UTM
    fields = written.drop(columns=["geometry", "iou"])
    told = list(fields.astype(object).where(fields.notna(), None).itertuples(index=False, name=None))
    assert told == [
        ("missed", None, "tank", None),
        ("false", "building", None, 0.8),
        ("badly shaped", "building", "building", 0.7),
        ("wrong class", "ship", "tank", 0.6),
        ("false", "ship", None, 0.5),
    ]
    assert written["iou"][2:4].tolist() == pytest.approx([1 / 3, 1.0], abs=1e-3)
    assert written.geometry[0].centroid.distance(square(300, 0).centroid) < 0.01
    with pytest.raises(OutputError, match="is there already"):
        evaluate_layers(predicted, reference, errors=tmp_path / "errors.gpkg")
    with pytest.raises(OptionError, match=r"ends in \.gpkg"):
        evaluate_layers(predicted, reference, errors=tmp_path / "errors.shp")


def test_the_curve_is_what_a_cut_at_each_score_would_leave(tmp_path):
    found = [square(0, 0), square(100, 0), square(200, 0), square(500, 0), square(600, 0)]
    scores = [0.9, 0.8, 0.8, 0.6, 0.3]
    reference = write(tmp_path / "r.gpkg", [square(0, 0), square(201, 0), square(600, 0), square(700, 0)])
    curve = evaluate_layers(write(tmp_path / "p.gpkg", found, score=scores), reference).overall.curve
    assert curve.score == (0.9, 0.8, 0.6, 0.3)
    for score, precision, recall in zip(curve.score, curve.precision, curve.recall, strict=True):
        kept = [(shape, value) for shape, value in zip(found, scores, strict=True) if value >= score]
        cut = write(tmp_path / f"{score}.gpkg", [shape for shape, _ in kept], score=[value for _, value in kept])
        overall = evaluate_layers(cut, reference).overall
        assert (precision, recall) == pytest.approx((overall.precision, overall.recall))


def test_an_unknown_score_is_no_score_of_zero(tmp_path):
    found = [square(500, 0), square(0, 0), square(100, 0)]
    reference = write(tmp_path / "r.gpkg", [square(0, 0), square(100, 0)])
    predicted = write(tmp_path / "p.gpkg", found, score=[None, 0.9, 0.4])
    result = evaluate_layers(predicted, reference, errors=tmp_path / "errors.gpkg")
    assert (result.overall.predicted, result.overall.matched) == (3, 2)
    assert result.overall.curve.score == (0.9, 0.4)
    assert result.overall.curve.precision == (1.0, 1.0)
    written = gpd.read_file(tmp_path / "errors.gpkg", layer="errors")
    assert written["score"].isna().tolist() == [True]
    for name, scores in (("none", {"score": [None] * 3}), ("no field", {})):
        alike = evaluate_layers(write(tmp_path / f"{name}.gpkg", found, **scores), reference).overall
        assert (alike.curve, alike.matched) == (None, 2)


def test_a_thousand_scores_are_a_hundred_points():
    scores, hits = np.linspace(1, 0, 1000), np.arange(1000) % 3 == 0
    curve = score_curve(scores, hits, 400)
    assert len(curve.score) == 100
    assert (curve.score[0], curve.score[-1], curve.recall[-1]) == (1.0, 0.0, 334 / 400)
    assert score_curve(scores, hits, 0) is score_curve(scores[:0], hits[:0], 400) is None


@st.composite
def crowded_classes(draw):
    def some():
        count = draw(st.integers(0, 8))
        boxes = [
            box(x, y, x + draw(st.integers(2, 6)), y + draw(st.integers(2, 6)))
            for x, y in ((draw(st.integers(0, 12)), draw(st.integers(0, 12))) for _ in range(count))
        ]
        return np.array(boxes, dtype=object), np.array([draw(st.sampled_from("ab")) for _ in boxes], dtype=object)

    found, truth = some(), some()
    return found, np.array([draw(st.sampled_from((0.2, 0.5, 0.9))) for _ in found[0]]), truth


@settings(max_examples=60)
@given(crowded_classes(), st.sampled_from((0.05, 0.3, 0.5)))
def test_every_polygon_is_matched_or_in_exactly_one_error(case, iou):
    (found, found_classes), scores, (truth, truth_classes) = case
    matcher = Matcher(found, scores, found_classes, truth, truth_classes)
    mistakes = find_mistakes(matcher, iou)
    matched = [match for match in matcher.match(matcher.ranked(None), iou) if match]
    predictions = [m.found for m in mistakes if m.found is not None]
    references = [m.truth for m in mistakes if m.truth is not None]
    assert len(set(predictions)) == len(predictions) == len(found) - len(matched)
    assert sorted([*references, *(j for _, j in matched)]) == list(range(len(truth)))
    for m in mistakes:
        assert (m.kind == "missed") == (m.found is None)
        assert (m.kind in ("missed", "false")) == (m.iou == 0.0)


def test_a_field_of_numbers_is_no_class_field(tmp_path):
    many = write(tmp_path / "r.gpkg", [square(20 * i, 0) for i in range(1001)], id=[str(i) for i in range(1001)])
    predicted = write(tmp_path / "p.gpkg", [square(0, 0)], **{"class": ["ship"]})
    with pytest.raises(LayerError, match="1002 different classes"):
        evaluate_layers(predicted, many, class_field="id")


def test_refusals_name_the_input_and_the_mend(tmp_path):
    good = write(tmp_path / "good.gpkg", [square(0, 0)])
    nowhere = write(tmp_path / "nowhere.gpkg", [square(0, 0)], crs=None)
    points = write(tmp_path / "points.gpkg", [Point(ORIGIN)])
    text = tmp_path / "text.gpkg"
    text.write_text("not a layer")
    two = write(tmp_path / "two.gpkg", [square(0, 0)])
    for name in ("a", "b"):
        gpd.GeoDataFrame(geometry=[square(0, 0)], crs=UTM).to_file(tmp_path / "other.gpkg", layer=name)
    assert evaluate_layers(f"{tmp_path / 'other.gpkg'}|layername=b", two).overall.matched == 1
    for layer, message in (
        (tmp_path / "missing.gpkg", "no such file"),
        (tmp_path / ("long" * 100), "no such file"),
        (nowhere, "no CRS"),
        (points, "no polygon"),
        (text, "not a vector layer"),
        (tmp_path / "other.gpkg", r"2 layers \(a, b\); name one"),
        (f"{two}|layername=x", "no layer 'x'; it has instances"),
    ):
        with pytest.raises(LayerError, match=message):
            evaluate_layers(good, layer)
    with pytest.raises(OptionError, match="out of range"):
        evaluate_layers(good, good, iou=0)


@st.composite
def scored_boxes(draw):
    count = draw(st.integers(1, 8))
    truth = [(30.0 * i, 0.0, 20.0, 20.0) for i in range(count)]
    found = [
        (x + draw(st.integers(-8, 8)), draw(st.integers(-3, 3)), 20.0, 20.0 + draw(st.integers(-4, 4)))
        for x, *_ in truth
        for _ in range(draw(st.integers(0, 3)))
    ]
    scores = draw(st.permutations(range(1, len(found) + 1)))
    return truth, found, [score / 100 for score in scores]


@settings(max_examples=40, deadline=None)
@given(scored_boxes())
def test_average_precision_is_that_of_pycocotools(tmp_path_factory, case):
    truth, found, scores = case
    if not found:
        return
    folder = tmp_path_factory.mktemp("ap")

    def polygons(boxes):
        return [affinity.translate(box(x, y, x + w, y + h), *ORIGIN) for x, y, w, h in boxes]

    result = evaluate_layers(
        write(folder / "p.gpkg", polygons(found), score=scores), write(folder / "r.gpkg", polygons(truth))
    )
    image = {"id": 1, "width": 1000, "height": 100}
    with contextlib.redirect_stdout(io.StringIO()):
        sides = []
        for boxes in (truth, found):
            coco = COCO()
            coco.dataset = {
                "images": [image],
                "categories": [{"id": 1}],
                "annotations": [
                    {"id": i, "image_id": 1, "category_id": 1, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0}
                    for i, b in enumerate(boxes, 1)
                ],
            }
            coco.createIndex()
            sides.append(coco)
        for annotation, score in zip(sides[1].dataset["annotations"], scores, strict=True):
            annotation["score"] = score
        run = COCOeval(sides[0], sides[1], "bbox")
        run.evaluate()
        run.accumulate()
    precision = run.eval["precision"][:, :, 0, 0, -1]
    expected = (precision.mean(), precision[0].mean(), precision[5].mean())
    assert (result.overall.ap, result.overall.ap50, result.overall.ap75) == pytest.approx(expected)
