"""Which layer is under review."""

from __future__ import annotations

from qgis.core import QgsApplication, QgsProject, QgsVectorLayer
from qgis.gui import QgsMapLayerComboBox
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtWidgets import QHBoxLayout, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from rs4d_qgis.compat import POLYGON_LAYERS
from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.layers.live import is_live
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.reviewed.fields import add_review_fields, missing_fields
from rs4d_qgis.translation import tr


class LayerRow(QWidget):
    """A list of the project's polygon layers, but for those of runs that go on; for one that lacks fields, the way to
    get them.

    Signals:
        chosen(layer): a QgsVectorLayer that can be reviewed; None for none.
        refused(str): why the fields could not be added.
    """

    chosen = pyqtSignal(object)
    refused = pyqtSignal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._layers = QgsMapLayerComboBox()
        self._layers.setObjectName("review_layer")
        self._layers.setFilters(POLYGON_LAYERS)
        self._layers.setAllowEmptyLayer(True, tr("Choose a layer of polygons"))
        self._layers.setLayer(None)
        self._layers.setAccessibleName(tr("Layer under review"))
        self._layers.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._layers.layerChanged.connect(self._changed)
        self._layers.currentIndexChanged.connect(self._show_empty)
        self._show_empty()
        self._lacking = QuietLabel()
        self._lacking.setObjectName("lacking_fields")
        self._add = QPushButton(QgsApplication.getThemeIcon("/mActionNewAttribute.svg"), tr("Add the fields..."))
        self._add.setObjectName("add_fields")
        self._add.setToolTip(tr("Adds the fields of a review to this layer. Nothing that it has is changed."))
        self._add.clicked.connect(self.add_fields)
        self._add.hide()
        line = QHBoxLayout()
        line.addWidget(self._layers, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addWidget(self._lacking)
        layout.addWidget(self._add)
        self._leave_live_out()
        QgsProject.instance().layersAdded.connect(self._leave_live_out)

    def layer(self) -> QgsVectorLayer | None:
        """The one that is chosen."""
        return self._layers.currentLayer()

    def choose(self, layer: QgsVectorLayer | None) -> None:
        """Choose one."""
        if self._layers.currentLayer() is layer:
            self._changed(layer)
        else:
            self._layers.setLayer(layer)

    def add_fields(self) -> None:
        """Give the chosen layer what it lacks, and have it reviewed."""
        layer = self.layer()
        try:
            add_review_fields(layer)
        except ReviewRefused as refused:
            self.refused.emit(str(refused))
            return
        self._changed(layer)

    def _leave_live_out(self, *_) -> None:
        """What is decided there would go with the layer, and what is found later would not come to the desk."""
        layers = QgsProject.instance().mapLayers().values()
        self._layers.setExceptedLayerList([layer for layer in layers if is_live(layer)])

    def _show_empty(self) -> None:
        """QGIS shows nothing at all where no layer is chosen, or the one that was is gone."""
        if self._layers.currentIndex() < 0 and self._layers.count():
            self._layers.setCurrentIndex(0)

    def _changed(self, layer: QgsVectorLayer | None) -> None:
        missing = [] if layer is None else missing_fields(layer)
        self._add.setVisible(bool(missing))
        self._lacking.say(
            tr("To be reviewed, this layer needs the fields {}.").format(", ".join(missing)) if missing else ""
        )
        self.chosen.emit(None if missing else layer)
