"""What the engine writes, as QGIS 3.22 reads it."""

import json
import sys

import pytest
from qgis.core import Qgis, QgsApplication, QgsFeatureRequest, QgsRasterLayer, QgsVectorLayer, QgsWkbTypes


@pytest.fixture
def layer(qgis_app, segmented_scene):
    return QgsVectorLayer(f"{segmented_scene.layer}|layername=instances", "instances", "ogr")


def test_the_layer_opens_without_a_complaint(qgis_app, segmented_scene):
    complaints = []

    def listen(message, tag, level):
        if level in (Qgis.MessageLevel.Warning, Qgis.MessageLevel.Critical):
            complaints.append(f"{tag}: {message}")

    QgsApplication.messageLog().messageReceived[str, str, Qgis.MessageLevel].connect(listen)
    layer = QgsVectorLayer(f"{segmented_scene.layer}|layername=instances", "instances", "ogr")
    assert layer.isValid()
    assert not layer.dataProvider().error().messageList()
    assert complaints == []


def test_it_lies_on_its_scene(layer, segmented_scene):
    raster = QgsRasterLayer(str(segmented_scene.scene), "scene")
    assert raster.isValid()
    assert layer.crs().isValid()
    assert layer.crs() == raster.crs()
    assert raster.extent().buffered(0.01).contains(layer.extent())


def test_fields_have_their_names_and_types(layer):
    types = {field.name(): field.typeName() for field in layer.fields()}
    assert types == {
        "fid": "Integer64",
        "class": "String",
        "score": "Real",
        "status": "String",
        "edited": "Boolean",
        "area_m2": "Real",
        "run": "String",
    }


def test_every_feature_is_whole(layer, segmented_scene):
    assert QgsWkbTypes.displayString(layer.wkbType()) == "MultiPolygon"
    assert layer.featureCount() == segmented_scene.result["instances"] > 0
    counts = {}
    for feature in layer.getFeatures():
        counts[feature["class"]] = counts.get(feature["class"], 0) + 1
        assert feature.geometry().isGeosValid()
        assert 0 <= feature["score"] <= 1
        assert (feature["status"], feature["edited"]) == ("pending", False)
        # On the ellipsoid against on the plane of UTM: its scale is 0.9996 at its middle.
        assert feature["area_m2"] == pytest.approx(feature.geometry().area(), rel=2e-3)
    assert counts == {name: count for name, count in segmented_scene.result["by_class"].items() if count}


def test_the_spatial_index_answers(layer):
    first = next(layer.getFeatures())
    request = QgsFeatureRequest().setFilterRect(first.geometry().boundingBox())
    assert first.id() in {feature.id() for feature in layer.getFeatures(request)}


def test_the_record_of_the_run_can_be_read(layer, segmented_scene):
    runs = QgsVectorLayer(f"{segmented_scene.layer}|layername=runs", "runs", "ogr")
    assert runs.isValid()
    assert runs.wkbType() == QgsWkbTypes.NoGeometry
    (run,) = runs.getFeatures()
    assert {feature["run"] for feature in layer.getFeatures()} == {run["run"]}
    assert run["scene"] == str(segmented_scene.scene)
    assert len(run["model_sha256"]) == 64
    assert json.loads(run["parameters"])["resolution_m"] == pytest.approx(0.5, rel=1e-3)


def test_review_edits_can_be_saved_and_undone(layer):
    first = next(layer.getFeatures())
    status = layer.fields().indexOf("status")
    assert layer.startEditing()
    assert layer.changeAttributeValue(first.id(), status, "rejected")
    layer.undoStack().undo()
    assert layer.getFeature(first.id())["status"] == "pending"
    assert layer.changeAttributeValue(first.id(), status, "accepted")
    assert layer.commitChanges()
    assert layer.getFeature(first.id())["status"] == "accepted"
    layer.startEditing()
    layer.changeAttributeValue(first.id(), status, "pending")
    assert layer.commitChanges()


def test_nothing_of_the_engine_is_in_this_process():
    assert not {"torch", "rasterio", "shapely", "geopandas", "rs4d_core"} & sys.modules.keys()
