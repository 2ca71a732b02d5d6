"""Drawing a rectangle on the map."""

from __future__ import annotations

from qgis.core import QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapToolExtent
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt, pyqtSignal

from rs4d_qgis.dock.borrowed import Borrowed


class DrawTool(Borrowed, QgsMapToolExtent):
    """The map's tool until a rectangle is dragged, or Escape or the right button is pressed.

    Signals:
        drawn(QgsRectangle): in the map's CRS.
    """

    drawn = pyqtSignal(QgsRectangle)

    def __init__(self, canvas: QgsMapCanvas):
        super().__init__(canvas)
        # The map's, as all tools. PyQGIS leaves this kind to Python, whose garbage may be collected on any thread.
        sip.transferto(self, canvas)
        self.extentChanged.connect(self._drawn)

    def keyPressEvent(self, event) -> None:
        """Escape gives up. Keys that QGIS deletes the selected objects on do nothing while one draws."""
        if event.key() == Qt.Key.Key_Escape:
            self.stop()
        elif event.key() not in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            super().keyPressEvent(event)
            return
        event.ignore()  # of map tools: "it is done with"

    def canvasReleaseEvent(self, event) -> None:
        """The right button gives up, the left one ends the rectangle."""
        if event.button() == Qt.MouseButton.RightButton:
            self.stop()
        else:
            super().canvasReleaseEvent(event)

    def _drawn(self, rectangle: QgsRectangle) -> None:
        # A click without a drag is no rectangle: the user is still to draw one.
        if rectangle.width() > 0 and rectangle.height() > 0:
            self.stop()
            self.drawn.emit(QgsRectangle(rectangle))
