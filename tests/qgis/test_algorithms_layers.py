"""`rs4d:evaluate`, `rs4d:postprocess` and `rs4d:export` on layers as they are in QGIS: in memory, filtered, edited."""

import itertools
import json
from pathlib import Path

import pytest
from conftest import run_processing
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsExpressionContextUtils,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingContext,
    QgsProcessingFeatureSourceDefinition,
    QgsProcessingFeedback,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingUtils,
    QgsProject,
    QgsRectangle,
    QgsVectorLayer,
)

from rs4d_qgis.layers.results import result_fields, set_provenance, style_result
from rs4d_qgis.review.reviewed import look

RECORD = {
    "run": "run-1",
    "time": "2026-01-01T12:00:00Z",
    "model": "tiny",
    "model_sha256": "0" * 64,
    "parameters": {"least_scores": {"ship": 0.5, "building": 0.5}},
    "device": "cpu",
    "seconds": 2.5,
}
ORIGIN = (440_000.0, 4_640_000.0)


def box(west: float, south: float, width: float, height: float) -> QgsGeometry:
    """In metres from the corner of the scene, northwards below zero."""
    x, y = ORIGIN[0] + west, ORIGIN[1] + south
    return QgsGeometry.fromRect(QgsRectangle(x, y, x + width, y + height))


def result_layer(*instances, crs: str = "EPSG:32631") -> QgsVectorLayer:
    """A result in memory, of `(geometry, class, score, status)`."""
    layer = QgsVectorLayer(f"MultiPolygon?crs={crs}", "result", "memory")
    layer.dataProvider().addAttributes(result_fields().toList())
    layer.updateFields()
    to_layer = QgsCoordinateTransform(QgsCoordinateReferenceSystem("EPSG:32631"), layer.crs(), QgsProject.instance())
    for geometry, name, score, status in instances:
        feature, shape = QgsFeature(layer.fields()), QgsGeometry(geometry)
        shape.transform(to_layer)
        shape.convertToMultiType()
        feature.setGeometry(shape)
        feature.setAttributes([name, score, status, False, geometry.area(), "run-1"])
        assert layer.dataProvider().addFeature(feature)
    return layer


def reference_layer(*instances, field: str = "class") -> QgsVectorLayer:
    """Polygons of `(geometry, class)`."""
    layer = QgsVectorLayer(f"Polygon?crs=EPSG:32631&field={field}:string", "truth", "memory")
    for geometry, name in instances:
        feature = QgsFeature(layer.fields())
        feature.setGeometry(geometry)
        feature.setAttributes([name])
        layer.dataProvider().addFeature(feature)
    return layer


def run(name: str, **parameters):
    """The results of an algorithm that must succeed, its log, and its output layer."""
    feedback = QgsProcessingFeedback()
    results, ok, context = run_processing(name, parameters, feedback)
    assert ok, feedback.textLog()
    layer = None
    if name == "rs4d:postprocess":
        layer = QgsProcessingUtils.mapLayerFromString(results["OUTPUT"], context)
        context.temporaryLayerStore().takeMapLayer(layer)
    return results, feedback.textLog(), layer


@pytest.fixture
def harbour(provider) -> QgsVectorLayer:
    return result_layer(
        (box(0, -20, 20, 10), "ship", 0.9, "accepted"),
        (box(50, -20, 10, 10), "building", 0.8, "pending"),
        (box(80, -20, 10, 10), "building", 0.4, "rejected"),
        (box(59, -20, 10, 10), "building", 0.6, "accepted"),
    )


def test_evaluation_tells_how_well_layers_agree(harbour, tmp_path):
    truth = reference_layer((box(0, -20, 20, 10), "ship"), (box(50, -20, 10, 10), "building"))
    report = tmp_path / "report.html"
    results, told, _ = run("rs4d:evaluate", PREDICTED=harbour, REFERENCE=truth, REPORT=str(report))
    # Three count, as one was rejected; two of them are right.
    assert (results["PREDICTED_COUNT"], results["REFERENCE_COUNT"], results["MATCHED_COUNT"]) == (3, 2, 2)
    assert results["PRECISION"] == pytest.approx(2 / 3)
    assert results["RECALL"] == 1.0
    assert results["F1"] == pytest.approx(0.8)
    assert results["MEAN_IOU"] == pytest.approx(1.0)
    assert results["AP50"] == pytest.approx(1.0)
    assert "“result”: 1 rejected in review" in told
    page = report.read_text()
    assert "building" in page
    assert "66.7" in page
    assert "/tmp/" not in page


