"""The edits of the review dock, with a real result, its imagery, and the real engine."""

import shutil
import threading
import time

import pytest
from osgeo import gdal
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsGeometry,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsSettings,
    QgsTask,
)
from qgis.gui import QgsMapToolPan
from qgis.PyQt.QtCore import QPoint, Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QComboBox, QLabel, QMessageBox, QPushButton, QToolButton
from review_dock import on_screen
from review_layer import contents, opened

from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.review.edits.shape_tool import ShapeTool

TERMINATED = QgsTask.TaskStatus.Terminated


@pytest.fixture
def layer(provider, segmented_scene, tmp_path):
    layer = QgsProject.instance().addMapLayer(opened(shutil.copy(segmented_scene.layer, tmp_path / "objects.gpkg")))
    yield layer
    layer.rollBack()
    QgsProject.instance().clear()
    for name in ("last", "review"):
        QgsSettings().remove(f"rs4d/{name}")


@pytest.fixture
def dock(layer, qgis_iface, qgis_canvas):
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        yield dock


def button(dock, name):
    return dock.findChild(QToolButton, f"edit_{name}")


def said(dock):
    return dock.findChild(QLabel, "review_message").text()


def answered(dock, seconds=60):
    """Wait for the engine."""
    until = time.monotonic() + seconds
    while dock.edits.work.engine.busy:
        assert time.monotonic() < until
        QApplication.processEvents()
        time.sleep(0.01)


def buildings(layer):
    """The buildings of one part that lie wholly in the scene, the largest first."""
    extent = layer.extent()
    buildings = [feature for feature in layer.getFeatures() if feature["class"] == "building"]
    whole = [
        feature
        for feature in buildings
        if feature.geometry().constGet().partCount() == 1 and extent.contains(feature.geometry().boundingBox())
    ]
    return sorted(whole, key=lambda feature: -feature.geometry().area())


def around(feature, metres=2.0):
    return feature.geometry().boundingBox().buffered(metres)


def iou(one, other):
    shared = one.intersection(other).area()
    return shared / (one.area() + other.area() - shared)


def test_a_box_around_a_missed_object_makes_a_new_one(dock, layer):
    missed = buildings(layer)[1]
    with dock.reviewed.edit("missed"):
        layer.deleteFeature(missed.id())
    before = contents(layer)
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    assert not button(dock, "box").isEnabled()
    answered(dock)
    assert button(dock, "box").isEnabled()
    (new,) = layer.selectedFeatures()
    assert iou(new.geometry(), missed.geometry()) > 0.5
    assert (new["class"], new["status"], new["edited"]) == ("building", "accepted", True)
    assert "A new building" in said(dock)
    dock.reviewed.undo()
    assert contents(layer) == before


def test_the_class_of_new_objects_can_be_chosen(dock, layer):
    missed = buildings(layer)[1]
    with dock.reviewed.edit("missed"):
        layer.deleteFeature(missed.id())
    classes = dock.findChild(QComboBox, "edit_class")
    classes.setCurrentIndex(classes.findData("ship"))
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    answered(dock)
    assert layer.selectedFeatures()[0]["class"] == "ship"
    x, y = layer.extent().center().x(), layer.extent().center().y()
    dock.edits.work.guarded(dock.edits.work.draw, [QgsPointXY(x, y), QgsPointXY(x + 9, y), QgsPointXY(x + 9, y + 9)])
    assert layer.selectedFeatures()[0]["class"] == "ship"


def test_a_box_around_an_object_gives_it_another_outline(dock, layer):
    there = buildings(layer)[0]
    number = layer.featureCount()
    dock.reviewed.decide([there.id()], "rejected")
    bad = QgsGeometry.fromRect(there.geometry().boundingBox())
    dock.edits.work.editor.redraw(there.id(), bad)
    steps = layer.undoStack().count()
    dock.edits.work.guarded(dock.edits.work.outline, around(there))
    answered(dock)
    after = layer.getFeature(there.id())
    assert layer.featureCount() == number
    assert layer.undoStack().count() == steps + 1
    assert iou(after.geometry(), there.geometry()) > 0.5
    assert (after["class"], after["score"], after["status"]) == ("building", there["score"], "accepted")
    dock.reviewed.undo()
    assert layer.getFeature(there.id())["status"] == "rejected"


