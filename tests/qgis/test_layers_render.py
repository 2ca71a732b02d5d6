"""Layers that are no files, as the engine gets them."""

import time
from pathlib import Path

import pytest
from conftest import assert_same_place, write_generated_scenes
from map_server import HALF_WORLD, MapServer
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsFeedback,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)

from rs4d_qgis.layers.errors import RenderCancelled, RenderError
from rs4d_qgis.layers.render import Rendering, choose_offered
from rs4d_qgis.layers.source import ground_resolution_m

ZOOM = 18
PIXEL = 2 * HALF_WORLD / 256 / 2**ZOOM  # 0.597 m, on the equator also on the ground
TILE = 256 * PIXEL
LEFT, TOP = 2**17 + 300, 2**17 - 40  # the first tile of the scene
EXPECTED_M = (0.3, 1.0)


@pytest.fixture(scope="module")
def web_scene(tmp_path_factory) -> Path:
    """Two by two tiles of zoom 18, near the equator."""
    corner = LEFT * TILE - HALF_WORLD, HALF_WORLD - TOP * TILE
    path = tmp_path_factory.mktemp("web") / "scene.tif"
    place = (PIXEL, 0.0, corner[0], 0.0, -PIXEL, corner[1])
    write_generated_scenes([(path, (7, 512, 512, 0.6), "EPSG:3857", place)])
    return path


@pytest.fixture
def server(qgis_app, web_scene):
    server = MapServer(web_scene)
    yield server
    server.close()


def xyz_layer(server: MapServer) -> QgsRasterLayer:
    layer = QgsRasterLayer(server.xyz_uri, "tiles", "wms")
    assert layer.isValid()
    return layer


def extent_of(path: Path) -> QgsRectangle:
    return QgsRasterLayer(str(path), "scene").extent()


def nothing(*_) -> None:
    pass


def test_xyz_tiles_give_the_polygons_of_the_file_they_were_cut_from(server, web_scene, segment):
    direct = segment(str(web_scene))
    fetched = segment(xyz_layer(server), EXTENT=extent_of(web_scene))
    assert fetched.layer.crs().authid() == "EPSG:3857"
    assert len(direct.shapes) > 0
    assert [shape[0] for shape in fetched.shapes] == [shape[0] for shape in direct.shapes]
    assert_same_place(fetched, direct, 0.9999)
    assert "terms" in fetched.told
    assert {path.split("/")[1] for path in server.asked} == {str(ZOOM)}


@pytest.fixture
def in_background(qgis_app, provider, untrained_model):
    """Runs `rs4d:segment` as dialog and panel do: on a thread of the task manager, while the main thread handles
    events. Gives whether it came to its end, and its results."""

    def run(layer: QgsRasterLayer, extent: QgsRectangle, feedback: QgsProcessingFeedback, meanwhile=nothing):
        context, ended = QgsProcessingContext(), []
        context.setProject(QgsProject.instance())
        algorithm = QgsApplication.processingRegistry().createAlgorithmById("rs4d:segment")
        parameters = {
            "INPUT": layer,
            "MODEL": str(untrained_model),
            "EXTENT": extent,
            "OUTPUT": "TEMPORARY_OUTPUT",
        }
        task = QgsProcessingAlgRunnerTask(algorithm, parameters, context, feedback)
        task.executed.connect(lambda ok, results: ended.append((ok, results)))
        QgsApplication.taskManager().addTask(task)
        until = time.monotonic() + 60
        while not ended and time.monotonic() < until:
            qgis_app.processEvents()
            meanwhile()
            time.sleep(0.01)
        return ended[0]

    return run


def test_tiles_are_fetched_in_the_background(server, web_scene, segment, in_background):
    feedback = QgsProcessingFeedback(False)
    ok, results = in_background(xyz_layer(server), extent_of(web_scene), feedback)
    assert ok, feedback.textLog()
    assert results["INSTANCES"] == segment(str(web_scene)).results["INSTANCES"] > 0


@pytest.mark.parametrize("kind", ["xyz", "wms"])
def test_a_slow_server_is_not_waited_for_once_cancelled(server, web_scene, in_background, kind, soon_s):
    layer = QgsRasterLayer(getattr(server, f"{kind}_uri"), "slow", "wms")
    server.delay_s = 8.0
    feedback, cancelled_at = QgsProcessingFeedback(False), []

    def cancel():
        if server.asked and not cancelled_at:
            cancelled_at.append(time.monotonic())
            feedback.cancel()

    ok, _ = in_background(layer, extent_of(web_scene), feedback, cancel)
    assert not ok
    assert time.monotonic() - cancelled_at[0] < soon_s


