"""Evaluation on the desk: a layer with unsaved edits against a reference, by the real engine."""

import pytest
from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QEvent, QPoint, QPointF, Qt
from qgis.PyQt.QtGui import QMouseEvent

from rs4d_qgis.layers.results import result_fields, style_result
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.curve import Curve
from rs4d_qgis.review.outcome.curve_view import CurveView
from rs4d_qgis.review.outcome.evaluate_box import EvaluateBox

ORIGIN = (440_000.0, 4_640_000.0)


def box(west: float, south: float, width: float = 10, height: float = 10) -> QgsGeometry:
    x, y = ORIGIN[0] + west, ORIGIN[1] + south
    return QgsGeometry.fromRect(QgsRectangle(x, y, x + width, y + height))


def add(layer: QgsVectorLayer, geometry: QgsGeometry, values: list) -> None:
    feature = QgsFeature(layer.fields())
    shape = QgsGeometry(geometry)
    shape.transform(
        QgsCoordinateTransform(QgsCoordinateReferenceSystem("EPSG:32631"), layer.crs(), QgsProject.instance())
    )
    shape.convertToMultiType()
    feature.setGeometry(shape)
    feature.setAttributes(values)
    assert layer.dataProvider().addFeature(feature)


@pytest.fixture
def desk(provider, qgis_iface) -> DeskState:
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:32631", "harbour", "memory")
    layer.dataProvider().addAttributes(result_fields().toList())
    layer.updateFields()
    for place, name, score, status in (
        (box(0, 0), "ship", 0.9, "pending"),
        (box(105, 0), "building", 0.8, "accepted"),  # half beside
        (box(200, 0), "building", 0.7, "pending"),  # the reference calls it a ship
        (box(400, 0), "ship", 0.6, "pending"),  # nothing there
        (box(500, 0), "ship", 0.5, "rejected"),  # nothing there either
    ):
        add(layer, place, [name, score, status, False, place.area(), "run-1"])
    style_result(layer, {"ship": "#e41a1c", "building": "#377eb8"})
    QgsProject.instance().addMapLayer(layer)
    desk = DeskState(qgis_iface)
    desk.review(layer)
    yield desk
    desk.review(None)
    QgsProject.instance().clear()


@pytest.fixture
def reference(desk) -> QgsVectorLayer:
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:4326&field=kind:string", "truth", "memory")
    places = [(box(0, 0), "ship"), (box(100, 0), "building"), (box(200, 0), "ship"), (box(300, 0), "ship")]
    for place, name in places:
        add(layer, place, [name])
    return QgsProject.instance().addMapLayer(layer)


@pytest.fixture
def evaluate(qtbot, desk, reference, qgis_iface):
    widget = EvaluateBox(desk, qgis_iface)
    qtbot.addWidget(widget)

    def run(class_field: str = "kind"):
        widget.reference.setLayer(reference)
        widget.class_field.setField(class_field)
        widget.run_button.click()
        qtbot.waitUntil(lambda: not widget.work.busy, timeout=60_000)

    run.widget = widget
    return run


def rows(widget: EvaluateBox) -> dict[str, list[str]]:
    items = [widget.table.topLevelItem(row) for row in range(widget.table.topLevelItemCount())]
    return {item.text(0): [item.text(column) for column in range(1, 7)] for item in items}


def errors_of(name: str = "Errors of harbour") -> list[QgsVectorLayer]:
    return QgsProject.instance().mapLayersByName(name)


def test_figures_of_a_layer_with_unsaved_edits_and_decisions(desk, evaluate):
    evaluate()
    assert rows(evaluate.widget) == {
        "All": ["17", "25", "25", "25", "100", "4"],
        "building": ["0", "0", "0", "0", "–", "1"],
        "ship": ["34", "50", "33", "40", "100", "3"],
    }
    tips = [evaluate.widget.table.topLevelItem(row).toolTip(0) for row in range(3)]
    assert tips[0] == "All: 4 found, 4 in the reference, 1 matched"
    assert "1 rejected in review, not counted" in evaluate.widget.work.told
    assert "/tmp/" not in evaluate.widget.work.told
    layer = desk.reviewed.layer
    halfway, false = (item.id for item in desk.session.objects.values() if item.score in (0.8, 0.6))
    with desk.reviewed.edit("Move"):
        layer.changeGeometry(halfway, box(100, 0))
    desk.decide([false], "rejected")
    evaluate()
    assert rows(evaluate.widget)["All"] == ["67", "67", "50", "57", "100", "4"]
    assert len(errors_of()) == 1
    layer.rollBack()


