"""What an analyst does at the desk, played in QGIS by `driver.py`."""

import os
import time

from map_mouse import draw
from qgis.core import QgsVectorLayer
from qgis.PyQt.QtCore import QEventLoop, Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QLabel, QWidget

from rs4d_qgis.layers.results import style_result

COLORS = ["#ff6f61", "#0082c8", "#aa6ef0", "#f5b700", "#3cb44b", "#e6194b", "#46f0f0", "#808000", "#fabebe", "#9a6324"]


def load_result(desk, path=None, name="instances"):
    """A result layer, with the look that a run gives it."""
    layer = QgsVectorLayer(f"{path or os.environ['LAYER']}|layername=instances", name, "ogr")
    assert layer.isValid()
    layer.setCustomProperty("skipMemoryLayersCheck", 1)
    classes = sorted(layer.uniqueValues(layer.fields().indexOf("class")))
    style_result(layer, dict(zip(classes, COLORS, strict=False)))
    desk.project.addMapLayer(layer)
    return layer


def open_review(desk, layer):
    """The panel with a layer, and the map at its first object."""
    desk.iface.setActiveLayer(layer)
    desk.plugin.show_review()
    yield lambda: desk.review.reviewed is not None and desk.review.isVisible()
    yield lambda: not desk.canvas.isDrawing()


def key(desk, keys):
    """Press and release, wherever the focus is: it should be on the map."""
    QTest.keyClicks(desk.iface.mapCanvas(), keys)


def widget(desk, name, kind=QWidget):
    """A part of the review panel."""
    found = desk.review.findChild(kind, name)
    assert found is not None, name
    return found


def settled(desk):
    """Until the map stands still."""
    pause = time.monotonic() + 0.4
    yield lambda: time.monotonic() > pause and not desk.canvas.isDrawing()


def first_look(desk):
    """The panel beside the segment panel, in the real desktop."""
    desk.load(os.environ["SCENE"], "harbour")
    layer = load_result(desk)
    desk.plugin.show_panel()
    yield from open_review(desk, layer)
    yield from settled(desk)
    desk.shot("opened")
    key(desk, "aaras")
    yield from settled(desk)
    desk.shot("decided")
    desk.report["counts"] = {name: dict(count) for name, count in desk.review.session.counts().items()}


def _drawn(desk, act):
    """Seconds that `act` takes, and until the map is drawn whole after it."""
    drawn = []

    def note():
        drawn.append(time.perf_counter())

    desk.canvas.mapCanvasRefreshed.connect(note)
    start = time.perf_counter()
    act()
    QApplication.processEvents()
    done = time.perf_counter()
    while not drawn or desk.canvas.isDrawing():
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 2)
        assert time.perf_counter() - start < 60
    desk.canvas.mapCanvasRefreshed.disconnect(note)
    return done - start, drawn[-1] - start


def times_of_a_large_layer(desk):
    """How long it takes to open the review, to go on to the next object, and to move the cut."""
    desk.iface.mainWindow().resize(1400, 900)
    scene = desk.load(os.environ["SCENE"], "scene")
    layer = load_result(desk)
    yield lambda: len(desk.canvas.layers()) == 2 and not desk.canvas.isDrawing()
    desk.iface.setActiveLayer(layer)
    desk.report["opened_s"] = _drawn(desk, desk.plugin.show_review)
    assert desk.review.session.left == layer.featureCount()
    yield from settled(desk)
    desk.shot("large")
    for name, zooms in (("next_s", True), ("next_without_zoom_s", False)):
        desk.review.queue.zoom.setChecked(zooms)
        yield from settled(desk)
        desk.report[name] = []
        for number in range(200):
            before = desk.review.session.current
            desk.report[name].append(_drawn(desk, lambda number=number: key(desk, "aar"[number % 3])))
            assert desk.review.session.current != before
            yield lambda: True
    desk.report["cut_s"], desk.report["full_look_s"] = {}, {}
    desk.report["map"] = [desk.canvas.width(), desk.canvas.height()]
    for name, extent in (("near", desk.canvas.extent()), ("whole", scene.extent())):
        desk.canvas.setExtent(extent)
        desk.canvas.refresh()
        yield from settled(desk)
        times = desk.report["cut_s"][f"map {name}, from rest"] = []
        for number in range(20):
            times.append(_on_screen(desk, 0.2 + number / 50))
            yield from settled(desk)
        desk.report["cut_s"][f"map {name}, while dragged"] = [
            _on_screen(desk, 0.2 + number / 50) for number in range(20)
        ]
        desk.shot(f"cut_{name}")
        start = time.perf_counter()
        yield from settled(desk)
        desk.report["full_look_s"][name] = time.perf_counter() - start
    desk.shot("cut")
    start = time.perf_counter()
    ids = desk.review.session.shown
    desk.review.desk.decide(ids, "rejected")
    desk.report["reject_all_s"] = [len(ids), time.perf_counter() - start]