def test_what_the_engine_refuses_is_said(dock, layer):
    before = contents(layer)
    far = around(buildings(layer)[0])
    far.setXMinimum(far.xMinimum() + 1e5)
    far.setXMaximum(far.xMaximum() + 1e5)
    ended = []
    QgsApplication.taskManager().statusChanged.connect(lambda _task, status: ended.append(status))
    dock.edits.work.guarded(dock.edits.work.outline, far)
    answered(dock)
    assert "the box lies outside the image" in said(dock)
    assert TERMINATED not in ended  # QGIS would tell it once more, in a bar of its own
    assert contents(layer) == before


def test_a_busy_engine_is_said_and_nobody_waits(dock, layer, segmented_scene):
    gone = threading.Event()
    running = threading.Thread(
        target=lambda: engine_client().request(
            "segment", {"scene": str(segmented_scene.scene), "window_px": 96, "overlap_px": 48}, cancelled=gone.is_set
        )
    )
    engine_client().request("hello", {})
    running.start()
    try:
        while not engine_client().busy():
            time.sleep(0.01)
        dock.edits.work.guarded(dock.edits.work.outline, around(buildings(layer)[0]))
        assert not dock.edits.work.engine.busy
        assert "at work on a run" in said(dock)
        dock.edits.work.guarded(dock.edits.work.straighten)
        assert "at work on a run" in said(dock)
    finally:
        gone.set()
        running.join()


def test_without_its_imagery_what_the_map_shows_is_looked_at(dock, layer, segmented_scene, tmp_path, qgis_canvas):
    missed = buildings(layer)[1]
    with dock.reviewed.edit("missed"):
        layer.deleteFeature(missed.id())
    moved = shutil.copy(segmented_scene.scene, tmp_path / "moved.tif")
    dock.desk.scene = lambda: None  # as if the file had gone
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    assert "no imagery" in said(dock)
    tiles = QgsRasterLayer("type=xyz&zmax=19&url=http://127.0.0.1:9/{z}/{x}/{y}.png", "tiles", "wms")
    qgis_canvas.setLayers([layer, QgsProject.instance().addMapLayer(tiles)])
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    assert said(dock).startswith("The engine looks at files only, and tiles is none: ")
    raster = QgsProject.instance().addMapLayer(QgsRasterLayer(str(moved), "moved"))
    qgis_canvas.setLayers([layer, raster])
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    answered(dock)
    assert iou(layer.selectedFeatures()[0].geometry(), missed.geometry()) > 0.5


def test_imagery_is_looked_at_with_the_crs_that_it_got_in_qgis(dock, layer, segmented_scene, tmp_path, qgis_canvas):
    missed = buildings(layer)[1]
    with dock.reviewed.edit("missed"):
        layer.deleteFeature(missed.id())
    scene = tmp_path / "flight.tif"
    options = ["PROFILE=BASELINE", "TFW=YES"]
    gdal.Translate(str(scene), str(segmented_scene.scene), creationOptions=options).FlushCache()
    scene.with_name("flight.tif.aux.xml").unlink(missing_ok=True)
    raster = QgsProject.instance().addMapLayer(QgsRasterLayer(str(scene), "flight"))
    dock.desk.scene = lambda: str(scene)
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    answered(dock)
    assert "no known size on the ground" in said(dock)
    raster.setCrs(layer.crs())
    dock.edits.work.guarded(dock.edits.work.outline, around(missed))
    answered(dock)
    assert iou(layer.selectedFeatures()[0].geometry(), missed.geometry()) > 0.5


def test_a_map_of_another_crs(dock, layer, qgis_canvas):
    missed = buildings(layer)[1]
    with dock.reviewed.edit("missed"):
        layer.deleteFeature(missed.id())
    qgis_canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:4326"))
    box = qgis_canvas.mapSettings().layerToMapCoordinates(layer, around(missed))
    dock.edits.work.guarded(dock.edits.work.outline, box)
    answered(dock)
    assert iou(layer.selectedFeatures()[0].geometry(), missed.geometry()) > 0.5