def test_one_walks_through_the_errors_on_the_map(desk, evaluate, qgis_canvas):
    qgis_canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    evaluate()
    widget = evaluate.widget
    (layer,) = errors_of()
    assert layer.crs().authid() == "EPSG:32631"
    labels = [widget.kind.itemText(row) for row in range(widget.kind.count())]
    assert labels == ["All errors (4)", "missed (1)", "false (1)", "badly shaped (1)", "wrong class (1)"]
    assert {category.value() for category in layer.renderer().categories()} == {
        "missed",
        "false",
        "badly shaped",
        "wrong class",
    }
    told = []
    for _ in range(4):
        widget.next_button.click()
        told.append(widget.error.text())
        place = widget.spotlight.band.asGeometry().boundingBox()
        assert qgis_canvas.extent().contains(place)
        assert qgis_canvas.extent().height() < 10 * place.height()
    assert told == [
        "1 of 4: missed, ship",
        "2 of 4: badly shaped, building, IoU 0.33, score 0.80",
        "3 of 4: wrong class, building, the reference says ship, IoU 1.00, score 0.70",
        "4 of 4: false, ship, score 0.60",
    ]
    widget.next_button.click()
    assert widget.error.text().startswith("1 of 4")
    widget.previous_button.click()
    assert widget.error.text().startswith("4 of 4")
    widget.kind.setCurrentIndex(widget.kind.findData("false"))
    widget.previous_button.click()
    assert widget.error.text() == "1 of 1: false, ship, score 0.60"
    QgsProject.instance().removeMapLayer(layer.id())
    widget.next_button.click()  # does nothing, and no harm
    evaluate()
    assert len(errors_of()) == 1


def test_objects_without_a_score_are_on_no_cut_and_say_so(desk, evaluate):
    scored = {item.id: item.score for item in desk.session.objects.values()}
    with desk.reviewed.edit("No scores"):
        for item, score in scored.items():
            if score != 0.9:
                desk.reviewed.layer.changeAttributeValue(item, desk.reviewed.field("score"), NULL)
    evaluate()
    assert evaluate.widget.best.text() == "F1 is best, 0.40, with a cut at score 0.90."
    told = []
    for _ in range(4):
        evaluate.widget.next_button.click()
        told.append(evaluate.widget.error.text())
    assert told[0] == "1 of 4: missed, ship"
    assert all(text.endswith("no score") for text in told[1:])
    desk.reviewed.undo()
    with desk.reviewed.edit("No scores"):
        for item in scored:
            desk.reviewed.layer.changeAttributeValue(item, desk.reviewed.field("score"), NULL)
    evaluate()
    assert "no curve without scores" in evaluate.widget.best.text()
    desk.reviewed.layer.rollBack()


def test_a_reference_without_classes(evaluate):
    evaluate("")
    assert list(rows(evaluate.widget)) == ["All"]
    assert rows(evaluate.widget)["All"][1:3] == ["50", "50"]
    assert "classes were not compared" in evaluate.widget.work.told


def test_what_cannot_be_compared_is_told(evaluate, reference):
    reference.setCrs(QgsCoordinateReferenceSystem())
    evaluate()
    assert "“truth”: no CRS" in evaluate.widget.work.told
    assert not evaluate.widget.table.isVisibleTo(evaluate.widget)
    assert errors_of() == []


def test_another_layer_takes_the_figures_away(desk, evaluate):
    evaluate()
    assert evaluate.widget.table.isVisibleTo(evaluate.widget)
    evaluate.widget.next_button.click()
    desk.review(None)
    assert evaluate.widget.spotlight.band is None
    assert not evaluate.widget.table.isVisibleTo(evaluate.widget)
    assert not evaluate.widget.run_button.isEnabled()


def move(widget: CurveView, x: float) -> None:
    place, left = QPointF(x, 40), Qt.MouseButton.NoButton
    widget.mouseMoveEvent(QMouseEvent(QEvent.Type.MouseMove, place, left, left, Qt.KeyboardModifier.NoModifier))


def test_the_curve_tells_the_score_under_the_mouse(qtbot):
    view = CurveView()
    qtbot.addWidget(view)
    view.resize(300, 160)
    view.show_curve(Curve((0.9, 0.6, 0.3), (1.0, 0.75, 0.5), (0.25, 0.75, 1.0)))
    view.show()
    move(view, view.position(1) + 3)
    assert view.reading == "at 0.60: precision 0.75, recall 0.75"
    move(view, 0)
    assert view.reading.startswith("at 0.30")
    move(view, 300)
    assert view.reading.startswith("at 0.90")
    view.leaveEvent(QEvent(QEvent.Type.Leave))
    assert view.reading == ""
    picture = view.grab().toImage()
    colors = {picture.pixelColor(QPoint(x, y)).name() for x in range(300) for y in range(160)}
    assert {"#3b7dd8", "#e07b39"} <= colors
    for curve in (Curve(), Curve((0.5,), (1.0,), (1.0,)), Curve((0.5, 0.5), (0.0, 0.0), (0.0, 0.0))):
        view.show_curve(curve)
        move(view, 100)
        assert not view.grab().isNull()
    assert Curve((0.9, 0.6, 0.3), (1.0, 0.75, 0.5), (0.25, 0.75, 1.0)).best() == 1
    assert Curve.told(None).best() is None
    assert Curve((0.5, 0.2), (0.0, 0.0), (0.0, 0.0)).best() is None


def test_errors_that_a_project_has_lost_are_taken_away_with_their_numbers(evaluate, desk, tmp_path):
    evaluate()
    project = QgsProject.instance()
    assert any(layer.name().startswith("Errors of") for layer in project.mapLayers().values())
    assert project.write(str(tmp_path / "project.qgz"))
    desk.review(None)
    project.clear()
    project.read(str(tmp_path / "project.qgz"))
    assert sorted(layer.name() for layer in project.mapLayers().values()) == ["harbour", "truth"]
    assert not project.isDirty()
