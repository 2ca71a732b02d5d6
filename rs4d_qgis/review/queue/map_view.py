"""Brings the current object to the middle of the map, highlighted."""

from __future__ import annotations

from qgis.core import QgsGeometry, QgsRectangle, QgsUnitTypes
from qgis.gui import QgsRubberBand
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.compat import DISTANCE_METERS, POLYGON_GEOMETRY
from rs4d_qgis.layers.bounds import bounds_in
from rs4d_qgis.review.desk_state import DeskState

# An object is shown with so much around it as it takes to see what it is.
_TIMES_AS_WIDE = 5.0
_LEAST_VIEW_M = 40.0
# Of the view: an object that is wholly inside this middle part needs no panning.
_MIDDLE = 0.6
# What is selected is to be judged too: QGIS would hide the imagery under it.
_SELECTION_ALPHA = 110
_COLOR, _HALO = QColor(255, 214, 0), QColor(0, 0, 0, 160)
_WIDTH_PX = 3


class MapView(QObject):
    """Follows the desk's current object.

    Attributes:
        zooms: to each object; else the map keeps its scale, unless the object is larger than the view.
    """

    def __init__(self, desk: DeskState, parent: QObject | None = None):
        super().__init__(parent)
        self.zooms = True
        self._desk = desk
        self._canvas = desk.iface.mapCanvas()
        self._band = QgsRubberBand(self._canvas, POLYGON_GEOMETRY)
        self._band.setColor(_COLOR)
        self._band.setFillColor(QColor(0, 0, 0, 0))
        self._band.setSecondaryStrokeColor(_HALO)
        self._band.setWidth(_WIDTH_PX)
        self._seen: int | None = None
        self._shown = False
        self._own_selection = self._selection = QColor()
        desk.current_changed.connect(self._follow)
        desk.reviewed_changed.connect(self._another_layer)

    def look(self) -> None:
        """Highlight the current object, and have it in view."""
        geometry = self._highlight()
        if geometry is not None:
            self._bring_to_view(geometry.boundingBox())

    def show(self, shown: bool) -> None:
        """Show or hide the highlight."""
        self._shown = shown
        self._highlight()

    def tear_down(self) -> None:
        """Leave nothing on the map."""
        if not sip.isdeleted(self._canvas):
            self._canvas.scene().removeItem(self._band)

    def _follow(self) -> None:
        # The same object with another class or outline needs no other view.
        if self._desk.session.current == self._seen:
            self._highlight()
            return
        self._seen = self._desk.session.current
        if not (self._desk.on_map and self._is_in_view()):  # else the analyst looks at it already
            self.look()
        else:
            self._highlight()

    def _another_layer(self) -> None:
        self._seen = None
        if sip.isdeleted(self._canvas):
            return
        now = self._canvas.selectionColor()
        if self._desk.reviewed is not None and now != self._selection:
            self._own_selection, self._selection = now, QColor(now)
            self._selection.setAlpha(min(now.alpha(), _SELECTION_ALPHA))
            self._canvas.setSelectionColor(self._selection)
        elif self._desk.reviewed is None and now == self._selection:
            self._canvas.setSelectionColor(self._own_selection)
            self._selection = QColor()

    def _highlight(self) -> QgsGeometry | None:
        current = self._desk.session.current
        geometry = QgsGeometry() if current is None else self._desk.reviewed.layer.getGeometry(current)
        if geometry.isEmpty():
            self._band.reset(POLYGON_GEOMETRY)
            return None
        if not self._shown:
            self._band.reset(POLYGON_GEOMETRY)
            return geometry
        self._band.setToGeometry(geometry, self._desk.reviewed.layer)
        return geometry

    def _is_in_view(self) -> bool:
        layer = self._desk.reviewed.layer
        if self._desk.session.current is None:
            return False
        box = layer.getGeometry(self._desk.session.current).boundingBox()
        box = bounds_in(self._canvas.mapSettings().destinationCrs(), box, layer.crs())
        return box is not None and self._canvas.extent().intersects(box)

    def _bring_to_view(self, box: QgsRectangle) -> None:
        crs = self._canvas.mapSettings().destinationCrs()
        box = bounds_in(crs, box, self._desk.reviewed.layer.crs())
        if box is None or not box.isFinite():
            return
        view = self._canvas.extent()
        too_large = box.width() > view.width() or box.height() > view.height()
        if self.zooms or too_large:
            metre = QgsUnitTypes.fromUnitToUnitFactor(DISTANCE_METERS, crs.mapUnits())
            wide = max(max(box.width(), box.height()) * _TIMES_AS_WIDE, _LEAST_VIEW_M * metre)
            around = QgsRectangle.fromCenterAndSize(box.center(), wide, wide)
            self._canvas.setExtent(around)
        elif view.scaled(_MIDDLE).contains(box):
            return
        else:
            self._canvas.setCenter(box.center())
        self._canvas.refresh()
