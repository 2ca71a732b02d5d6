"""The polygons of a run on the map while it goes on, without slowing the map."""

from __future__ import annotations

from qgis.core import QgsFeature
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QObject, QTimer

from rs4d_qgis.layers.live import LiveLayer

# A map that is redrawn more often than this is hard to pan, and shows nothing more.
_MS_BETWEEN_REPAINTS = 400
# Adding so many takes some hundredths of a second; more wait for their turn.
_MOST_AT_ONCE = 2000


class PacedLayer(QObject):
    """Gives features to a live layer in batches, a few times a second at most; the first ones at once."""

    def __init__(self, live: LiveLayer, canvas: QgsMapCanvas):
        super().__init__()
        self.live = live
        self._canvas = canvas
        self._waiting: list[QgsFeature] = []
        self._timer = QTimer(self)
        self._timer.setInterval(_MS_BETWEEN_REPAINTS)
        self._timer.timeout.connect(self._flush)

    def add(self, features: list[QgsFeature]) -> None:
        """Show these soon."""
        self._waiting.extend(features)
        if features and not self._timer.isActive():
            self._timer.start()
            self._flush()

    def stop(self) -> None:
        """No more are to be shown."""
        self._timer.stop()
        self._waiting.clear()

    def _flush(self) -> None:
        if not self._waiting:
            self._timer.stop()
        # New features redraw the map; while it is drawn they would start it over, and a slow basemap would never end.
        elif not self._canvas.isDrawing():
            batch, self._waiting = self._waiting[:_MOST_AT_ONCE], self._waiting[_MOST_AT_ONCE:]
            self.live.add(batch)
