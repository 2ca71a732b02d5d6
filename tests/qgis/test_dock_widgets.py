"""The panel's parts with real QGIS objects: the zone in other CRSs, drawing, following, what comes back."""

import pytest
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsProcessingContext,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsSettings,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas, QgsMapToolPan, QgsRubberBand
from qgis.PyQt.QtCore import QEvent, QPoint, QPointF, Qt
from qgis.PyQt.QtGui import QMouseEvent
from qgis.PyQt.QtTest import QSignalSpy, QTest
from qgis.PyQt.QtWidgets import QApplication

from rs4d_qgis.dock.draw_tool import RECTANGLE_COLOR
from rs4d_qgis.dock.engine_line import EngineLine
from rs4d_qgis.dock.extent_chooser import ExtentChooser
from rs4d_qgis.dock.forecast import forecast
from rs4d_qgis.dock.live_layer import PacedLayer
from rs4d_qgis.dock.looked_at import raster_looked_at
from rs4d_qgis.dock.model_card import card_html
from rs4d_qgis.dock.past_runs import PastRun
from rs4d_qgis.dock.run_box import RunBox
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.segment_run import parameters
from rs4d_qgis.dock.settings_form import SettingsForm
from rs4d_qgis.dock.zone import DRAWN, POLYGONS, VISIBLE, WHOLE, Zone, polygons_of, whole_layer
from rs4d_qgis.layers.live import LiveLayer
from rs4d_qgis.layers.results import result_fields

UTM, DEGREES, MERCATOR = (QgsCoordinateReferenceSystem(f"EPSG:{code}") for code in (32631, 4326, 3857))
CARD = {
    "config": {"classes": ["ship", "building"]},
    "colors": ["#0082c8", "#ff6f61"],
    "default_scores": [0.4, 0.6],
    "resolution_m": [0.3, 0.7],
    "window_px": 384,
    "overlap_px": 96,
    "bands": ["red", "green", "blue"],
    "training_data": [
        {"name": "harbours", "licence": "CC BY 4.0 <where stated>"},
        {"name": "roofs", "licence": "not told", "via": "older-model"},
    ],
    "metrics": {
        "harbours": {
            "images": 40,
            "mask": {"ap": 0.25, "ap50": 0.5},
            "by_class": {"ship": {"box_ap50": 0.7, "mask_ap50": 0.63}},
        }
    },
}
MODELS = [
    {"path": "/models/default.safetensors", "name": "default", "sha256": "d" * 64, "card": CARD},
    {"path": "/models/broken.safetensors", "error": "it is truncated"},
    {"path": "/models/own.safetensors", "name": "own", "sha256": "e" * 64, "card": CARD},
]


@pytest.fixture(autouse=True)
def clean_project(qgis_app):
    QgsSettings().remove("rs4d/last")
    yield
    QgsProject.instance().clear()
    QgsSettings().remove("rs4d/last")


@pytest.fixture
def raster(utm_scene) -> QgsRasterLayer:
    """160 x 128 m, from 440000 E, 4640000 N down."""
    return QgsProject.instance().addMapLayer(QgsRasterLayer(str(utm_scene), "harbour"))


@pytest.fixture
def canvas(qgis_app, raster):
    canvas = QgsMapCanvas()
    canvas.resize(400, 300)
    canvas.setDestinationCrs(UTM)
    canvas.setLayers([raster])
    canvas.setExtent(raster.extent())
    canvas.show()
    yield canvas
    canvas.stopRendering()
    canvas.close()
    canvas.deleteLater()


@pytest.fixture
def chooser(canvas):
    chooser = ExtentChooser(canvas)
    yield chooser
    chooser.tear_down()


@pytest.fixture
def form(canvas):
    form = SettingsForm(canvas)
    form.models.set_models(MODELS, "/models/default.safetensors")
    yield form
    form.extents.tear_down()


def settings(raster, zone, **more) -> RunSettings:
    return RunSettings(raster.id(), raster.name(), raster.source(), raster.providerType(), zone, **more)


def drag(canvas, start, end):
    view = canvas.viewport()
    QTest.mousePress(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(*start))
    QTest.mouseMove(view, QPoint(*end))
    QTest.mouseRelease(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(*end))


