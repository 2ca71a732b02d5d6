"""Runs of the panel by QGIS's task manager and the real engine, without a desktop."""

import re
from dataclasses import replace

import pytest
from conftest import write_generated_scenes
from map_server import MapServer
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsSettings,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas

from rs4d_qgis.dock.forecast import forecast
from rs4d_qgis.dock.result_place import choose_place
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.run_state import Phase
from rs4d_qgis.dock.segment_run import RunRefused, SegmentRun
from rs4d_qgis.dock.zone import VISIBLE, Zone, polygons_of, whole_layer
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.layers.results import provenance
from rs4d_qgis.layers.runs import read_runs


@pytest.fixture(scope="session")
def model(provider, untrained_model) -> dict:
    """The untrained model, as the engine tells of it."""
    hello = engine_client().request("hello", {"model_folders": [str(untrained_model.parent)]})
    return next(model for model in hello["models"] if model["path"] == str(untrained_model))


@pytest.fixture
def raster(provider, utm_scene) -> QgsRasterLayer:
    yield QgsProject.instance().addMapLayer(QgsRasterLayer(str(utm_scene), "harbour"))
    QgsProject.instance().clear()
    QgsSettings().remove("rs4d/last")


@pytest.fixture
def start(qtbot, raster, model, tmp_path):
    """Starts a run with a zone and waits for its end; `meanwhile` is called at the first change of a certain kind."""
    canvas = QgsMapCanvas()

    def run(zone, meanwhile=lambda run, state: None, output=tmp_path / "result.gpkg", **more):
        settings = RunSettings(raster.id(), raster.name(), raster.source(), "gdal", zone, model["path"], score=0.01)
        settings = replace(settings, **more)
        one = SegmentRun(settings, model, output, canvas)
        one.changed.connect(lambda state: meanwhile(one, state))
        with qtbot.waitSignal(one.ended, timeout=60_000) as ended:
            one.start()
        return ended.args[0]

    yield run
    canvas.close()
    canvas.deleteLater()


def tree() -> list[str]:
    """Names of groups and layers, from the top."""
    root = QgsProject.instance().layerTreeRoot()
    return [
        name
        for node in root.children()
        for name in (node.name().split(" ")[0], *(child.name() for child in node.children()))
    ]


def test_a_run_becomes_a_layer_on_disk_above_the_imagery(start, raster, model, tmp_path):
    ended = start(whole_layer(raster))
    assert (ended.state.phase, ended.state.kept) == (Phase.DONE, str(tmp_path / "result.gpkg"))
    assert ended.state.found == ended.layer.featureCount() == ended.result["instances"] > 0
    assert tree() == ["harbour", ended.layer.name(), "harbour"]
    assert re.fullmatch(r"harbour instances \d\d:\d\d", ended.layer.name())
    assert ended.layer.crs() == raster.crs()
    assert provenance(ended.layer)["model_sha256"] == model["sha256"]
    assert ended.layer.metadata().abstract()
    runs = QgsVectorLayer(f"{tmp_path / 'result.gpkg'}|layername=runs", "runs", "ogr")
    assert [feature["run"] for feature in runs.getFeatures()] == [provenance(ended.layer)["run"]]
    reopened = QgsVectorLayer(f"{tmp_path / 'result.gpkg'}|layername=instances", "reopened", "ogr")
    assert reopened.renderer().type() == "categorizedSymbol"
    classes = {feature["class"] for feature in ended.layer.getFeatures()}
    assert {category.value() for category in ended.layer.renderer().categories()} - {None, ""} == classes
    assert (
        ended.result["windows_total"]
        == forecast(RunSettings(raster.id(), "", "", "gdal", whole_layer(raster)), model["card"], raster).windows
    )


def test_names_may_hold_dots_and_quotes(start, raster, tmp_path):
    folder = tmp_path / 'L\'Aquila "v1.2"'
    folder.mkdir()
    place = choose_place(str(folder), "/nowhere", "l'ortho 0.5 m")
    ended = start(whole_layer(raster), output=place.path)
    assert (ended.state.phase, ended.state.kept) == (Phase.DONE, str(place.path))
    assert ended.layer.featureCount() == ended.result["instances"] > 0
    assert read_runs(ended.layer)[0]["run"] == ended.result["run"]


def test_only_the_selected_polygons_are_searched(start, raster):
    blocks = QgsVectorLayer("Polygon?crs=EPSG:4326", "blocks", "memory")
    for west in (2.2764, 2.2774):
        feature = QgsFeature()
        feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(west, 41.9085, west + 0.0004, 41.9095)))
        blocks.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(blocks)
    blocks.select(1)
    ended = start(polygons_of(blocks, selected_only=True))
    everywhere = ended.layer.extent()
    blocks.removeSelection()
    both = start(polygons_of(blocks, selected_only=True)).layer.extent()
    assert 0 < everywhere.width() < 60
    assert both.width() > everywhere.width() + 40


