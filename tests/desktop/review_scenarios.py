"""What an analyst does at the desk, played in QGIS by `driver.py`."""

import os
import time

from qgis.core import QgsVectorLayer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QWidget

from rs4d_qgis.layers.results import style_result

COLORS = ["#ff6f61", "#0082c8", "#aa6ef0", "#f5b700", "#3cb44b", "#e6194b", "#46f0f0", "#808000", "#fabebe", "#9a6324"]


def load_result(desk, path=None, name="instances"):
    """A result layer, with the look that a run gives it."""
    layer = QgsVectorLayer(f"{path or os.environ['LAYER']}|layername=instances", name, "ogr")
    assert layer.isValid()
    layer.setCustomProperty("skipMemoryLayersCheck", 1)
    classes = sorted(layer.uniqueValues(layer.fields().indexOf("class")))
    style_result(layer, dict(zip(classes, COLORS)))
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