@pytest.mark.parametrize("crs", [UTM, DEGREES, MERCATOR], ids=lambda crs: crs.authid())
def test_a_zone_is_read_in_the_crs_that_it_was_made_in(raster, crs):
    part = QgsRectangle(440_020, 4_639_900, 440_060, 4_639_960)
    there = QgsGeometry.fromRect(part)
    there.transform(QgsCoordinateTransform(UTM, crs, QgsProject.instance()))
    zone = Zone.of(DRAWN, there.boundingBox(), crs)
    back = Zone.from_json(zone.to_json()).within(raster)
    # A rectangle in another CRS is a little turned in this one: its bounds are a little larger.
    assert back.contains(part)
    assert part.buffered(3.0).contains(back)


def test_a_zone_survives_in_a_crs_without_a_code(raster):
    local = QgsCoordinateReferenceSystem.fromProj("+proj=tmerc +lat_0=41.9 +lon_0=2.28 +x_0=500 +y_0=500 +ellps=WGS84")
    zone = Zone.from_json(Zone.of(DRAWN, QgsRectangle(400, 400, 600, 600), local).to_json())
    there = QgsCoordinateTransform(zone.crs, DEGREES, QgsProject.instance()).transform(500, 500)
    assert (there.x(), there.y()) == pytest.approx((2.28, 41.9), abs=1e-7)


def test_a_zone_reaches_from_the_layer_to_where_both_are(raster):
    corner = Zone.of(VISIBLE, QgsRectangle(439_000, 4_639_950, 440_010, 4_650_000), UTM)
    assert corner.within(raster) == QgsRectangle(440_000, 4_639_950, 440_010, 4_640_000)
    elsewhere = Zone.of(VISIBLE, QgsRectangle(0, 0, 10, 10), UTM)
    assert elsewhere.within(raster).isEmpty()


def test_the_algorithm_takes_the_extent_in_its_own_crs(provider, raster, tmp_path):
    zone = Zone.of(DRAWN, QgsRectangle(2.279, 41.906, 2.281, 41.908), DEGREES)
    given = parameters(settings(raster, zone, classes=("ship",), score=0.5), tmp_path / "out.gpkg")
    algorithm = QgsApplication.processingRegistry().createAlgorithmById("rs4d:segment")
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    assert algorithm.checkParameterValues(given, context) == (True, "")
    assert algorithm.parameterAsExtentCrs(given, "EXTENT", context) == DEGREES
    assert algorithm.parameterAsExtent(given, "EXTENT", context) == zone.rectangle
    assert "RESOLUTION" not in given
    assert "EXTENT" not in parameters(settings(raster, whole_layer(raster)), tmp_path / "out.gpkg")


def test_a_rectangle_is_drawn_with_the_mouse_and_the_tool_from_before_comes_back(chooser, canvas, raster):
    pan = QgsMapToolPan(canvas)
    canvas.setMapTool(pan)
    told = QSignalSpy(chooser.changed)
    chooser._draw.click()
    assert (chooser.kind, chooser.zone(raster)) == (DRAWN, None)
    assert canvas.mapTool() is not pan
    drag(canvas, (100, 100), (300, 200))
    assert canvas.mapTool() is pan
    assert not chooser._draw.isChecked()
    to_map = canvas.getCoordinateTransform()
    corners = QgsRectangle(to_map.toMapCoordinates(100, 100), to_map.toMapCoordinates(300, 200))
    assert QgsRectangle(*chooser.zone(raster).bounds) == corners
    assert len(told) > 0


def test_the_rectangle_is_seen_while_it_is_dragged(chooser, canvas):
    def bands():
        return [item for item in canvas.items() if isinstance(item, QgsRubberBand) and item.isVisible()]

    def moved(x, y):
        point = QPointF(x, y)
        there = QPointF(canvas.viewport().mapToGlobal(QPoint(x, y)))
        left, none = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
        move = QMouseEvent(QEvent.Type.MouseMove, point, there, none, left, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(canvas.viewport(), move)

    chooser._draw.click()
    before = len(bands())
    QTest.mousePress(canvas.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(100, 100))
    moved(250, 150)
    seen = [band for band in bands() if band.strokeColor() == RECTANGLE_COLOR]
    corners = [canvas.getCoordinateTransform().toMapCoordinates(*place) for place in ((100, 100), (250, 150))]
    assert [band.asGeometry().boundingBox() for band in seen] == [QgsRectangle(*corners)]
    chooser.setVisibleOnMap(False)  # the panel is closed meanwhile
    assert len(bands()) == before


def test_drawing_is_given_up_with_escape_and_a_click_is_no_rectangle(chooser, canvas, raster):
    chooser._draw.click()
    drag(canvas, (100, 100), (100, 100))
    assert chooser.zone(raster) is None
    assert chooser._draw.isChecked()
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    assert not chooser._draw.isChecked()
    assert chooser.missing() == "Draw a rectangle on the map"


def test_a_drawing_stays_where_it_is_when_the_map_gets_another_crs(chooser, canvas, raster):
    chooser._draw.click()
    drag(canvas, (100, 100), (300, 200))
    before = chooser.zone(raster).within(raster)
    canvas.setDestinationCrs(DEGREES)
    assert chooser.zone(raster).crs == UTM
    assert chooser.zone(raster).within(raster) == before
    band = chooser._band.asGeometry().boundingBox()
    assert -180 < band.xMinimum() < 180


def test_polygons_that_are_gone_leave_their_extent(chooser, raster):
    layer = QgsVectorLayer("Polygon?crs=EPSG:32631", "blocks", "memory")
    feature = QgsFeature()
    feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(440_010, 4_639_900, 440_050, 4_639_950)))
    layer.dataProvider().addFeature(feature)
    QgsProject.instance().addMapLayer(layer)
    zone = polygons_of(layer, selected_only=False)
    chooser.set_zone(zone)
    assert chooser.zone(raster) == zone
    QgsProject.instance().removeMapLayer(layer)
    chooser.set_zone(zone)
    assert chooser.zone(raster) == Zone(DRAWN, zone.bounds, zone.crs_text)