def test_tiles_of_a_web_service_are_foreseen_as_they_are_fetched(start, model, tmp_path):
    path = tmp_path / "web.tif"
    write_generated_scenes([(path, (7, 512, 512, 0.6), "EPSG:3857", (0.6, 0.0, 255_000.0, 0.0, -0.6, 5_147_000.0))])
    server = MapServer(path)
    tiles = QgsProject.instance().addMapLayer(QgsRasterLayer(server.xyz_uri, "tiles", "wms"))
    zone = Zone.of(VISIBLE, QgsRectangle(255_050, 5_146_750, 255_200, 5_146_900), tiles.crs())
    settings = RunSettings(tiles.id(), "tiles", tiles.source(), "wms", zone)
    foreseen = forecast(settings, model["card"], tiles)
    assert foreseen.windows > 1
    assert start(zone, layer_id=tiles.id()).result["windows_total"] == foreseen.windows
    world = replace(settings, zone=whole_layer(tiles))
    assert "too much" in forecast(world, model["card"], tiles).refusal
    server.close()


def test_earlier_results_on_the_same_ground_step_back(start, raster, tmp_path):
    def shown(ended):
        node = QgsProject.instance().layerTreeRoot().findLayer(ended.layer.id())
        return node.isVisible(), node.parent().isExpanded()

    first = start(whole_layer(raster))
    second = start(whole_layer(raster), output=tmp_path / "second.gpkg", layer_name="port")
    assert (shown(first), shown(second)) == ((False, False), (True, True))
    assert QgsProject.instance().layerTreeRoot().findLayer(raster.id()).isVisible()


def test_a_run_that_finds_nothing_leaves_nothing(start, raster, tmp_path):
    ended = start(whole_layer(raster), score=1.0)
    assert (ended.state.phase, ended.state.found, ended.layer) == (Phase.DONE, 0, None)
    assert tree() == ["harbour"]
    assert list(tmp_path.glob("*")) == []


@pytest.mark.parametrize(
    "cancel", [SegmentRun.cancel, lambda _: QgsApplication.taskManager().cancelAll()], ids=["in the panel", "in QGIS"]
)
def test_polygons_are_on_the_map_before_the_end_and_cancel_keeps_them(start, raster, cancel):
    live = []

    def cancel_once_seen(run, state):
        if run._live is not None and run._live.live.layer.featureCount():
            live.append(run._live.live.layer.featureCount())
            cancel(run)

    ended = start(whole_layer(raster), cancel_once_seen, resolution_m=0.1)
    assert live
    assert ended.state.phase is Phase.CANCELLED
    assert ended.state.found == ended.layer.featureCount() >= live[0]
    assert ended.result["interrupted"]
    assert tree() == ["harbour", ended.layer.name(), "harbour"]


def test_a_run_does_not_end_in_another_project(start, raster):
    def open_another(run, state):
        if state.found and state.phase is Phase.RUNNING:
            QgsProject.instance().clear()

    ended = start(whole_layer(raster), open_another, resolution_m=0.1)
    assert ended.state.phase is Phase.CANCELLED
    assert ended.state.found > 0
    assert ended.layer is None
    assert tree() == []
    # Whoever opens the file later sees it as it would have been shown.
    layer = QgsVectorLayer(f"{ended.state.kept}|layername=instances", "later", "ogr")
    assert layer.featureCount() == ended.state.found
    assert layer.renderer().type() == "categorizedSymbol"
    assert provenance(layer)["run"] == ended.result["run"]


def test_the_engines_reason_is_told(start, raster):
    ended = start(Zone.of(VISIBLE, QgsRectangle(0, 0, 10, 10), raster.crs()))
    assert ended.state.phase is Phase.FAILED
    assert "scene" in ended.state.line()


def test_a_run_with_a_model_that_is_gone_does_not_start(start, raster, model, tmp_path):
    settings = RunSettings(raster.id(), "harbour", "", "gdal", whole_layer(raster), model="/gone.safetensors")
    run = SegmentRun(settings, model, tmp_path / "result.gpkg", QgsMapCanvas())
    with pytest.raises(RunRefused, match=r"/gone\.safetensors"):
        run.start()
    with pytest.raises(RunRefused):
        SegmentRun(replace(settings, layer_id="gone"), model, tmp_path / "result.gpkg", QgsMapCanvas()).start()


def test_a_run_on_a_layer_that_cannot_be_placed_is_refused_with_the_reason(raster, model, tmp_path):
    path = tmp_path / "points.tif"
    in_a_row = [gdal.GCP(440_000 + col, 4_640_000, 0, col, 0) for col in (0, 10, 20, 30)]
    gdal.Translate(str(path), raster.source(), GCPs=in_a_row, outputSRS=raster.crs().toWkt()).FlushCache()
    layer = QgsProject.instance().addMapLayer(QgsRasterLayer(str(path), "points"))
    settings = RunSettings(layer.id(), "points", "", "gdal", whole_layer(raster), model=model["path"])
    canvas = QgsMapCanvas()
    run = SegmentRun(settings, model, tmp_path / "result.gpkg", canvas, canvas)
    with pytest.raises(RunRefused, match=r"^Layer “points” cannot be read in its place: .*not solvable$"):
        run.start()
    assert not run.state.busy
    canvas.deleteLater()