def test_evaluation_writes_figures_for_programs_and_compares_other_class_fields(harbour, tmp_path):
    truth = reference_layer((box(0, -20, 20, 10), "ship"), (box(200, -20, 10, 10), "tank"), field="kind")
    report = tmp_path / "report.json"
    results, _, _ = run(
        "rs4d:evaluate", PREDICTED=harbour, REFERENCE=truth, CLASS_FIELD="kind", IOU=0.75, REPORT=str(report)
    )
    figures = json.loads(report.read_text())
    assert figures["recall"] == results["RECALL"] == 0.5
    assert figures["by_class"]["tank"]["recall"] == 0.0
    assert figures["iou"] == 0.75
    assert (figures["predicted_layer"], figures["reference_layer"]) == ("result", "truth")


def test_evaluation_takes_what_is_selected_or_filtered(harbour):
    truth = reference_layer((box(0, -20, 20, 10), "ship"), (box(300, -20, 10, 10), "building"))
    truth.selectByExpression("\"class\" = 'ship'")
    harbour.setSubsetString("\"class\" = 'ship'")
    selected = QgsProcessingFeatureSourceDefinition(truth.id(), True)
    QgsProject.instance().addMapLayer(truth)
    try:
        results, _, _ = run("rs4d:evaluate", PREDICTED=harbour, REFERENCE=selected)
    finally:
        QgsProject.instance().clear()
    assert (results["PRECISION"], results["RECALL"]) == (1.0, 1.0)


def test_a_layer_that_cannot_be_compared_is_called_by_its_name(harbour):
    feedback = QgsProcessingFeedback()
    nameless = reference_layer((box(0, -20, 20, 10), "ship"))
    nameless.setCrs(QgsCoordinateReferenceSystem())
    _, ok, _ = run_processing("rs4d:evaluate", {"PREDICTED": harbour, "REFERENCE": nameless}, feedback)
    assert not ok
    assert "“truth”: no CRS" in feedback.textLog()


def test_a_layer_is_not_compared_with_itself(harbour):
    algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:evaluate")
    ok, reason = algorithm.checkParameterValues({"PREDICTED": harbour, "REFERENCE": harbour}, QgsProcessingContext())
    assert not ok
    assert "same layer" in reason


def test_cleaning_cuts_by_score_class_and_area(harbour):
    _, _, layer = run("rs4d:postprocess", INPUT=harbour, SCORE=0.5, OUTPUT="TEMPORARY_OUTPUT")
    assert sorted(f["score"] for f in layer.getFeatures()) == [0.6, 0.8, 0.9]
    assert layer.fields().names() == harbour.fields().names()
    assert layer.crs() == harbour.crs()
    _, _, layer = run("rs4d:postprocess", INPUT=harbour, CLASSES="ship, tank", OUTPUT="TEMPORARY_OUTPUT")
    assert [f["class"] for f in layer.getFeatures()] == ["ship"]
    results, _, layer = run("rs4d:postprocess", INPUT=harbour, MIN_AREA=150, OUTPUT="TEMPORARY_OUTPUT")
    assert [f["class"] for f in layer.getFeatures()] == ["ship"]
    assert results["INSTANCES"] == 1


def test_cleaning_takes_classes_as_people_write_them_and_warns_of_what_is_not_there(provider):
    layer = result_layer((box(0, -20, 20, 10), "storage_tank", 0.9, "pending"), (box(50, -20, 9, 9), "ship", 0.8, "x"))
    _, told, cleaned = run("rs4d:postprocess", INPUT=layer, CLASSES="Storage tank", OUTPUT="TEMPORARY_OUTPUT")
    assert [f["class"] for f in cleaned.getFeatures()] == ["storage_tank"]
    assert "nothing of class" not in told
    results, told, _ = run("rs4d:postprocess", INPUT=layer, CLASSES="ships", OUTPUT="TEMPORARY_OUTPUT")
    assert results["INSTANCES"] == 0
    assert "“result”: nothing of class ships in it; it has ship, storage_tank" in told
    assert "0 of 2 polygons" in told


