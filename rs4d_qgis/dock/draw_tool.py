"""Drawing a rectangle on the map."""

from __future__ import annotations

from qgis.core import QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapToolExtent
from qgis.PyQt.QtCore import Qt, pyqtSignal


class DrawTool(QgsMapToolExtent):
    """The map's tool until a rectangle is dragged, or Escape or the right button is pressed.

    Signals:
        drawn(QgsRectangle): in the map's CRS.
    """

    drawn = pyqtSignal(QgsRectangle)

    def __init__(self, canvas: QgsMapCanvas):
        super().__init__(canvas)
        self._before = None
        self.extentChanged.connect(self._drawn)

    def start(self) -> None:
        """Take the mouse."""
        if self.canvas().mapTool() is not self:
            self._before = self.canvas().mapTool()
            self.canvas().setMapTool(self)
        self.canvas().setFocus()

    def stop(self) -> None:
        """Give the mouse back to the tool that had it."""
        if self.canvas().mapTool() is not self:
            return
        self.canvas().unsetMapTool(self)
        if self._before is not None:
            self.canvas().setMapTool(self._before)

    def keyPressEvent(self, event) -> None:
        """Escape gives up."""
        if event.key() == Qt.Key.Key_Escape:
            event.accept()
            self.stop()
        else:
            super().keyPressEvent(event)

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
