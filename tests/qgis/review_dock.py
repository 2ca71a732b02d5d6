"""The review panel as a person has it before them."""

from collections.abc import Iterator
from contextlib import contextmanager

from qgis.core import QgsVectorLayer
from qgis.gui import QgisInterface, QgsMapCanvas
from qgis.PyQt.QtTest import QTest

from rs4d_qgis.review.panel import ReviewDock


@contextmanager
def on_screen(layer: QgsVectorLayer, iface: QgisInterface, canvas: QgsMapCanvas) -> Iterator[ReviewDock]:
    """The panel with this layer under review, on a map in the layer's CRS; torn down afterwards."""
    canvas.setDestinationCrs(layer.crs())
    dock = ReviewDock(iface)
    dock.setFloating(True)
    dock.show()
    QTest.qWaitForWindowExposed(dock)
    dock.review(layer)
    yield dock
    dock.tear_down()
    dock.deleteLater()