def test_a_part_of_an_xyz_layer(server, web_scene, segment):
    part = extent_of(web_scene)
    part.setXMaximum(part.xMinimum() + 150)
    part.setYMinimum(part.yMaximum() - 100)
    direct = segment(str(web_scene), EXTENT=part)
    assert_same_place(segment(xyz_layer(server), EXTENT=part), direct, 0.9999)


def test_a_refused_tile_is_counted_and_the_rest_is_read(server, web_scene, segment):
    server.refused.add((ZOOM, LEFT + 1, TOP))
    fetched = segment(xyz_layer(server), EXTENT=extent_of(web_scene))
    assert "1 of 4 tiles of layer “tiles” are empty or were refused" in fetched.told
    hole = QgsRectangle(extent_of(web_scene))
    hole.setXMinimum(hole.center().x())
    hole.setYMinimum(hole.center().y())
    shapes = [feature.geometry() for feature in fetched.layer.getFeatures()]
    assert shapes
    assert all(shape.intersection(shape.fromRect(hole)).area() < 0.5 * shape.area() for shape in shapes)


def test_a_service_that_gives_nothing_is_an_error(server, web_scene, tmp_path):
    server.refused = {(ZOOM, LEFT + x, TOP + y) for x in (0, 1) for y in (0, 1)}
    rendering = Rendering(xyz_layer(server))
    grid = rendering.plan(extent_of(web_scene), EXPECTED_M)
    with pytest.raises(RenderError, match="gave no picture"):
        rendering.write(grid, tmp_path / "scene.tif", QgsFeedback(), nothing)


def test_too_large_an_extent_is_refused_before_anything_is_fetched(server):
    rendering = Rendering(xyz_layer(server))
    with pytest.raises(RenderError, match="smaller extent"):
        rendering.plan(None, EXPECTED_M)
    assert server.asked == []


def test_a_cancel_ends_the_fetching(server, web_scene, tmp_path):
    rendering, feedback = Rendering(xyz_layer(server)), QgsFeedback()
    grid = rendering.plan(extent_of(web_scene), EXPECTED_M)
    feedback.cancel()
    with pytest.raises(RenderCancelled):
        rendering.write(grid, tmp_path / "scene.tif", feedback, nothing)


def test_wms_is_asked_for_the_resolution_that_was_wanted(server, web_scene, segment):
    layer = QgsRasterLayer(server.wms_uri, "maps", "wms")
    assert layer.isValid()
    own_m = ground_resolution_m(QgsRasterLayer(str(web_scene), "scene"))
    fetched = segment(layer, RESOLUTION=own_m, EXTENT=extent_of(web_scene))
    assert_same_place(fetched, segment(str(web_scene)), 0.9999)
    assert all("GetMap" in path for path in server.asked)


def test_a_virtual_raster_is_read_with_its_values(utm_scene, segment):
    file = QgsRasterLayer(str(utm_scene), "scene")
    place = file.extent().toString(6).replace(" : ", ",")
    size = f"width={file.width()}&height={file.height()}"
    uri = f'?crs=EPSG:32631&extent={place}&{size}&formula="a@1"&a:uri={utm_scene}&a:provider=gdal'
    layer = QgsRasterLayer(uri, "virtual", "virtualraster")
    assert layer.isValid()
    virtual = segment(layer)
    # The same values, of another type, which the engine stretches: so the polygons are others, but lie on the scene.
    assert virtual.layer.crs().authid() == "EPSG:32631"
    assert virtual.layer.featureCount() > 0
    assert file.extent().buffered(0.01).contains(virtual.layer.extent())


def test_a_raster_in_memory_gives_the_polygons_of_its_file(utm_scene, segment):
    gdal.Translate("/vsimem/memory.tif", str(utm_scene))
    try:
        layer = QgsRasterLayer("/vsimem/memory.tif", "memory")
        assert segment(layer).shapes == segment(str(utm_scene)).shapes
    finally:
        gdal.Unlink("/vsimem/memory.tif")


@pytest.mark.parametrize(
    ("wanted", "chosen"),
    [(None, 0.6), (0.3, 0.3), (0.5, 0.3), (2.0, 1.2), (0.1, 0.3)],
)
def test_of_the_resolutions_of_a_service_the_one_that_suits_is_taken(wanted, chosen):
    assert choose_offered([0.3, 0.6, 1.2, 2.4], (0.3, 1.0), wanted) == chosen


def test_without_a_fitting_resolution_the_next_finer_is_taken():
    assert choose_offered([0.2, 1.1], (0.3, 1.0), None) == 0.2
    assert choose_offered([2.0, 4.0], (0.3, 1.0), None) == 2.0