def test_an_answer_for_a_layer_that_has_gone_is_dropped(dock, layer):
    before = contents(layer)
    dock.edits.work.guarded(dock.edits.work.outline, around(buildings(layer)[0]))
    dock.layers.choose(None)
    assert not dock.edits.work.engine.busy
    until = time.monotonic() + 1
    while time.monotonic() < until or engine_client().busy():
        QApplication.processEvents()
    assert contents(layer) == before


def test_right_angles_come_and_go(dock, layer):
    before = contents(layer)
    layer.selectAll()
    dock.edits.work.guarded(dock.edits.work.straighten)
    answered(dock)
    changed = [f for f in layer.getFeatures() if f["edited"]]
    assert changed
    assert {f["class"] for f in changed}.isdisjoint({"ship", "storage_tank"})
    assert "Right angles fit" in said(dock)
    assert layer.undoStack().count() == 1
    assert button(dock, "revert").isEnabled()
    button(dock, "revert").click()
    assert contents(layer) == before
    dock.reviewed.undo()
    dock.reviewed.undo()
    assert contents(layer) == before


def test_buttons_are_on_where_they_apply(dock, layer):
    layer.removeSelection()
    on = {
        name: button(dock, name).isEnabled() for name in ("box", "draw", "redraw", "merge", "fill", "revert", "angles")
    }
    assert on == {
        "box": True, "draw": True, "redraw": True, "merge": False, "fill": False, "revert": False, "angles": True,
    }  # fmt: skip
    first, second = buildings(layer)[:2]
    layer.selectByIds([first.id(), second.id()])
    assert button(dock, "merge").isEnabled()
    assert not button(dock, "redraw").isEnabled()
    button(dock, "merge").click()
    assert not button(dock, "merge").isEnabled()
    assert button(dock, "revert").isEnabled()
    for name in ("box", "merge", "duplicates"):
        assert button(dock, name).toolTip().startswith("<b>")
    assert "[B]" in button(dock, "box").toolTip()
    dock.layers.choose(None)
    assert not any(button(dock, name).isEnabled() for name in on)


def test_a_drawing_changes_what_is_seen_selected_ones_first(dock, layer):
    first, *others = buildings(layer)
    line = [QgsPointXY(around(first).center().x(), y) for y in (around(first).yMinimum(), around(first).yMaximum())]
    second = next(other for other in others if not other.geometry().intersects(QgsGeometry.fromPolylineXY(line)))
    layer.selectByIds([second.id()])
    dock.edits.work.guarded(dock.edits.work.split, line)  # crosses the first only
    assert layer.getFeature(first.id())["edited"]
    assert not layer.getFeature(second.id())["edited"]
    dock.reviewed.undo()
    dock.reviewed.decide([first.id()], "rejected")
    layer.removeSelection()
    before = contents(layer)
    dock.edits.work.guarded(dock.edits.work.split, line)
    assert contents(layer) == before or not layer.getFeature(first.id())["edited"]


def test_what_is_drawn_by_hand_keeps_off_others_of_its_class(dock, layer):
    there = buildings(layer)[0]
    box = around(there)
    work = dock.edits.work
    work.class_name = "building"
    west, south, east, north = box.xMinimum(), box.yMinimum(), box.xMaximum(), box.yMaximum()
    across = box.width() * 3
    strip = [(west - across, south), (east, south), (east, north), (west - across, north)]
    work.guarded(work.draw, [QgsPointXY(*point) for point in strip])
    (drawn,) = layer.selectedFeatures()
    assert drawn["edited"]
    assert drawn.geometry().area() < 0.99 * box.width() * box.height() * 4
    assert drawn.geometry().intersection(there.geometry()).area() < 1e-6
    assert "other objects of its class" in said(dock)
    work.guarded(work.redraw, [QgsPointXY(*point) for point in strip])
    assert layer.getGeometry(drawn.id()).intersection(there.geometry()).area() < 1e-6
    assert "other objects of its class" in said(dock)
    before = contents(layer)
    layer.removeSelection()
    inner = there.geometry().pointOnSurface().asPoint()
    tiny = [QgsPointXY(inner.x() + dx, inner.y() + dy) for dx, dy in ((0, 0), (0.2, 0), (0.2, 0.2))]
    work.guarded(work.draw, tiny)
    assert contents(layer) == before
    assert "already" in said(dock)