def test_the_forecast_follows_the_engines_rules(raster):
    whole = forecast(settings(raster, whole_layer(raster)), CARD, raster)
    assert (whole.windows, whole.megapixels) == (1, pytest.approx(0.08192))  # one, as small as the layer
    assert "it will be read as it is" in whole.reading
    finer = forecast(settings(raster, whole_layer(raster), resolution_m=0.1), CARD, raster)
    assert finer.windows == 30  # 1600 x 1280 pixels: 6 x 5 windows of 384, overlapping by 96
    nowhere = Zone.of(VISIBLE, QgsRectangle(0, 0, 10, 10), UTM)
    assert "nothing there" in forecast(settings(raster, nowhere), CARD, raster).refusal
    assert "known after the first run" in finer.line("f" * 64, "cpu")


def test_the_raster_that_is_looked_at(canvas, raster, utm_scene):
    above = QgsProject.instance().addMapLayer(QgsRasterLayer(str(utm_scene), "above"))
    canvas.setLayers([above, raster])
    assert raster_looked_at(canvas, None) == above
    assert raster_looked_at(canvas, raster) == raster
    canvas.setExtent(QgsRectangle(0, 0, 10, 10))
    assert raster_looked_at(canvas, raster) == raster
    canvas.setExtent(raster.extent())
    canvas.setLayers([above])
    assert raster_looked_at(canvas, raster) == above


def test_the_layer_is_followed_until_the_user_chooses(form, raster, utm_scene):
    other = QgsProject.instance().addMapLayer(QgsRasterLayer(str(utm_scene), "other"))
    form.follow(other)
    assert form.layer() == other
    form.layer_box.setFocus()
    QTest.keyClick(form.layer_box, Qt.Key.Key_Up if form.layer_box.currentIndex() else Qt.Key.Key_Down)
    assert form.layer() == raster
    form.follow(other)
    assert form.layer() == raster
    form.picked(raster)  # a click in the Layers panel on the one that is chosen changes nothing
    form.follow(other)
    assert form.layer() == raster
    form.picked(QgsVectorLayer("Polygon", "no imagery", "memory"))
    form.follow(other)
    assert form.layer() == raster
    form.picked(other)
    form.follow(other)
    assert form.layer() == other
    form.layer_box.setLayer(raster)
    form.layer_box.activated.emit(form.layer_box.currentIndex())
    QgsProject.instance().removeMapLayer(raster)
    form.layer_removed()
    form.follow(other)
    assert form.layer() == other


def test_the_engine_line_says_what_computes_and_keeps_the_details_for_the_tooltip(qgis_app):
    line = EngineLine()
    told = {"version": "1.0", "executable": "/venv/bin/python", "models": [], "default_model": None}
    line._answered({**told, "device": {"name": "cpu", "reason": "this torch has no CUDA support"}})
    assert line._text.text() == "Engine ready (processor)"
    assert "no CUDA support" in line._text.toolTip()
    line._answered({**told, "device": {"name": "cuda:0", "reason": "CUDA GPU found: NVIDIA L4", "gpu": "NVIDIA L4"}})
    assert line._text.text() == "Engine ready (GPU: NVIDIA L4)"
    assert "cuda:0" in line._text.toolTip()