def test_cleaning_merges_what_touches_and_measures_anew(harbour):
    _, _, layer = run("rs4d:postprocess", INPUT=harbour, MERGE=True, OUTPUT="TEMPORARY_OUTPUT")
    buildings = [f for f in layer.getFeatures() if f["class"] == "building" and f["status"] != "rejected"]
    (merged,) = buildings
    assert merged["score"] == 0.8
    assert merged.geometry().area() == pytest.approx(190, rel=1e-3)
    assert merged["area_m2"] == pytest.approx(190, rel=2e-3)


def test_cleaning_measures_metres_in_degrees_too(provider):
    shape = QgsGeometry.fromWkt(
        f"POLYGON(({ORIGIN[0]} {ORIGIN[1]}, {ORIGIN[0] + 10} {ORIGIN[1] + 0.4}, {ORIGIN[0] + 20} {ORIGIN[1]}, "
        f"{ORIGIN[0] + 20} {ORIGIN[1] - 10}, {ORIGIN[0]} {ORIGIN[1] - 10}, {ORIGIN[0]} {ORIGIN[1]}))"
    )
    layer = result_layer((shape, "building", 0.9, "pending"), crs="EPSG:4326")
    for tolerance, points in ((0.2, 6), (1.0, 5)):
        _, _, cleaned = run("rs4d:postprocess", INPUT=layer, SIMPLIFY=tolerance, OUTPUT="TEMPORARY_OUTPUT")
        (feature,) = cleaned.getFeatures()
        assert feature.geometry().constGet().nCoordinates() == points


def test_cleaning_gives_right_angles_and_keeps_fields_of_any_layer(provider, tmp_path):
    layer = QgsVectorLayer("CurvePolygonZ?crs=EPSG:32631&field=fid:integer&field=owner:string(20)", "houses", "memory")
    crooked = QgsGeometry.fromWkt(
        f"PolygonZ(({ORIGIN[0]} {ORIGIN[1]} 5, {ORIGIN[0] + 20} {ORIGIN[1] + 0.8} 5, "
        f"{ORIGIN[0] + 20.5} {ORIGIN[1] - 12} 5, {ORIGIN[0] + 0.4} {ORIGIN[1] - 11.5} 5, {ORIGIN[0]} {ORIGIN[1]} 5))"
    )
    for number in (7, 7):  # a key that is none any more
        feature = QgsFeature(layer.fields())
        feature.setGeometry(crooked)
        feature.setAttributes([number, "Ada"])
        crooked.translate(60, 0)
        layer.dataProvider().addFeature(feature)
    path = tmp_path / "straight.gpkg"
    _, _, straight = run("rs4d:postprocess", INPUT=layer, REGULARIZE=True, OUTPUT=str(path))
    assert straight.fields().names() == ["fid", "owner"]
    features = list(straight.getFeatures())
    assert [f["owner"] for f in features] == ["Ada", "Ada"]
    for feature in features:
        corners = [QgsPointXY(vertex) for vertex in feature.geometry().vertices()]
        assert len(corners) == 5
        directions = [start.azimuth(end) for start, end in itertools.pairwise(corners)]
        turns = [(after - before) % 90 for before, after in itertools.pairwise(directions)]
        assert all(min(turn, 90 - turn) < 1e-5 for turn in turns)


@pytest.fixture
def reviewed(harbour, utm_scene) -> QgsVectorLayer:
    """With its provenance, and an edit that has not been saved."""
    set_provenance(harbour, {**RECORD, "scene": str(utm_scene)})
    style_result(harbour, {"ship": "#e41a1c"})
    harbour.startEditing()
    (ship,) = [f for f in harbour.getFeatures() if f["class"] == "ship"]
    harbour.changeAttributeValue(ship.id(), harbour.fields().indexOf("edited"), True)
    yield harbour
    harbour.rollBack()


