"""The review dock: the parts of the desk, in tabs."""

from __future__ import annotations

from qgis.core import QgsVectorLayer
from qgis.gui import QgsDockWidget
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtWidgets import QTabWidget

from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.reviewed_layer import ReviewedLayer
from rs4d_qgis.review.session import Session
from rs4d_qgis.translation import tr


class ReviewDock(QgsDockWidget):
    """The panel "Review".

    Attributes:
        desk: what its parts share.

    Signals:
        layer_changed(): another layer is under review, or none.
    """

    layer_changed = pyqtSignal()

    def __init__(self, iface, parent=None):
        super().__init__(tr("RS4D review"), parent or iface.mainWindow())
        self.setObjectName("RS4DReviewDock")
        self.desk = DeskState(iface, self)
        self.desk.reviewed_changed.connect(self.layer_changed)
        self._tabs = QTabWidget()
        self._tabs.setDocumentMode(True)
        self.setWidget(self._tabs)

    @property
    def reviewed(self) -> ReviewedLayer | None:
        """The layer under review."""
        return self.desk.reviewed

    @property
    def session(self) -> Session:
        """Its queue."""
        return self.desk.session

    def selection(self) -> list[int]:
        """Ids of the objects that are selected on the map; where none is, of the current one."""
        return self.desk.selection()

    def review(self, layer: QgsVectorLayer) -> None:
        """Put a layer on the desk."""
        self.desk.review(layer)

    def tear_down(self) -> None:
        """QGIS is closing, or the plugin is turned off."""
        self.desk.review(None)
