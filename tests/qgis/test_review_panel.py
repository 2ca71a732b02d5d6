"""The review dock with real layers, real keys and a real map."""

from collections import Counter

import pytest
from qgis.core import (
    NULL,
    QgsApplication,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsFillSymbol,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsPointXY,
    QgsProject,
    QgsRectangle,
    QgsRuleBasedRenderer,
    QgsSettings,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEvent, QPoint, QSize, Qt, QTimer
from qgis.PyQt.QtGui import QColor, QKeyEvent
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QComboBox, QInputDialog, QLabel, QMessageBox, QPushButton, QWidget
from review_dock import on_screen
from review_layer import contents, opened, statuses, write_layer

from rs4d_qgis.layers.live import LiveLayer
from rs4d_qgis.layers.results import style_result
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.panel import ReviewDock
from rs4d_qgis.review.reviewed import look

COLORS = {"building": "#ff0000", "ship": "#00ff00", "vehicle": "#0000ff"}


@pytest.fixture
def layer(qgis_app, tmp_path):
    write_layer(tmp_path / "objects.gpkg", 60)
    layer = QgsProject.instance().addMapLayer(opened(tmp_path / "objects.gpkg"))
    style_result(layer, COLORS)
    yield layer
    QgsProject.instance().clear()
    for name in ("last", "review"):
        QgsSettings().remove(f"rs4d/{name}")


@pytest.fixture
def dock(layer, qgis_iface, qgis_canvas):
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        yield dock


def part(dock, name, kind=QWidget):
    found = dock.findChild(kind, name)
    assert found is not None, name
    return found


def answer(button):
    """Once a question comes up, press this button; what was asked is in the list that is returned."""
    asked = []

    def press():
        box = QApplication.activeModalWidget()
        if not isinstance(box, QMessageBox):
            QTimer.singleShot(20, press)
            return
        asked.append(box.text())
        box.button(button).click()

    QTimer.singleShot(0, press)
    return asked


def test_what_is_selected_lets_the_imagery_through_while_a_layer_is_under_review(layer, qgis_iface, qgis_canvas):
    own = QColor(255, 0, 255)
    qgis_canvas.setSelectionColor(own)
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        through = qgis_canvas.selectionColor()
        assert through.rgb() == own.rgb()
        assert through.alphaF() < 0.5
        dock.layers.choose(None)
        assert qgis_canvas.selectionColor() == own
        dock.review(layer)
        qgis_canvas.setSelectionColor(QColor("red"))  # as QGIS, where the project gets another one
        dock.layers.choose(None)
        assert qgis_canvas.selectionColor() == QColor("red")
        dock.review(layer)
        assert qgis_canvas.selectionColor().alphaF() < 0.5
    assert qgis_canvas.selectionColor() == QColor("red")


def drag_cut(dock, score):
    """Drag the line there, and let it rest."""
    dock.cut.view.dragged.emit(score)
    while dock.cut._queue.isActive():
        QTest.qWait(20)


def shades(layer):
    """The colours that a drawing of the layer has, on white."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setOutputSize(QSize(400, 300))
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.extent())
    settings.setExpressionContext(QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer)))
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    seen = {image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height())}
    return {name for name, color in COLORS.items() if color in seen}


def test_keys_decide_on_the_object_that_is_shown_and_go_on(dock, layer, qgis_canvas):
    first = dock.session.current
    QTest.keyClick(qgis_canvas, "a")
    second = dock.session.current
    QTest.keyClick(dock, "r")
    third = dock.session.current
    QTest.keyClick(qgis_canvas, "s")
    assert len({first, second, third, dock.session.current}) == 4
    assert (statuses(layer)[first], statuses(layer)[second], statuses(layer)[third]) == (ACCEPTED, REJECTED, PENDING)
    QTest.keyClick(qgis_canvas, "p")
    assert dock.session.current == third
    QTest.keyClick(qgis_canvas, "u")
    assert (dock.session.current, statuses(layer)[second]) == (second, PENDING)
    QTest.keyClick(qgis_canvas, "3")
    assert layer.getFeature(second)["class"] == "vehicle"
    assert dock.session.current == second
    assert "vehicle" in part(dock, "review_object", QLabel).text()


def test_a_key_that_is_held_decides_once(dock, qgis_canvas):
    for repeated in (False, True, True, True):
        event = QKeyEvent(QEvent.Type.KeyPress, Qt.Key.Key_A, Qt.KeyboardModifier.NoModifier, "a", repeated)
        QApplication.sendEvent(qgis_canvas, event)
    assert dock.session.left == 59


def test_keys_that_are_typed_into_a_field_stay_there(dock):
    box = part(dock, "cut_value")
    box.setFocus()
    QTest.keyClicks(box, "1")
    assert (
        dock.session.objects[dock.session.current].class_name
        == dock.reviewed.layer.getFeature(dock.session.current)["class"]
    )
    assert dock.reviewed.layer.undoStack().count() == 0


def test_keys_can_be_changed_are_shown_and_come_back_but_no_two_alike(dock, layer, qgis_canvas, qgis_iface):
    keys = dock.desk.keys
    assert part(dock, "review_accept").key == "A"
    with pytest.raises(ReviewRefused, match="R is the key of both “Accept” and “Reject”"):
        keys.choose({"accept": "R"})
    assert keys.key("accept") == "A"
    keys.choose({"accept": "Space", "reject": "Ctrl+D"})
    assert part(dock, "review_accept").key == "Space"
    first = dock.session.current
    QTest.keyClick(qgis_canvas, Qt.Key.Key_A)
    assert dock.session.current == first
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Space)
    second = dock.session.current
    QTest.keyClick(qgis_canvas, Qt.Key.Key_D, Qt.KeyboardModifier.ControlModifier)
    assert (statuses(layer)[first], statuses(layer)[second]) == (ACCEPTED, REJECTED)
    again = ReviewDock(qgis_iface)
    assert part(again, "review_reject").key == "Ctrl+D"
    again.tear_down()
    again.deleteLater()


def test_many_are_decided_on_only_when_their_number_was_agreed_to(dock, layer):
    asked = answer(QMessageBox.StandardButton.No)
    part(dock, "decide_shown").menu().actions()[0].trigger()
    assert asked[0].startswith("Accept 60 objects?")
    assert set(statuses(layer).values()) == {PENDING}
    layer.selectByIds([4, 9, 12])
    assert part(dock, "decide_selected").text() == "Selected (3)"
    asked = answer(QMessageBox.StandardButton.Yes)
    part(dock, "decide_selected").menu().actions()[1].trigger()
    assert asked[0].startswith("Reject 3 objects?")
    assert {item for item, status in statuses(layer).items() if status == REJECTED} == {4, 9, 12}
    dock.desk.undo()
    assert set(statuses(layer).values()) == {PENDING}


def test_what_is_selected_is_what_keys_decide_on(dock, layer, qgis_canvas):
    first, other = dock.session.current, dock.session.queue[30]
    qgis_canvas.setExtent(layer.extent())
    extent = qgis_canvas.extent().toString()
    layer.selectByIds([other])
    assert dock.session.current == other
    assert qgis_canvas.extent().toString() == extent  # it is in view already
    QTest.keyClick(qgis_canvas, "3")
    QTest.keyClick(qgis_canvas, "a")
    assert (layer.getFeature(other)["class"], statuses(layer)[other]) == ("vehicle", ACCEPTED)
    assert statuses(layer)[first] == PENDING
    # The next one is current: the last one is not to be the one that edits are for.
    assert layer.selectedFeatureIds() == []
    layer.selectByIds([other])  # also where it does not pass the filters any more
    assert dock.session.current == other
    QTest.keyClick(qgis_canvas, "r")
    assert statuses(layer)[other] == REJECTED


def test_what_was_selected_before_the_review_is_what_it_shows(layer, qgis_iface, qgis_canvas):
    layer.selectByIds([17])
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        assert dock.session.current == 17
        QTest.keyClick(qgis_canvas, "r")
        QTest.keyClick(qgis_canvas, "r")
        rejected = [item for item, status in statuses(layer).items() if status == REJECTED]
        assert len(rejected) == 2
        assert 17 in rejected


def test_saving_edits_keeps_the_place_and_what_is_shown(dock, layer, qgis_canvas):
    for _ in range(5):
        QTest.keyClick(qgis_canvas, "s")
    here, following = dock.session.queue[5:7]
    dock.edits.work.editor.redraw(here, layer.getGeometry(here).buffer(1, 4), accept=True)
    dock.reviewed.save_edits()
    assert dock.session.current == following
    x, y = layer.extent().xMinimum() - 100, layer.extent().yMinimum() - 100
    dock.edits.work.guarded(dock.edits.work.draw, [QgsPointXY(x, y), QgsPointXY(x + 9, y), QgsPointXY(x + 9, y + 9)])
    dock.reviewed.save_edits()  # what was drawn gets its id now, and stays selected
    (drawn,) = layer.selectedFeatureIds()
    assert dock.session.current == drawn > 0
    layer.rollBack()


def test_a_filter_of_the_layer_holds_in_the_review(dock, layer, qgis_canvas):
    layer.setSubsetString("\"class\" = 'ship'")
    QTest.qWait(10)
    assert {item.class_name for item in dock.session.objects.values()} == {"ship"}
    QTest.keyClick(qgis_canvas, "r")
    dock.desk.decide(dock.session.shown, REJECTED)
    layer.setSubsetString("")
    QTest.qWait(10)
    assert {layer.getFeature(item)["class"] for item, status in statuses(layer).items() if status == REJECTED} == {
        "ship"
    }
    assert len(dock.session.objects) == 60


def test_a_layer_that_the_project_protects_is_not_written_to(dock, layer, qgis_canvas):
    layer.setReadOnly(True)
    QTest.keyClick(qgis_canvas, "r")
    assert dock.reviewed.trouble == "the layer is read-only"
    assert set(statuses(layer).values()) == {PENDING}
    layer.setReadOnly(False)
    assert dock.reviewed.save_decisions()
    assert list(statuses(layer).values()).count(REJECTED) == 1


def test_a_class_is_known_however_it_is_spelt_and_may_hold_braces(dock, layer, monkeypatch):
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("Building ", True))
    item = next(item.id for item in dock.session.objects.values() if item.class_name == "ship")
    layer.selectByIds([item])
    dock.decisions._other_class()
    assert layer.getFeature(item)["class"] == "building"
    monkeypatch.setattr(QInputDialog, "getItem", lambda *_: ("{a}", True))
    layer.selectByIds([4, 9])
    asked = answer(QMessageBox.StandardButton.Yes)
    dock.decisions._other_class()
    assert asked[0].startswith("Set class {a} on 2 objects?")
    assert {layer.getFeature(item)["class"] for item in (4, 9)} == {"{a}"}


def test_keys_ask_where_several_are_selected(dock, layer, qgis_canvas):
    layer.selectByIds([4, 9, 12])
    assert "3 objects are selected" in part(dock, "review_object", QLabel).text()
    asked = answer(QMessageBox.StandardButton.No)
    QTest.keyClick(qgis_canvas, "a")
    assert asked[0].startswith("Accept 3 objects?")
    assert set(statuses(layer).values()) == {PENDING}
    asked = answer(QMessageBox.StandardButton.Yes)
    QTest.keyClick(qgis_canvas, "3")
    assert asked[0].startswith("Set class vehicle on 3 objects?")
    assert {layer.getFeature(item)["class"] for item in (4, 9, 12)} == {"vehicle"}
    answer(QMessageBox.StandardButton.Yes)
    QTest.keyClick(qgis_canvas, "r")
    assert {item for item, status in statuses(layer).items() if status == REJECTED} == {4, 9, 12}
    assert layer.selectedFeatureCount() == 0


def test_a_new_object_is_the_one_that_keys_decide_on(dock, layer, qgis_canvas):
    first = dock.session.current
    before = layer.getFeature(first).attributes()
    x, y = layer.extent().xMinimum() - 100, layer.extent().yMinimum() - 100
    dock.edits.work.guarded(dock.edits.work.draw, [QgsPointXY(x, y), QgsPointXY(x + 9, y), QgsPointXY(x + 9, y + 9)])
    (new,) = layer.selectedFeatureIds()
    assert dock.session.current == new
    QTest.keyClick(qgis_canvas, "3")
    assert layer.getFeature(new)["class"] == "vehicle"
    assert layer.getFeature(first).attributes() == before
    layer.rollBack()


def test_in_the_middle_of_a_drawing_no_key_decides_and_undo_takes_the_last_corner(dock, layer, qgis_canvas):
    before, tool = contents(layer), dock.edits._tools["draw"]
    QTest.keyClick(qgis_canvas, "d")
    drawn = []
    tool.drawn.disconnect()
    tool.drawn.connect(drawn.append)
    for x, y in ((10, 10), (60, 10), (60, 60), (10, 60)):
        QTest.mouseClick(
            qgis_canvas.viewport(), Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(x, y)
        )
    for press in "ar3sm":
        QTest.keyClick(qgis_canvas, press)
    assert (contents(layer), layer.undoStack().count(), tool.drawing) == (before, 0, True)
    QTest.keyClick(qgis_canvas, "u")
    QTest.keyClick(qgis_canvas, Qt.Key.Key_Return)
    assert [len(points) for points in drawn] == [3]
    QTest.keyClick(qgis_canvas, "a")
    assert layer.undoStack().count() == 1


@pytest.mark.parametrize("tool", ["draw", "split", "box"])
def test_keys_that_qgis_deletes_objects_on_are_done_with_while_one_draws(dock, qgis_canvas, tool):
    dock.edits._tools[tool].start()
    for key in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete, Qt.Key.Key_Escape):
        event = QKeyEvent(QEvent.Type.KeyPress, key, Qt.KeyboardModifier.NoModifier)
        qgis_canvas.mapTool().keyPressEvent(event)
        assert not event.isAccepted()  # of a map tool: "QGIS has nothing to do with it any more"
    assert qgis_canvas.mapTool() is not dock.edits._tools[tool]


def test_keys_act_on_nothing_that_is_not_looked_at(dock, layer, qgis_canvas):
    first, band = dock.session.current, dock._map._band
    assert band.isVisible()
    steps = []
    dock.evaluation.step = steps.append
    for tab in (1, 2):
        dock.tabs.setCurrentIndex(tab)
        assert not band.isVisible()
        for press in "ar3snpu":
            QTest.keyClick(qgis_canvas, press)
        assert (dock.session.current, layer.undoStack().count()) == (first, 0)
    assert steps == [1, -1]
    dock.tabs.setCurrentIndex(0)
    assert band.isVisible()
    QTest.keyClick(qgis_canvas, "a")
    assert statuses(layer)[first] == ACCEPTED


def test_undo_says_that_there_is_nothing_to_undo(dock, layer, qgis_canvas):
    undo = part(dock, "review_undo", QPushButton)
    assert not undo.isEnabled()
    for end in (dock.reviewed.save_edits, layer.rollBack):
        with dock.reviewed.edit("Remove"):
            layer.deleteFeature(dock.session.queue[-1])
        QTest.keyClick(qgis_canvas, "a")
        assert undo.isEnabled()
        end()
        assert not undo.isEnabled()
        QTest.keyClick(qgis_canvas, "u")
        assert part(dock, "review_message", QLabel).text().startswith("There is nothing to undo")


def test_ticks_of_classes_filter_and_bars_count(dock):
    table = dock.classes
    rows = {table.topLevelItem(row).text(0): table.topLevelItem(row) for row in range(table.topLevelItemCount())}
    assert [row.text(3) for row in rows.values()] == ["0 of 60", "0 of 20", "0 of 20", "0 of 20"]
    rows["ship"].setCheckState(0, Qt.CheckState.Unchecked)
    assert dock.session.left == 40
    assert rows["All"].checkState(0) == Qt.CheckState.PartiallyChecked
    rows["All"].setCheckState(0, Qt.CheckState.Checked)
    assert dock.session.left == 60
    rows["All"].setCheckState(0, Qt.CheckState.Unchecked)
    assert dock.session.left == 0
    rows["ship"].setCheckState(0, Qt.CheckState.Checked)
    assert {dock.session.objects[item].class_name for item in dock.session.shown} == {"ship"}
    dock.desk.decide(dock.session.shown[:5], ACCEPTED)
    assert rows["ship"].text(3) == "5 of 20"
    assert rows["All"].text(3) == "5 of 60"


def test_the_cut_hides_on_the_map_and_in_the_queue_and_touches_nothing(dock, layer):
    before, own = contents(layer), look.own_renderer(layer)
    dock.reviewed.decide([1], ACCEPTED)  # a building, of the lowest score
    dock.reviewed.undo()
    part(dock, "cut_class").setCurrentIndex(part(dock, "cut_class").findData("ship"))
    dock.cut._class_chosen()
    assert shades(layer) == {"building", "ship", "vehicle"}
    drag_cut(dock, 0.99)
    assert shades(layer) == {"building", "vehicle"}
    assert dock.session.left == 40
    assert (contents(layer), layer.isEditable(), layer.subsetString()) == (before, False, "")
    asked = answer(QMessageBox.StandardButton.Yes)
    dock.cut.apply()
    assert asked[0].startswith("Reject 20 objects?")
    assert {layer.getFeature(item)["class"] for item, status in statuses(layer).items() if status == REJECTED} == {
        "ship"
    }
    dock.close()
    assert layer.renderer().classAttribute() == own.classAttribute() == "class"
    assert shades(layer) == {"building", "ship", "vehicle"}


def test_accepted_objects_and_those_without_a_score_stay_whatever_the_cut(dock, layer):
    ship = next(item.id for item in dock.session.objects.values() if item.class_name == "ship")
    dock.reviewed.decide([ship], ACCEPTED)
    drag_cut(dock, 0.99)
    assert shades(layer) == {"ship"}
    dock.reviewed.decide([ship], REJECTED)
    assert shades(layer) == set()


def test_the_cut_of_what_has_no_class_is_the_same_on_the_map_and_in_the_queue(dock, layer):
    dock.close()
    field = layer.fields().indexOf("class")
    assert layer.dataProvider().changeAttributeValues({item: {field: NULL} for item in statuses(layer)})
    layer.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple({"color": "#ff0000", "outline_style": "no"})))
    dock.show()
    dock.review(layer)
    assert shades(layer) == {"building"}
    drag_cut(dock, 0.99)
    assert (dock.session.left, shades(layer)) == (0, set())


def test_what_is_changed_of_the_classes_look_in_a_review_stays(dock, layer, tmp_path):
    own = {
        category.value() or "": category.symbol().symbolLayer(0).properties()
        for category in look.own_renderer(layer).categories()
    }
    changed = layer.renderer().clone()
    places = {category.value(): place for place, category in enumerate(changed.categories())}
    changed.updateCategoryRenderState(places["ship"], False)
    changed.updateCategorySymbol(places["vehicle"], QgsFillSymbol.createSimple({"color": "#ff00ff"}))
    layer.setRenderer(changed)
    assert QgsProject.instance().write(str(tmp_path / "review.qgz"))  # takes the look off, and puts it on again
    QTest.qWait(10)
    dock.close()
    there = {category.value() or "": category for category in layer.renderer().categories()}
    assert set(there) == set(own)
    assert {value for value, category in there.items() if not category.renderState()} == {"ship"}
    assert there["vehicle"].symbol().color().name() == "#ff00ff"
    assert all(there[value].symbol().symbolLayer(0).properties() == own[value] for value in ("building", "ship", ""))


def test_any_look_takes_part_in_a_review_and_comes_back(layer, qgis_iface, dock):
    dock.close()
    layer.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple({"color": "#ff0000", "outline_style": "no"})))
    dock.show()
    dock.review(layer)
    assert shades(layer) == {"building"}
    drag_cut(dock, 0.99)
    assert shades(layer) == set()
    dock.close()
    assert layer.renderer().type() == "singleSymbol"
    assert shades(layer) == {"building"}


def test_the_cut_steps_aside_where_all_scores_are_equal(dock, layer):
    score = layer.fields().indexOf("score")
    layer.dataProvider().changeAttributeValues({item: {score: 1.0} for item in range(1, 61)})
    dock.layers.choose(None)
    dock.review(layer)
    assert part(dock, "cut_told", QLabel).text() == "All scores here are 1.00: there is nothing to cut."
    assert not dock.cut.view.isVisibleTo(dock.cut)
    QTest.mouseClick(dock.cut.view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(50, 10))
    assert dock.session.left == 60


def test_the_map_goes_along_and_keeps_its_scale_where_it_should(dock, layer, qgis_canvas):
    def middle():
        return layer.getGeometry(dock.session.current).boundingBox().center()

    qgis_canvas.setDestinationCrs(layer.crs())
    dock.desk.step(3)
    assert qgis_canvas.extent().contains(middle())
    # 12 m is five times as wide, which the window's shape may widen on.
    assert 59 < min(qgis_canvas.extent().width(), qgis_canvas.extent().height()) < 61
    dock.queue.zoom.setChecked(False)
    scale = qgis_canvas.scale()
    for _ in range(10):
        dock.desk.step(1)
        assert qgis_canvas.extent().contains(middle())
        assert qgis_canvas.scale() == pytest.approx(scale)


def test_scores_in_per_cent_are_looked_at(dock, layer):
    dock.close()
    layer.dataProvider().changeAttributeValues({1: {layer.fields().indexOf("score"): 87.0}})
    dock.show()
    dock.review(layer)
    assert (dock.session.left, 1 in dock.session.queue) == (60, True)


def test_a_layer_without_the_fields_is_offered_them(dock, tmp_path):
    polygons = QgsVectorLayer("Polygon?crs=EPSG:32631&field=name:string", "others", "memory")
    polygons.setCustomProperty("skipMemoryLayersCheck", 1)
    QgsProject.instance().addMapLayer(polygons)
    dock.layers.choose(polygons)
    assert dock.reviewed is None
    assert "class, score, status, edited, area_m2, run" in part(dock, "lacking_fields", QLabel).text()
    QTest.mouseClick(part(dock, "add_fields"), Qt.MouseButton.LeftButton)
    assert dock.reviewed.layer is polygons
    assert not part(dock, "add_fields").isVisibleTo(dock)


def test_the_layer_of_a_run_that_goes_on_is_not_offered(dock, layer, qgis_iface):
    live = LiveLayer("Found so far", "run", layer.fields(), layer.crs(), COLORS)
    assert dock.reviewed.layer is layer
    dock.layers.choose(None)
    qgis_iface.setActiveLayer(live.layer)
    offered = part(dock, "review_layer", QComboBox)
    assert [offered.itemText(row) for row in range(offered.count())] == ["Choose a layer of polygons", "objects"]
    dock.review()
    assert dock.reviewed.layer is layer
    kept = QgsProject.instance().addMapLayer(live.layer.clone())
    dock.review(kept)
    assert dock.reviewed.layer is kept
    later = ReviewDock(qgis_iface)
    assert part(later, "review_layer", QComboBox).count() == 3
    later.tear_down()
    later.deleteLater()


def test_a_layer_that_is_removed_leaves_an_empty_desk(dock, layer, qgis_canvas):
    QgsProject.instance().removeMapLayer(layer.id())
    assert dock.reviewed is None
    assert dock.session.left == 0
    assert part(dock, "review_object", QLabel).text() == "No layer is under review."
    assert part(dock, "review_layer", QComboBox).currentText() == "Choose a layer of polygons"
    QTest.keyClick(qgis_canvas, "a")
    QgsApplication.processEvents()


def drawn(layer, item, around=4):
    """The pixels of one object."""
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setOutputSize(QSize(200, 200))
    settings.setDestinationCrs(layer.crs())
    settings.setExtent(layer.getGeometry(item).boundingBox().buffered(around))
    context = QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer))
    context.appendScope(QgsExpressionContextUtils.mapSettingsScope(settings))  # as a map does
    settings.setExpressionContext(context)
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    image = job.renderedImage()
    return Counter(image.pixelColor(x, y).name() for x in range(image.width()) for y in range(image.height()))


@pytest.mark.parametrize("by_rules", [False, True])
def test_an_opaque_look_lets_the_imagery_through_in_a_review_and_comes_back(dock, layer, by_rules):
    dock.close()
    layer.setRenderer(QgsSingleSymbolRenderer(QgsFillSymbol.createSimple({"color": "#ff0000", "outline_style": "no"})))
    if by_rules:
        layer.setRenderer(QgsRuleBasedRenderer.convertFromRenderer(layer.renderer()))
    before, own = drawn(layer, 1), layer.renderer().dump()
    dock.show()
    dock.review(layer)
    under_review = drawn(layer, 1)
    assert 0 < under_review["#ff0000"] < 0.2 * before["#ff0000"]  # its edge
    assert under_review["#ffa6a6"] > 0.7 * before["#ff0000"]  # 35 % of it, on white
    dock.close()
    assert (drawn(layer, 1), layer.renderer().dump()) == (before, own)


@pytest.mark.parametrize("by_rules", [False, True])
def test_accepted_objects_have_a_wider_outline_of_their_class_s_colour(dock, layer, by_rules):
    if by_rules:
        dock.close()
        layer.setRenderer(QgsRuleBasedRenderer.convertFromRenderer(layer.renderer()))
        dock.show()
        dock.review(layer)
    color = COLORS[layer.getFeature(1)["class"]]
    pending = drawn(layer, 1)[color]
    dock.reviewed.decide([1], ACCEPTED)
    accepted = drawn(layer, 1)[color]
    assert accepted > 2 * pending > 0
    dock.close()
    assert drawn(layer, 1)[color] == pending


def test_the_wider_outline_hides_no_object_that_is_small_on_the_screen(dock, layer):
    color = COLORS[layer.getFeature(1)["class"]]
    pending = drawn(layer, 1, around=150)
    dock.reviewed.decide([1], ACCEPTED)
    assert drawn(layer, 1, around=150)[color] <= 1.5 * pending[color] > 0


def test_a_look_can_be_taken_off_just_as_maps_begin_to_draw_it(qgis_app):
    layer = QgsVectorLayer("MultiPolygon?field=class:string&field=score:double&field=status:string", "none", "memory")
    style_result(layer, COLORS)
    settings = QgsMapSettings()
    settings.setLayers([layer])
    settings.setOutputSize(QSize(50, 50))
    settings.setExtent(QgsRectangle(0, 0, 50, 50))
    for _ in range(800):  # QGIS crashed within some hundreds of times
        look.put_on(layer)
        jobs = [QgsMapRendererSequentialJob(settings) for _ in range(2)]
        for job in jobs:
            job.start()
        look.take_off(layer)
        for job in jobs:
            job.waitForFinished()
    assert look.own_renderer(layer) is None


@pytest.mark.parametrize("fails", [False, True])
def test_a_project_that_is_saved_in_a_review_has_the_layer_s_own_look(dock, layer, tmp_path, fails):
    own = look.own_renderer(layer)
    dock.reviewed.decide([1], ACCEPTED)
    drag_cut(dock, 0.99)
    project, path = QgsProject.instance(), tmp_path / ("none/review.qgz" if fails else "review.qgz")
    assert project.write(str(path)) != fails
    QTest.qWait(10)
    assert shades(layer) == {"building"}  # what the cut leaves: it is on again
    if fails:
        return
    assert not project.isDirty()
    saved = QgsProject()
    assert saved.read(str(path))
    (there,) = saved.mapLayers().values()
    assert there.renderer().classAttribute() == own.classAttribute()
    assert shades(there) == {"building", "ship", "vehicle"}


def test_a_layer_in_memory_is_told_to_be_lost_with_qgis(dock):
    polygons = QgsVectorLayer("Polygon?crs=EPSG:32631", "temporary", "memory")
    polygons.setCustomProperty("skipMemoryLayersCheck", 1)
    QgsProject.instance().addMapLayer(polygons)
    dock.layers.choose(polygons)
    dock.layers.add_fields()
    assert dock.reviewed.layer is polygons
    assert "lost when QGIS closes" in part(dock, "saving_state", QLabel).text()


def test_work_on_many_objects_shows_that_it_goes_on(dock, layer):
    cursors = []

    def look(*_):
        cursor = QApplication.overrideCursor()
        cursors.append(None if cursor is None else cursor.shape())

    dock.reviewed.changed.connect(look)
    layer.selectAll()
    dock.desk.decide(layer.selectedFeatureIds(), ACCEPTED)
    dock.desk.undo()
    dock.edits.work.editor.redraw(1, layer.getGeometry(1).densifyByCount(3))
    cursors.pop()
    dock.edits.work.guarded(dock.edits.work.simplify, 0.5)
    assert cursors == [Qt.CursorShape.WaitCursor] * 3
    assert QApplication.overrideCursor() is None
    layer.rollBack()


def test_a_line_or_a_hole_that_misses_says_so(dock, layer):
    x, y = layer.extent().xMinimum() - 100, layer.extent().yMinimum() - 100
    points = [QgsPointXY(x, y), QgsPointXY(x + 9, y), QgsPointXY(x + 9, y + 9)]
    for edit, told in ((dock.edits.work.split, "The line cuts nothing"), (dock.edits.work.cut_hole, "lies in no")):
        dock.edits.work.guarded(edit, points)
        assert told in part(dock, "review_message", QLabel).text()


def test_the_histogram_s_line_is_dragged_with_the_mouse(dock):
    view = dock.cut.view
    at = round(view.position(0.35))
    QTest.mousePress(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QPoint(at, 10))
    assert dock.cut.value.value() == pytest.approx(0.35, abs=0.011)
    assert QColor(COLORS["ship"]).name() == dock.desk.colors["ship"]