def test_what_is_cleaned_up_in_a_review_does_not_look_like_under_review(harbour):
    from processing.gui.Postprocessing import handleAlgorithmResults

    style_result(harbour, {"ship": "#e41a1c"})
    look.put_on(harbour)
    look.set_cuts(harbour, {"ship": 1.0})
    project = QgsProject.instance()
    parameters = {"INPUT": harbour, "OUTPUT": QgsProcessingOutputLayerDefinition("TEMPORARY_OUTPUT", project)}
    results, ok, context = run_processing("rs4d:postprocess", parameters, QgsProcessingFeedback())
    algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:postprocess")
    assert ok
    assert handleAlgorithmResults(algorithm, context, QgsProcessingFeedback(), parameters=parameters)
    try:
        made = project.mapLayer(results["OUTPUT"])
        assert {category.value() or "" for category in made.renderer().categories()} == {"ship", ""}
        assert made.renderer().classAttribute() == "class"
        assert QgsExpressionContextUtils.layerScope(made).variable(look.CUTS_VARIABLE) == "{}"
    finally:
        project.clear()


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".shp"])
def test_export_writes_what_was_accepted(reviewed, tmp_path, suffix):
    path = tmp_path / f"accepted{suffix}"
    results, told, _ = run("rs4d:export", INPUT=reviewed, ACCEPTED=True, OUTPUT=str(path))
    written = QgsVectorLayer(str(path), "written", "ogr")
    assert written.featureCount() == results["INSTANCES"] == 2
    assert f"2 polygons are in {path}" in told
    assert {f["class"]: bool(f["edited"]) for f in written.getFeatures()} == {"ship": True, "building": False}
    assert written.crs().authid() == ("EPSG:4326" if suffix == ".geojson" else "EPSG:32631")


def test_export_to_coco_counts_the_pixels_of_the_scene(reviewed, tmp_path, utm_scene):
    path = tmp_path / "all.json"
    results, _, _ = run("rs4d:export", INPUT=reviewed, OUTPUT=str(path))
    coco = json.loads(path.read_text())
    assert len(coco["annotations"]) == results["INSTANCES"] == 4
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (320, 256)
    ship = next(c["id"] for c in coco["categories"] if c["name"] == "ship")
    (annotation,) = [a for a in coco["annotations"] if a["category_id"] == ship]
    assert annotation["bbox"] == pytest.approx([0, 20, 40, 20])  # 20 x 10 m, of half a metre, 10 m below the corner


def test_export_cuts_chips_to_train_on(reviewed, tmp_path):
    path = tmp_path / "set" / "annotations.json"
    results, _, _ = run("rs4d:export", INPUT=reviewed, ACCEPTED=True, CHIP_PX=128, RESOLUTION=1.0, OUTPUT=str(path))
    coco = json.loads(path.read_text())
    assert results["INSTANCES"] == len({a["object"] for a in coco["annotations"] if not a["iscrowd"]}) == 2
    assert coco["info"]["resolution_m"] == pytest.approx(1.0, rel=0.01)
    assert all((path.parent / "images" / image["file_name"]).is_file() for image in coco["images"])


def test_export_replaces_no_geopackage_and_says_so(reviewed, tmp_path):
    path = tmp_path / "other.gpkg"
    path.write_bytes(b"precious")
    feedback = QgsProcessingFeedback()
    _, ok, _ = run_processing("rs4d:export", {"INPUT": reviewed, "OUTPUT": str(path)}, feedback)
    assert not ok
    assert "is there already" in feedback.textLog()
    assert Path(path).read_bytes() == b"precious"


def test_a_result_of_the_toolbox_is_exported_and_cleaned_with_its_runs(utm_scene, segment, tmp_path):
    found, cleaned, coco = tmp_path / "found.gpkg", tmp_path / "cleaned.gpkg", tmp_path / "found.json"
    result = segment(str(utm_scene), OUTPUT=str(found))
    run("rs4d:export", INPUT=str(found), OUTPUT=str(coco))
    assert len(json.loads(coco.read_text())["annotations"]) == result.layer.featureCount()
    run("rs4d:postprocess", INPUT=str(found), MERGE=True, OUTPUT=str(cleaned))
    runs = QgsVectorLayer(f"{cleaned}|layername=runs", "runs", "ogr")
    assert [row["run"] for row in runs.getFeatures()] == [result.results["RUN"]]
