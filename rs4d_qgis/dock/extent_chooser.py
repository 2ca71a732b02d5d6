"""Where to look: what the map shows, a rectangle drawn on it, the whole layer, or the polygons of a layer."""

from __future__ import annotations

import contextlib

from qgis.core import QgsApplication, QgsGeometry, QgsProject, QgsRectangle
from qgis.gui import QgsMapCanvas, QgsMapLayerComboBox, QgsRubberBand
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QCheckBox, QComboBox, QHBoxLayout, QToolButton, QVBoxLayout, QWidget

from rs4d_qgis.compat import POLYGON_GEOMETRY, POLYGON_LAYERS
from rs4d_qgis.dock.draw_tool import RECTANGLE_COLOR, DrawTool
from rs4d_qgis.dock.zone import DRAWN, POLYGONS, VISIBLE, WHOLE, Zone, polygons_of, whole_layer
from rs4d_qgis.translation import tr


class ExtentChooser(QWidget):
    """A list of ways, a button to draw, and a layer for the way that needs one. A drawn rectangle stays on the map."""

    changed = pyqtSignal()

    def __init__(self, canvas: QgsMapCanvas, parent=None):
        super().__init__(parent)
        self._canvas = canvas
        self._drawn: Zone | None = None
        self._band = QgsRubberBand(canvas, POLYGON_GEOMETRY)
        self._band.setColor(RECTANGLE_COLOR)
        self._band.setFillColor(Qt.GlobalColor.transparent)
        self._band.setWidth(2)
        self._tool = DrawTool(canvas)
        self._tool.drawn.connect(self._rectangle_drawn)
        self._tool.deactivated.connect(self._drawing_stopped)

        self._kind = QComboBox()
        self._kind.setObjectName("extent")
        for kind, text in (
            (VISIBLE, tr("Visible map")),
            (DRAWN, tr("Drawn rectangle")),
            (WHOLE, tr("Whole layer")),
            (POLYGONS, tr("Polygon layer")),
        ):
            self._kind.addItem(text, kind)
        self._kind.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._kind.setMinimumContentsLength(8)
        self._kind.setToolTip(tr("The part of the layer to look at"))
        self._draw = QToolButton()
        self._draw.setObjectName("draw_extent")
        self._draw.setIcon(QgsApplication.getThemeIcon("/mActionAddBasicRectangle.svg"))
        self._draw.setToolTip(tr("Draw a rectangle on the map: press, drag, release. Escape gives up."))
        self._draw.setAccessibleName(tr("Draw a rectangle on the map"))
        self._draw.setCheckable(True)
        self._draw.setAutoRaise(True)
        first = QHBoxLayout()
        first.addWidget(self._kind, 1)
        first.addWidget(self._draw)

        self._polygons = QgsMapLayerComboBox()
        self._polygons.setObjectName("polygon_layer")
        self._polygons.setFilters(POLYGON_LAYERS)
        self._polygons.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._polygons.setMinimumContentsLength(8)
        self._polygons.setToolTip(tr("Only what lies inside these polygons is looked at"))
        self._selected = QCheckBox(tr("Selected polygons only"))
        self._selected.setObjectName("selected_only")
        self._of_polygons = QWidget()
        second = QVBoxLayout(self._of_polygons)
        second.setContentsMargins(0, 0, 0, 0)
        second.addWidget(self._polygons)
        second.addWidget(self._selected)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(first)
        layout.addWidget(self._of_polygons)
        self.setFocusProxy(self._kind)

        self._kind.currentIndexChanged.connect(self._kind_chosen)
        self._draw.toggled.connect(self._draw_toggled)
        self._polygons.layerChanged.connect(self._polygon_layer_chosen)
        self._selected.toggled.connect(self.changed)
        canvas.extentsChanged.connect(self._map_moved)
        canvas.destinationCrsChanged.connect(self._show_band)
        self._watched = None
        self._polygon_layer_chosen(self._polygons.currentLayer())
        self._kind_chosen()

    @property
    def kind(self) -> str:
        """The chosen way, one of `zone.KINDS`."""
        return self._kind.currentData()

    def zone(self, layer) -> Zone | None:
        """The place for a run on a raster layer; None where nothing is drawn, or no polygons are there."""
        if self.kind == VISIBLE:
            return Zone.of(VISIBLE, self._canvas.extent(), self._canvas.mapSettings().destinationCrs())
        if self.kind == DRAWN:
            return self._drawn
        if self.kind == WHOLE:
            return whole_layer(layer)
        polygons = self._polygons.currentLayer()
        return None if polygons is None else polygons_of(polygons, self._selected.isChecked())

    def missing(self) -> str:
        """What the user has to do so that there is a place."""
        if self.kind == DRAWN:
            return tr("Draw a rectangle on the map")
        return tr("Add a polygon layer to the project, or choose another extent")

    def set_kind(self, kind: str) -> None:
        """Choose a way, without starting to draw."""
        self._kind.blockSignals(True)
        self._kind.setCurrentIndex(max(0, self._kind.findData(kind)))
        self._kind.blockSignals(False)
        self._arrange()
        self.changed.emit()

    def set_zone(self, zone: Zone) -> None:
        """Show a place that is known already. Polygons that are gone leave their extent, as a rectangle."""
        if zone.kind == POLYGONS:
            polygons = QgsProject.instance().mapLayer(zone.polygons)
            if polygons is not None:
                self._polygons.setLayer(polygons)
                self._selected.setChecked(zone.selected_only)
                self.set_kind(POLYGONS)
                return
        if zone.kind == WHOLE:
            self.set_kind(WHOLE)
            return
        self._drawn = Zone(DRAWN, zone.bounds, zone.crs_text)
        self.set_kind(DRAWN)

    def setVisibleOnMap(self, visible: bool) -> None:
        """Show the drawn rectangle, or hide it with the panel."""
        self._band.setVisible(visible and self.kind == DRAWN and self._drawn is not None)
        if not visible:
            self._tool.stop()

    def forget_drawing(self) -> None:
        """Another project is opened: what was drawn belongs to the one before."""
        self._drawn = None
        if self.kind == DRAWN:
            self.set_kind(VISIBLE)

    def tear_down(self) -> None:
        """Take everything off the map, before the panel goes."""
        self._tool.stop()
        self._canvas.scene().removeItem(self._band)

    def _kind_chosen(self) -> None:
        self._arrange()
        if self.kind == DRAWN and self._drawn is None:
            self._draw.setChecked(True)
        elif self.kind != DRAWN:
            self._draw.setChecked(False)
        self.changed.emit()

    def _arrange(self) -> None:
        self._of_polygons.setVisible(self.kind == POLYGONS)
        self._show_band()

    def _draw_toggled(self, on: bool) -> None:
        if not on:
            self._tool.stop()
            return
        if self.kind != DRAWN:
            self.set_kind(DRAWN)
        self._tool.start()

    def _rectangle_drawn(self, rectangle: QgsRectangle) -> None:
        # Kept in the CRS that the map has now: the project may get another one before the run.
        self._drawn = Zone.of(DRAWN, rectangle, self._canvas.mapSettings().destinationCrs())
        self.set_kind(DRAWN)

    def _drawing_stopped(self) -> None:
        self._draw.setChecked(False)

    def _show_band(self) -> None:
        if self.kind != DRAWN or self._drawn is None:
            self._band.hide()
            return
        outline = QgsGeometry.fromRect(QgsRectangle(*self._drawn.bounds)).densifyByCount(20)
        self._band.setToGeometry(outline, self._drawn.crs)
        self._band.show()

    def _map_moved(self) -> None:
        if self.kind == VISIBLE:
            self.changed.emit()

    def _polygon_layer_chosen(self, layer) -> None:
        if self._watched is not None:
            # Where the layer is gone, its signals are gone with it.
            with contextlib.suppress(TypeError, RuntimeError):
                self._watched.selectionChanged.disconnect(self._selection_changed)
        self._watched = layer
        if layer is not None:
            layer.selectionChanged.connect(self._selection_changed)
        self._selection_changed()

    def _selection_changed(self, *_) -> None:
        self._selected.setEnabled(self._watched is not None and self._watched.selectedFeatureCount() > 0)
        if self.kind == POLYGONS:
            self.changed.emit()