def _on_screen(desk, score):
    """Seconds until the panel has answered to a move of the cut, and until the map on the screen shows it."""
    cut, drawn = desk.review.cut, []

    def note():
        drawn.append(True)

    desk.canvas.mapCanvasRefreshed.connect(note)
    start = time.perf_counter()
    _cut(desk, score)
    done = time.perf_counter()
    while not (cut.preview.in_sight if cut.preview.on else drawn and not cut._behind and not desk.canvas.isDrawing()):
        QApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 2)
        assert time.perf_counter() - start < 60
    desk.canvas.viewport().repaint()
    shown = time.perf_counter()
    desk.canvas.mapCanvasRefreshed.disconnect(note)
    return done - start, shown - start


def _cut(desk, score):
    desk.review.cut.view.dragged.emit(score)


def analyst(desk):
    """Thirty objects decided on by keys; two merged, one split; three steps undone; a cut moved; COCO exported."""
    report = desk.report
    desk.iface.mainWindow().resize(1400, 900)
    desk.load(os.environ["SCENE"], "harbour")
    layer = load_result(desk)
    yield from open_review(desk, layer)
    yield from settled(desk)
    desk.shot("opened")

    report["decided"] = []
    for press in "aararaaraa" * 3:
        report["decided"].append([desk.review.session.current, press])
        key(desk, press)
        yield lambda: True
    report["after_keys"] = _statuses(layer)
    report["in_file"] = _statuses(QgsVectorLayer(layer.source(), "again", "ogr"))
    report["told"] = widget(desk, "review_place", QLabel).text()
    yield from settled(desk)
    desk.shot("decided")

    tanks = [f for f in layer.getFeatures() if f["class"] == "storage_tank" and f["status"] == "accepted"]
    layer.selectByIds([tank.id() for tank in tanks[:2]])
    key(desk, "m")
    layer.removeSelection()
    report["merged"] = [sorted(tank.id() for tank in tanks[:2]), layer.featureCount()]
    ship = max((f for f in layer.getFeatures() if f["class"] == "ship"), key=lambda f: f["score"])
    layer.selectByIds([ship.id()])
    desk.canvas.zoomToFeatureExtent(ship.geometry().boundingBox().buffered(10))
    yield from settled(desk)
    box = ship.geometry().boundingBox()
    key(desk, "x")
    draw(desk.canvas, [(box.center().x(), box.yMinimum() - 4), (box.center().x(), box.yMaximum() + 4)])
    QTest.keyClick(desk.canvas, Qt.Key.Key_Escape)
    layer.removeSelection()
    report["split"] = [ship.id(), layer.featureCount()]
    yield from settled(desk)
    desk.shot("split")
    for _ in range(3):
        key(desk, "u")
        yield lambda: True
    report["after_undo"] = _statuses(layer)
    report["count_after_undo"] = layer.featureCount()
    report["current_after_undo"] = desk.review.session.current
    for _ in range(3):
        desk.review.reviewed.redo()
    report["count_after_redo"] = layer.featureCount()

    waiting = sorted(f["score"] for f in layer.getFeatures() if f["status"] == "pending")
    _cut(desk, round(waiting[len(waiting) // 2], 2))
    yield from settled(desk)
    kept = sum(score >= round(waiting[len(waiting) // 2], 2) for score in waiting)
    report["left_by_cut"] = [desk.review.session.left, kept, len(waiting)]
    report["after_cut"] = _statuses(layer)
    desk.shot("cut")
    _cut(desk, 0.0)
    yield from settled(desk)

    export = desk.review.export
    desk.review.tabs.setCurrentIndex(1)
    export.objects.setCurrentIndex(export.objects.findData("accepted"))
    (row,) = (row for row in range(export.format.count()) if export.format.itemData(row).name == "coco")
    export.format.setCurrentIndex(row)
    export.file.setFilePath(os.environ["COCO"])
    QTest.mouseClick(export.export_button, Qt.MouseButton.LeftButton)
    yield lambda: not export.work.busy
    report["exported"] = export.work.told
    report["accepted"] = [
        [feature["class"], feature.geometry().asWkt(6)]
        for feature in layer.getFeatures()
        if feature["status"] == "accepted"
    ]
    desk.shot("exported")
    desk.review.tabs.setCurrentIndex(2)
    yield from settled(desk)
    desk.shot("evaluate")
    desk.review.tabs.setCurrentIndex(0)
    widget(desk, "save_edits").click()
    report["saved"] = widget(desk, "saving_state", QLabel).text()
    desk.review.close()
    report["own_look"] = layer.renderer().type(), layer.renderer().classAttribute()


def _statuses(layer):
    return {str(feature.id()): feature["status"] for feature in layer.getFeatures()}


def decides_until_killed(desk):
    """One object after the other; each decision is written down, with its time, once the key was handled."""
    layer = load_result(desk)
    yield from open_review(desk, layer)
    with open(os.environ["DECISIONS"], "a") as log:
        while desk.review.session.current is not None:
            item = desk.review.session.current
            key(desk, "a")
            log.write(f"{item} {time.time()}\n")
            log.flush()
            pause = time.monotonic() + 0.03
            yield lambda pause=pause: time.monotonic() > pause
