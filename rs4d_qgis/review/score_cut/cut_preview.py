"""What the score cut leaves, on the map while its line is dragged: where QGIS takes too long to draw all objects."""

from __future__ import annotations

import time
from collections.abc import Mapping

from qgis.core import QgsMapLayer
from qgis.gui import QgsMapCanvas, QgsMapCanvasItem
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QRectF, Qt
from qgis.PyQt.QtGui import QImage, QPainter, QTransform

from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.score_cut.draft import DraftShapes

# A map that QGIS draws within this follows the line by itself, in its full look.
_QUICK_S = 0.1
# What was asked of the map: it has not begun with it, or is at it.
_ASKED, _DRAWING = "asked", "drawing"
# Over the map, which is at -10, and under what else is drawn on it.
_HEIGHT = -5


class CutPreview(QObject):
    """A draft of the layer under review, in the stead of the layer itself, on the map alone.

    The map is told to leave the layer out, and the draft is laid over it. The layer, its look and the project know
    nothing of that.
    """

    def __init__(self, desk: DeskState, parent: QObject | None = None):
        super().__init__(parent)
        self._desk = desk
        self._canvas = desk.iface.mapCanvas()
        self._shapes: DraftShapes | None = None
        self._picture: _Picture | None = None
        self._layer: QgsMapLayer | None = None
        self._place = 0
        self._due = ""
        self._began = 0.0
        self._seconds = 0.0
        self._canvas.renderStarting.connect(self._drawing)
        self._canvas.mapCanvasRefreshed.connect(self._drawn)
        self._canvas.extentsChanged.connect(self._moved)
        desk.reviewed_changed.connect(self._another_layer)

    @property
    def on(self) -> bool:
        """Whether the draft is there in the stead of the layer."""
        return self._layer is not None

    @property
    def in_sight(self) -> bool:
        """Whether the draft is to be seen: the map has left the layer out."""
        return self._layer is not None and not self._due

    def show(self, cuts: Mapping[str, float]) -> bool:
        """Show what these cuts leave.

        Returns:
            False where the map follows quickly enough by itself, or it does not show the layer, or where not all
            outlines are there yet.
        """
        ready = self._shapes.catch_up()
        if self._layer is None and not (ready and self._can_begin()):
            return False
        if self._layer is None:
            self._layer = self._desk.reviewed.layer
            if self._picture is None:  # else it is there still, as the layer was not drawn since
                self._picture = _Picture(self._canvas, self._shapes)
                self._picture.hide()
        if not self._leave_out():
            self.end()
            return False
        self._picture.show_cuts(cuts)
        return True

    def end(self) -> None:
        """The map shows the layer itself again; the draft goes once that is drawn."""
        if self._layer is None:
            return
        layer, self._layer = self._layer, None
        shown = [] if sip.isdeleted(self._canvas) else self._canvas.layers()
        if sip.isdeleted(self._canvas) or sip.isdeleted(layer) or layer in shown or not self._canvas.renderFlag():
            self._drop()
        else:
            self._ask([*shown[: self._place], layer, *shown[self._place :]])

    def tear_down(self) -> None:
        """Leave nothing on the map."""
        self.end()
        self._drop()
        if not sip.isdeleted(self._canvas):
            self._canvas.renderStarting.disconnect(self._drawing)
            self._canvas.mapCanvasRefreshed.disconnect(self._drawn)
            self._canvas.extentsChanged.disconnect(self._moved)

    def _can_begin(self) -> bool:
        layer = self._desk.reviewed.layer
        drawing = time.perf_counter() - self._began if self._canvas.isDrawing() else 0.0
        return (
            max(self._seconds, drawing) > _QUICK_S
            and self._canvas.renderFlag()
            and layer in self._canvas.layers()
            and layer.isInScaleRange(self._canvas.scale())
        )

    def _leave_out(self) -> bool:
        """Have the map leave the layer out; also where it was taken in again, as another layer has come or gone."""
        shown = self._canvas.layers()
        if self._layer in shown:
            self._place = shown.index(self._layer)
            self._ask([layer for layer in shown if layer is not self._layer])
        return self._layer not in self._canvas.layers()  # a map that follows a theme keeps its layers

    def _another_layer(self) -> None:
        self.end()
        self._drop()
        if self._shapes is not None:
            self._shapes.tear_down()
            self._shapes.deleteLater()
            self._shapes = None
        if self._desk.reviewed is not None:
            self._shapes = DraftShapes(self._desk.reviewed, self._canvas, self)
            self._shapes.restarted.connect(self.end)

    def _ask(self, layers: list[QgsMapLayer]) -> None:
        self._due = _ASKED
        self._canvas.setLayers(layers)

    def _drawing(self) -> None:
        self._due = self._due and _DRAWING
        self._began = time.perf_counter()

    def _drawn(self) -> None:
        if self._due == _ASKED:  # this drawing had begun before
            return
        self._due = ""
        if self._layer is not None:
            self._picture.show()
            return
        # The longest of this view: QGIS may take a drawing from its cache, or draw a few objects that a cut has left.
        self._seconds = max(self._seconds, time.perf_counter() - self._began)
        self._drop()

    def _moved(self) -> None:
        if self._layer is None:  # else nothing is known of the new view until the layer is drawn
            self._seconds = 0.0

    def _drop(self) -> None:
        picture, self._picture = self._picture, None
        if picture is not None and not sip.isdeleted(self._canvas):
            self._canvas.scene().removeItem(picture)


class _Picture(QgsMapCanvasItem):
    """As large as the map, and painted anew where the map moves."""

    def __init__(self, canvas: QgsMapCanvas, shapes: DraftShapes):
        super().__init__(canvas)
        self._canvas, self._shapes = canvas, shapes
        self._cuts: Mapping[str, float] = {}
        self._image: QImage | None = None
        self.setZValue(_HEIGHT)

    def show_cuts(self, cuts: Mapping[str, float]) -> None:
        self._cuts = dict(cuts)
        self._image = None
        self.update()

    def updatePosition(self) -> None:
        self.prepareGeometryChange()
        self._image = None

    def boundingRect(self) -> QRectF:
        return QRectF(self._canvas.viewport().rect())

    def paint(self, painter: QPainter, _option=None, _widget=None) -> None:
        if self._image is None:
            self._image = self._painted()
        painter.drawImage(0, 0, self._image)

    def _painted(self) -> QImage:
        ratio = self._canvas.devicePixelRatioF()
        image = QImage(self._canvas.viewport().size() * ratio, QImage.Format.Format_ARGB32_Premultiplied)
        image.fill(Qt.GlobalColor.transparent)
        to_pixels = self._canvas.getCoordinateTransform().transform() * QTransform.fromScale(ratio, ratio)
        self._shapes.paint(image, to_pixels, self._cuts)
        image.setDevicePixelRatio(ratio)
        return image
