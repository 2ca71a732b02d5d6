"""The raster that the user is looking at."""

from __future__ import annotations

from qgis.core import QgsMapLayer, QgsProject, QgsRasterLayer
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QObject, pyqtSignal

from rs4d_qgis.layers.bounds import bounds_in


def raster_looked_at(canvas: QgsMapCanvas, active: QgsMapLayer | None) -> QgsRasterLayer | None:
    """Of the rasters that the map shows where it is now: the active layer, else the topmost.

    Where the map shows none, the active layer if it is a raster, else any of the project's.
    """
    shown = [layer for layer in canvas.layers() if isinstance(layer, QgsRasterLayer) and _in_view(layer, canvas)]
    if active in shown or (not shown and isinstance(active, QgsRasterLayer)):
        return active
    others = (layer for layer in QgsProject.instance().mapLayers().values() if isinstance(layer, QgsRasterLayer))
    return shown[0] if shown else next(others, None)


def _in_view(layer: QgsRasterLayer, canvas: QgsMapCanvas) -> bool:
    place = bounds_in(canvas.mapSettings().destinationCrs(), layer.extent(), layer.crs())
    # An extent beyond where the map's CRS is defined is one such as the whole world.
    return place is None or place.intersects(canvas.extent())


class LookedAt(QObject):
    """Tells whenever the answer of `raster_looked_at` may be another one.

    Signals:
        picked(layer): the user has made another layer the active one; None for none. Before `changed`.
        changed(layer): a QgsRasterLayer, or None where there is no raster.
    """

    picked = pyqtSignal(object)
    changed = pyqtSignal(object)

    def __init__(self, iface, parent=None):
        super().__init__(parent)
        self._iface = iface
        self._canvas = iface.mapCanvas()
        iface.currentLayerChanged.connect(self._picked)
        self._canvas.layersChanged.connect(self.look)
        self._canvas.extentsChanged.connect(self.look)

    def look(self, *_) -> None:
        """Look now."""
        self.changed.emit(raster_looked_at(self._canvas, self._iface.activeLayer()))

    def _picked(self, layer: QgsMapLayer | None) -> None:
        self.picked.emit(layer)
        self.look()