def test_settings_come_back(form, canvas, raster):
    form.models.set_path("/models/own.safetensors")
    form.extents.set_kind(WHOLE)
    form.classes.set_wanted(("building",))
    form.score.setValue(0.35)
    form.resolution.setValue(0.5)
    form.right_angles.setChecked(True)
    wanted = form.settings()
    form.remember()
    again = SettingsForm(canvas)
    again.models.set_models(MODELS, "/models/default.safetensors")
    again.recall()
    assert again.settings() == wanted
    again.extents.tear_down()


def test_without_a_choice_all_is_left_to_model_and_layer(form, raster, canvas):
    expected = settings(raster, Zone.of(VISIBLE, canvas.extent(), UTM))
    assert form.settings() == expected


def test_settings_of_a_past_run_are_shown_with_their_place(form, raster):
    zone = Zone(POLYGONS, (2.279, 41.906, 2.281, 41.908), "EPSG:4326", "gone")
    form.show_settings(settings(raster, zone, model="/models/own.safetensors", score=0.2), raster)
    shown = form.settings()
    assert (shown.zone, shown.model) == (Zone(DRAWN, zone.bounds, "EPSG:4326"), "/models/own.safetensors")
    assert shown.score == pytest.approx(0.2)


def test_a_form_says_what_is_missing(form, raster):
    form.classes.set_wanted(())
    assert form.missing() == "Tick one class or more"
    assert form.settings() is None
    QgsProject.instance().removeMapLayer(raster)
    assert form.missing().startswith("Add imagery")


def test_a_model_file_that_cannot_be_read_is_listed_but_not_chosen(form):
    box = form.models._combo
    assert box.count() == 3
    assert not box.model().item(1).isEnabled()
    assert "truncated" in box.itemData(1, Qt.ItemDataRole.ToolTipRole)
    form.models.set_path("/models/broken.safetensors")
    assert form.models.current()["name"] == "default"


def test_a_model_that_is_chosen_before_it_is_known_is_shown_once_it_is(form):
    form.models.set_path("/elsewhere/new.safetensors")
    assert form.models.current()["name"] == "default"
    new = {"path": "/elsewhere/new.safetensors", "name": "new", "sha256": "f" * 64, "card": CARD}
    form.models.set_models([*MODELS, new], "/models/default.safetensors")
    assert form.models.current()["name"] == "new"


def test_the_card_tells_classes_accuracy_and_licences():
    page = card_html(MODELS[0])
    assert "#0082c8" in page
    assert "63 %" in page
    assert "25.0 %" in page
    assert "CC BY 4.0 &lt;where stated&gt;" in page
    assert "roofs, by way of older-model" in page
    assert "not measured" in page  # buildings
    assert "has not been measured" in card_html({**MODELS[0], "card": {**CARD, "metrics": {}}})


def test_a_card_tells_of_data_that_knows_boxes_only():
    boxes_only = {"images": 7, "mask": {"ap": None, "ap50": None}, "by_class": {"ship": {"mask_ap50": None}}}
    page = card_html({**MODELS[0], "card": {**CARD, "metrics": {"boats": boxes_only}}})
    assert "boats" in page
    assert page.count("not measured") == 4  # AP and AP50 of boats, and both classes


def test_the_menu_of_past_runs_tells_runs_of_one_layer_apart(raster):
    def past(second, complete):
        time = f"2026-01-02T03:04:{second:02}"
        return PastRun(time, "model", 8, complete, None, settings(raster, whole_layer(raster)))

    box = RunBox(lambda: [past(5, True), past(9, False)])
    menu = box._past.menu()
    menu.aboutToShow.emit()
    assert [action.text() for action in menu.actions()] == [
        "2026-01-02 03:04:05  harbour: 8 found",
        "2026-01-02 03:04:09  harbour: 8 found (stopped early)",
    ]


def test_live_polygons_come_in_batches_that_leave_the_map_alone(canvas, qtbot):
    live = LiveLayer("live", "group", result_fields(), UTM, {"ship": "#0082c8"})
    paced = PacedLayer(live, canvas)
    feature = QgsFeature(result_fields())
    feature.setGeometry(QgsGeometry.fromRect(QgsRectangle(440_000, 4_639_900, 440_010, 4_639_910)))
    repaints = QSignalSpy(live.layer.repaintRequested)
    qtbot.waitUntil(lambda: not canvas.isDrawing())
    for _ in range(50):
        paced.add([feature])
    assert live.layer.featureCount() == 1  # the first at once
    qtbot.waitUntil(lambda: live.layer.featureCount() == 50, timeout=5000)
    assert len(repaints) == 2
    QgsProject.instance().removeMapLayer(live.layer)  # by the user
    paced.add([feature])
    paced.stop()