def test_merging_what_does_not_touch_is_said(dock, layer):
    first, second = buildings(layer)[:2]
    assert not first.geometry().intersects(second.geometry())
    layer.selectByIds([first.id(), second.id()])
    button(dock, "merge").click()
    assert "2 parts that do not touch" in said(dock)


def test_a_very_long_name_of_a_class_does_not_widen_the_desk(dock, layer):
    wide = dock.widget().minimumSizeHint().width()
    dock.reviewed.set_class([dock.session.current], "b" * 120)
    dock.desk.say("c" * 120)
    dock.export.work.say("d" * 120)
    QApplication.processEvents()
    assert dock.widget().minimumSizeHint().width() == wide


def click(canvas, x, y, press=QTest.mouseClick, mouse=Qt.MouseButton.LeftButton):
    press(canvas.viewport(), mouse, Qt.KeyboardModifier.NoModifier, QPoint(x, y))


def test_drawings_end_by_double_click_right_button_or_enter(qgis_app, qgis_canvas):
    tool, drawn = ShapeTool(qgis_canvas, ring=True), []
    before = QgsMapToolPan(qgis_canvas)
    qgis_canvas.setMapTool(before)
    tool.drawn.connect(drawn.append)
    tool.start()
    for x, y in ((10, 10), (60, 10), (60, 60)):
        click(qgis_canvas, x, y)
    click(qgis_canvas, 60, 60, press=QTest.mouseDClick)
    assert len(drawn) == 1
    for x, y in ((10, 10), (60, 10), (60, 60), (10, 60)):
        click(qgis_canvas, x, y)
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Backspace)
    click(qgis_canvas, 5, 5, mouse=Qt.MouseButton.RightButton)
    click(qgis_canvas, 10, 10)
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Escape)
    click(qgis_canvas, 20, 10)
    click(qgis_canvas, 30, 10)
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Return)
    assert [len(points) for points in drawn][1:] == [3, 2]
    assert qgis_canvas.mapTool() is tool
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Escape)
    assert qgis_canvas.mapTool() is before


def test_duplicates_are_shown_and_asked_about(dock, layer, monkeypatch):
    first = buildings(layer)[0]
    dock.edits.work.editor.draw(first.geometry(), "building")
    before, asked = contents(layer), []
    buttons = QMessageBox.StandardButton
    answers = iter([buttons.No, buttons.Yes])
    monkeypatch.setattr(QMessageBox, "question", lambda *given: asked.append(given[2]) or next(answers))
    layer.removeSelection()
    button(dock, "duplicates").click()
    assert contents(layer) == before
    assert layer.selectedFeatureIds() == [first.id()]  # the one that was drawn by hand counts more
    button(dock, "duplicates").click()
    assert len(contents(layer)) == len(before) - 1
    assert asked[0].startswith("1")
    layer.removeSelection()
    button(dock, "duplicates").click()
    assert "No object is there twice" in said(dock)


def test_keys_of_classes_have_the_classes_names_and_the_cut_says_how_many_it_would_reject(dock, layer):
    labels = {action.name: action.label for action in dock.desk.keys.actions}
    assert labels["class_1"] == f"Set class {class_label(dock.desk.classes[0])}"
    reject = dock.findChild(QPushButton, "cut_apply")
    dock.cut.view.dragged.emit(1.0)
    QTest.qWait(250)
    hidden = dock.cut._hidden()
    assert (reject.text(), reject.isEnabled()) == (f"Reject hidden ({len(hidden)})...", True)
    dock.reviewed.decide(hidden, "rejected")
    assert (reject.text(), reject.isEnabled()) == ("Reject hidden (0)...", False)
