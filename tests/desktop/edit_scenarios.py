"""An analyst corrects objects at the desk, played in QGIS by `driver.py`: all by mouse and keys."""

import os
import sys
import zipfile
from pathlib import Path

from qgis.core import QgsPointXY, QgsVectorLayer
from qgis.PyQt.QtCore import QPoint, Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QComboBox, QLabel

sys.path.insert(0, str(Path(__file__).parent))
from review_scenarios import key, load_result, open_review, settled, widget

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton
NOTHING = Qt.KeyboardModifier.NoModifier


def place(desk, x, y):
    """A point of the map's CRS on the screen."""
    pixel = desk.canvas.getCoordinateTransform().transform(QgsPointXY(x, y))
    return QPoint(round(pixel.x()), round(pixel.y()))


def click(desk, x, y, button=LEFT):
    """Press and release over a point of the map's CRS."""
    view, point = desk.canvas.viewport(), place(desk, x, y)
    QTest.mouseMove(view, point)
    QTest.mouseClick(view, button, NOTHING, point)


def draw(desk, points):
    """Corner by corner; the right button ends it."""
    for x, y in points:
        click(desk, x, y)
    click(desk, *points[-1], button=RIGHT)


def drag(desk, start, end):
    """From one point of the map's CRS to another."""
    view = desk.canvas.viewport()
    points = [place(desk, *start), place(desk, *end)]
    QTest.mouseMove(view, points[0])
    QTest.mousePress(view, LEFT, NOTHING, points[0])
    for point in ((points[0] + points[1]) / 2, points[1]):
        QTest.mouseMove(view, point, 20)
        QApplication.processEvents()
    QTest.mouseRelease(view, LEFT, NOTHING, points[1])


def state(layer):
    """All features, to the byte."""
    return {f.id(): (*map(repr, f.attributes()), bytes(f.geometry().asWkb())) for f in layer.getFeatures()}


def deletes_nothing(desk):
    """Backspace and letters in the middle of a drawing, with an object selected; then the project is saved."""
    layer = load_result(desk)
    yield from open_review(desk, layer)
    yield from settled(desk)
    report, canvas = desk.report, desk.canvas
    first = state(layer)
    layer.selectByIds([desk.review.session.current])
    layer.startEditing()
    middle, step = canvas.extent().center(), canvas.extent().width() / 8
    for tool in "dx":
        key(desk, tool)
        for x in (0, step, 2 * step):
            click(desk, middle.x() + x, middle.y() + x)
        for _ in range(2):
            QTest.keyClick(canvas, Qt.Key.Key_Backspace)
        key(desk, "ar5u")
        for _ in range(2):  # more than there are corners
            QTest.keyClick(canvas, Qt.Key.Key_Backspace)
        QTest.keyClick(canvas, Qt.Key.Key_Escape)
    key(desk, "b")
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    yield from settled(desk)
    report["untouched"] = state(layer) == first
    # The same key with a tool of QGIS's own: it is the drawing that kept it from deleting.
    desk.iface.actionPan().trigger()
    QTest.keyClick(canvas, Qt.Key.Key_Backspace)
    yield from settled(desk)
    report["deleted_by_qgis"] = len(first) - len(state(layer))
    # Discarded once the desk is closed: decisions stay, and nothing is told of a crash.
    desk.review.reviewed.undo()
    layer.removeSelection()
    key(desk, "ar")
    yield from settled(desk)
    decided = state(layer)
    key(desk, "i")
    desk.review.close()
    yield from settled(desk)
    layer.rollBack()
    yield from settled(desk)
    report["decisions_kept"] = [state(layer) == decided, decided != first]
    desk.plugin.show_review()
    yield lambda: desk.review.reviewed is not None
    report["found"] = len(desk.review.desk.keeper.found)
    desk.review.cut.view.dragged.emit(0.99)
    yield from settled(desk)
    path = Path(os.environ["RS4D_DESK_FOLDER"]) / "review.qgz"
    report["written"] = desk.project.write(str(path))
    yield from settled(desk)
    report["look"] = "rs4d-review" in layer.renderer().classAttribute()
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".qgs"))
        report["in_project"] = "rs4d-review" in archive.read(name).decode()
    desk.shot("after_saving")
    desk.load(os.environ["SCENE"], "scene")
    desk.project.removeMapLayer(layer.id())
    yield from settled(desk)
    report["list"] = widget(desk, "review_layer", QComboBox).currentText()


