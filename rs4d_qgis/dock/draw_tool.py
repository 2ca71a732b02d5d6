"""Drawing a rectangle on the map."""

from __future__ import annotations

from qgis.core import QgsPointXY, QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapToolExtent, QgsRubberBand
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.compat import POLYGON_GEOMETRY
from rs4d_qgis.dock.borrowed import Borrowed

RECTANGLE_COLOR = QColor(255, 170, 0)
_WIDTH_PX = 2


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
        self._corner: QgsPointXY | None = None
        self._band: QgsRubberBand | None = None
        self.extentChanged.connect(self._drawn)

    def keyPressEvent(self, event) -> None:
        """Escape gives up. Keys that QGIS deletes the selected objects on do nothing while one draws."""
        if event.key() == Qt.Key.Key_Escape:
            self.stop()
        elif event.key() not in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            super().keyPressEvent(event)
            return
        event.ignore()  # of map tools: "it is done with"

    def canvasPressEvent(self, event) -> None:
        """The first corner."""
        self._corner = event.mapPoint()
        super().canvasPressEvent(event)

    def canvasMoveEvent(self, event) -> None:
        """Shows the rectangle: QGIS's own is a pale grey, which is lost on imagery."""
        super().canvasMoveEvent(event)
        if self._corner is None:
            return
        if self._band is None:
            self._band = QgsRubberBand(self.canvas(), POLYGON_GEOMETRY)
            self._band.setStrokeColor(RECTANGLE_COLOR)
            self._band.setFillColor(QColor(0, 0, 0, 0))
            self._band.setWidth(_WIDTH_PX)
        here = event.mapPoint()
        self._band.reset(POLYGON_GEOMETRY)
        for x, y in (
            (self._corner.x(), self._corner.y()),
            (here.x(), self._corner.y()),
            (here.x(), here.y()),
            (self._corner.x(), here.y()),
        ):
            self._band.addPoint(QgsPointXY(x, y))

    def canvasReleaseEvent(self, event) -> None:
        """The right button gives up, the left one ends the rectangle."""
        self._clear()
        if event.button() == Qt.MouseButton.RightButton:
            self.stop()
        else:
            super().canvasReleaseEvent(event)

    def deactivate(self) -> None:
        """Another tool has the mouse."""
        self._clear()
        super().deactivate()

    def _clear(self) -> None:
        self._corner = None
        if self._band is not None:
            self.canvas().scene().removeItem(self._band)
            self._band = None

    def _drawn(self, rectangle: QgsRectangle) -> None:
        # A click without a drag is no rectangle: the user is still to draw one.
        if rectangle.width() > 0 and rectangle.height() > 0:
            self.stop()
            self.drawn.emit(QgsRectangle(rectangle))
