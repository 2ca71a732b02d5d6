"""Drawing a line or a ring on the map, corner by corner."""

from __future__ import annotations

from qgis.core import QgsPointXY
from qgis.gui import QgsMapCanvas, QgsMapMouseEvent, QgsMapTool, QgsRubberBand
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.compat import LINE_GEOMETRY, POLYGON_GEOMETRY
from rs4d_qgis.dock.borrowed import Borrowed

_COLOR, _FILL = QColor(230, 60, 60), QColor(230, 60, 60, 40)
_WIDTH_PX = 2


class ShapeTool(Borrowed, QgsMapTool):
    """The left button sets a corner, the right one, a double click or Enter ends the drawing; Backspace takes the last
    corner back; Escape gives up, and where nothing is drawn gives the mouse back. Corners snap as the project says.

    Attributes:
        drawing: there are corners already.

    Signals:
        drawn(list of QgsPointXY): in the map's CRS. The tool is ready for the next drawing.
    """

    drawn = pyqtSignal(object)

    def __init__(self, canvas: QgsMapCanvas, ring: bool):
        super().__init__(canvas)
        self._kind = POLYGON_GEOMETRY if ring else LINE_GEOMETRY
        self._points: list[QgsPointXY] = []
        self._ended = False
        self._band: QgsRubberBand | None = None
        self.setCursor(Qt.CursorShape.CrossCursor)

    def canvasPressEvent(self, event: QgsMapMouseEvent) -> None:
        """A new click."""
        self._ended = False

    def canvasReleaseEvent(self, event: QgsMapMouseEvent) -> None:
        """A corner, or the end."""
        if self._ended:
            return  # the last of a double click
        if event.button() == Qt.MouseButton.LeftButton:
            self._points.append(self._place(event))
            self._show(self._points[-1])
        elif event.button() == Qt.MouseButton.RightButton:
            self._finish()

    def canvasDoubleClickEvent(self, event: QgsMapMouseEvent) -> None:
        """The end; its first click has set the last corner already."""
        self._ended = True
        self._finish()

    def canvasMoveEvent(self, event: QgsMapMouseEvent) -> None:
        """Shows what the next corner would make of it."""
        if self._points:
            self._show(self._place(event))

    @property
    def drawing(self) -> bool:
        return bool(self._points)

    def back(self) -> None:
        """Take the last corner off."""
        if self._points:
            self._points.pop()
            self._show(self._points[-1] if self._points else None)

    def keyPressEvent(self, event) -> None:
        """Corners back, the end, or giving up."""
        key = event.key()
        if key in (Qt.Key.Key_Backspace, Qt.Key.Key_Delete):
            self.back()  # also once too often: QGIS would take it for the selected objects
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and self._points:
            self._finish()
        elif key == Qt.Key.Key_Escape and self._points:
            self._clear()
        elif key == Qt.Key.Key_Escape:
            self.stop()
        else:
            return
        # With QGIS's map tools it is the other way round: what they leave accepted, QGIS goes on with, and would delete
        # the selected objects on Backspace.
        event.ignore()

    def deactivate(self) -> None:
        """Another tool has the mouse."""
        self._clear()
        super().deactivate()

    def _place(self, event: QgsMapMouseEvent) -> QgsPointXY:
        event.snapPoint()
        return QgsPointXY(event.mapPoint())

    def _finish(self) -> None:
        points = list(self._points)
        self._clear()
        if points:
            self.drawn.emit(points)

    def _show(self, next_corner: QgsPointXY | None) -> None:
        if self._band is None:
            self._band = QgsRubberBand(self.canvas(), self._kind)
            self._band.setStrokeColor(_COLOR)
            self._band.setFillColor(_FILL)
            self._band.setWidth(_WIDTH_PX)
        self._band.reset(self._kind)
        for point in self._points:
            self._band.addPoint(point, False)
        if next_corner is not None:
            self._band.addPoint(next_corner, True)

    def _clear(self) -> None:
        self._points.clear()
        if self._band is not None:
            self.canvas().scene().removeItem(self._band)
            self._band = None
