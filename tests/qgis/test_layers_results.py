"""The layer that a run becomes, in a project."""

import pytest
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsExpressionContext,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsRectangle,
    QgsRenderContext,
    QgsVectorLayer,
)

from rs4d_qgis.layers.class_names import as_known
from rs4d_qgis.layers.live import LiveLayer
from rs4d_qgis.layers.results import (
    add_to_group,
    provenance,
    result_fields,
    set_provenance,
    style_result,
)
from rs4d_qgis.layers.runs import read_runs, write_runs

COLORS = {"ship": "#e41a1c", "building": "#377eb8"}
RECORD = {
    "run": "20260101T120000-abcdef",
    "time": "2026-01-01T12:00:00Z",
    "model": "tiny",
    "model_sha256": "0" * 64,
    "parameters": {"score": 0.5, "least_scores": {"ship": 0.5}},
    "scene": "/data/harbour.tif",
    "device": "cpu",
    "seconds": 2.5,
}


@pytest.fixture
def project(qgis_app):
    yield QgsProject.instance()
    QgsProject.instance().clear()


def instance(name: str, score: float) -> QgsFeature:
    feature = QgsFeature(result_fields())
    feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(0, 0, 10, 10)))
    feature.setAttributes([name, score, "pending", False, 100.0, "run"])
    return feature


@pytest.fixture
def layer(qgis_app) -> QgsVectorLayer:
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:32631", "instances", "memory")
    layer.dataProvider().addAttributes(result_fields().toList())
    layer.updateFields()
    layer.dataProvider().addFeatures([instance("ship", 0.876), instance("zebra", 0.5)])
    style_result(layer, COLORS)
    return layer


def test_every_class_has_its_colour_and_unknown_ones_are_shown_too(layer):
    renderer, context = layer.renderer(), QgsRenderContext()
    renderer.startRender(context, layer.fields())
    colors = {
        feature["class"]: renderer.symbolForFeature(feature, context).symbolLayer(0).strokeColor().name()
        for feature in layer.getFeatures()
    }
    renderer.stopRender(context)
    assert colors == {"ship": "#e41a1c", "zebra": "#808080"}
    assert renderer.categories()[0].symbol().symbolLayer(0).fillColor().alpha() < 100


def test_the_legend_names_classes_as_people_do(layer):
    style_result(layer, {"storage_tank": "#e41a1c"})
    category = layer.renderer().categories()[0]
    assert (category.value(), category.label()) == ("storage_tank", "storage tank")
    assert as_known(["Storage Tank", "storage_tank", "ship"], ["storage_tank"]) == [
        "storage_tank",
        "storage_tank",
        "ship",
    ]


def test_scores_are_labels_at_close_zoom_only(layer):
    labels = layer.labeling().settings()
    assert layer.labelsEnabled()
    assert labels.scaleVisibility
    assert labels.minimumScale == 1000
    context = QgsExpressionContext()
    context.setFeature(next(layer.getFeatures()))
    assert labels.getLabelExpression().evaluate(context) == "0.88"


def test_results_lie_above_the_imagery_in_a_group_of_the_run(project, layer):
    imagery = QgsVectorLayer("Polygon", "imagery", "memory")
    project.addMapLayer(imagery)
    group = add_to_group(layer, "scene, 12:00:00")
    root = project.layerTreeRoot()
    assert root.children()[0] is group
    assert [node.layerId() for node in group.findLayers()] == [layer.id()]
    # A layer that is somewhere else moves.
    project.addMapLayer(other := QgsVectorLayer("Polygon", "other", "memory"))
    add_to_group(other, "scene, 12:00:00")
    assert [node.layerId() for node in group.findLayers()] == [other.id(), layer.id()]
    assert len(root.findLayers()) == 3


def test_provenance_is_told_to_people_and_to_programs(layer):
    set_provenance(layer, RECORD)
    assert provenance(layer) == RECORD
    assert provenance(QgsVectorLayer("Polygon", "other", "memory")) is None
    metadata = layer.metadata()
    assert metadata.identifier() == RECORD["run"]
    assert "/data/harbour.tif" in metadata.abstract()
    assert any('"score": 0.5' in line for line in metadata.history())


def test_runs_travel_in_the_geopackage_and_else_with_the_layer(layer, segmented_scene, tmp_path):
    path = tmp_path / "result.gpkg"
    assert write_runs(path, [RECORD]) is None
    written = QgsVectorLayer(f"{path}|layername=runs", "runs", "ogr")
    (row,) = written.getFeatures()
    assert (row["run"], row["seconds"]) == (RECORD["run"], 2.5)
    assert read_runs(layer) == []
    set_provenance(layer, RECORD)
    assert read_runs(layer) == [RECORD]
    engines = QgsVectorLayer(f"{segmented_scene.layer}|layername=instances", "instances", "ogr")
    (run,) = read_runs(engines)
    assert run["scene"] == str(segmented_scene.scene)


def test_a_live_layer_grows_and_outlives_its_removal(project):
    live = LiveLayer("found", "scene, 12:00:00", result_fields(), QgsCoordinateReferenceSystem("EPSG:32631"), COLORS)
    live.add([instance("ship", 0.9)])
    live.add([instance("building", 0.8), instance("ship", 0.7)])
    assert live.layer.featureCount() == 3
    assert live.layer.crs().authid() == "EPSG:32631"
    assert project.layerTreeRoot().findLayer(live.layer.id()).parent().name() == "scene, 12:00:00"
    project.removeMapLayer(live.layer)
    assert live.layer is None
    live.add([instance("ship", 0.6)])