def overlap(one, other):
    """Intersection over union of two geometries."""
    shared = one.intersection(other).area()
    return shared / (one.area() + other.area() - shared)


def corrects(desk):
    """Each edit on real objects, with pictures."""
    desk.load(os.environ["SCENE"], "scene")
    layer = load_result(desk)
    yield from open_review(desk, layer)
    yield from settled(desk)
    report, review = desk.report, desk.review
    session, stack = review.session, layer.undoStack()
    said = widget(desk, "review_message", QLabel)
    first = state(layer)

    # The building that was found best, zoomed to.
    there = [f.geometry() for f in QgsVectorLayer(os.environ["TRUTH"]).getFeatures() if f["class"] == "building"]
    found = [f for f in layer.getFeatures() if f["class"] == "building"]
    big = max(found, key=lambda f: max(overlap(f.geometry(), other) for other in there))
    review.desk.go(big.id())
    layer.selectByIds([big.id()])
    yield from settled(desk)
    box = big.geometry().boundingBox()
    middle = box.center()
    desk.shot("edit_bar")

    key(desk, "x")
    assert widget(desk, "edit_split").isChecked()
    draw(desk, [(middle.x(), box.yMinimum() - 4), (middle.x() + 1, box.yMaximum() + 4)])
    report["split"] = [stack.count(), len(state(layer)) - len(first), said.text()]
    QTest.keyClick(desk.canvas, Qt.Key.Key_Escape)
    assert not widget(desk, "edit_split").isChecked()
    pieces = [f for f in layer.getFeatures() if f["edited"]]
    yield from settled(desk)
    desk.shot("split")

    layer.selectByIds([f.id() for f in pieces])
    assert widget(desk, "edit_merge").isEnabled()
    key(desk, "m")
    report["merge"] = [stack.count(), len(state(layer)) - len(first)]

    key(desk, "h")
    pole, room = big.geometry().poleOfInaccessibility(0.1)
    x, y, side = pole.asPoint().x(), pole.asPoint().y(), room / 2
    click(desk, x - side, y - side)
    click(desk, x + side, y - side)
    QTest.mouseMove(desk.canvas.viewport(), place(desk, x + side, y + side))
    yield from settled(desk)
    desk.shot("drawing_a_hole")
    click(desk, x + side, y + side)
    click(desk, x - side, y + side)
    QTest.keyClick(desk.canvas, Qt.Key.Key_Return)
    report["hole"] = [stack.count(), widget(desk, "edit_fill").isEnabled(), said.text()]
    QTest.keyClick(desk.canvas, Qt.Key.Key_Escape)
    key(desk, "f")
    report["fill"] = [stack.count(), widget(desk, "edit_fill").isEnabled()]
    key(desk, "v")
    report["revert"] = [stack.count(), state(layer) == first]

    key(desk, "o")
    yield lambda: not review.edits.work.engine.busy
    report["angles"] = [stack.count(), said.text(), state(layer) != first]
    yield from settled(desk)
    desk.shot("right_angles")

    # As if it had been missed: away with it, and a box around its place.
    with review.reviewed.edit("missed"):
        layer.deleteFeature(big.id())
    before = stack.count()
    layer.removeSelection()
    key(desk, "b")
    drag(desk, (box.xMinimum() - 3, box.yMinimum() - 3), (box.xMaximum() + 3, box.yMaximum() + 3))
    yield lambda: not review.edits.work.engine.busy
    report["box"] = [stack.count() - before, said.text()]
    (new,) = layer.selectedFeatures()
    report["iou"] = overlap(new.geometry(), big.geometry())
    report["new"] = [new["class"], new["status"], bool(new["edited"]), new["area_m2"] > 0]
    yield from settled(desk)
    desk.shot("outlined")

    # A box around what is there gives that another outline.
    before, number = stack.count(), len(state(layer))
    drag(desk, (box.xMinimum() - 2, box.yMinimum() - 2), (box.xMaximum() + 2, box.yMaximum() + 2))
    yield lambda: not review.edits.work.engine.busy
    report["box again"] = [stack.count() - before, len(state(layer)) - number, said.text()]
    QTest.keyClick(desk.canvas, Qt.Key.Key_Escape)

    key(desk, "t")
    yield from settled(desk)
    report["vertices"] = [desk.iface.actionVertexToolActiveLayer().isChecked(), layer.isEditable()]
    while stack.canUndo():
        key(desk, "u")
    report["undone"] = state(layer) == first
    report["objects"] = len(session.objects)
    layer.rollBack()
