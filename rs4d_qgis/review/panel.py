"""The review dock: the parts of the desk, put together."""

from __future__ import annotations

from functools import partial

from qgis.core import QgsProject, QgsVectorLayer
from qgis.gui import QgsDockWidget
from qgis.PyQt.QtCore import Qt, QTimer, pyqtSignal
from qgis.PyQt.QtWidgets import QHBoxLayout, QTabWidget, QToolButton, QVBoxLayout, QWidget

from rs4d_qgis.dock.scroll import PanelScroll
from rs4d_qgis.layers.live import is_live
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.edits.edit_bar import EditBar
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.keeping.saving_line import SavingLine
from rs4d_qgis.review.keys_dialog import KeysDialog
from rs4d_qgis.review.logic.session import Session
from rs4d_qgis.review.outcome.evaluate_box import EvaluateBox
from rs4d_qgis.review.outcome.export_box import ExportBox
from rs4d_qgis.review.queue.class_table import ClassTable
from rs4d_qgis.review.queue.decide_box import DecideBox
from rs4d_qgis.review.queue.map_view import MapView
from rs4d_qgis.review.queue.queue_box import QueueBox
from rs4d_qgis.review.reviewed.fields import missing_fields
from rs4d_qgis.review.reviewed.layer_row import LayerRow
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer
from rs4d_qgis.review.score_cut.cut_box import CutBox
from rs4d_qgis.translation import tr

_QUEUE_TAB, _EVALUATE_TAB = 0, 2


class ReviewDock(QgsDockWidget):
    """The panel "RS4D review".

    Attributes:
        desk: what its parts share.

    Signals:
        layer_changed(): another layer is under review, or none.
    """

    layer_changed = pyqtSignal()

    def __init__(self, iface, parent=None):
        super().__init__(tr("RS4D review"), parent or iface.mainWindow())
        self.setObjectName("RS4DReviewDock")
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self._closed_layer: str | None = None
        self.desk = DeskState(iface, self)
        self._map = MapView(self.desk, self)
        self.layers = LayerRow()
        self.queue = QueueBox(self.desk)
        self.decisions = DecideBox(self.desk)
        self.edits = EditBar(self.desk, iface)
        self.classes = ClassTable(self.desk)
        self.cut = CutBox(self.desk)
        self.export = ExportBox(self.desk, iface)
        self.evaluation = EvaluateBox(self.desk, iface)
        self.saving = SavingLine(self.desk)
        self._build()

        self.layers.chosen.connect(self._put)
        self.layers.refused.connect(lambda reason: self.desk.say(reason, True))
        self.queue.zoom_wanted.connect(self._zoom)
        for part in (self.queue, self.classes, self.cut):
            part.touched.connect(self._canvas.setFocus)
        self.desk.reviewed_changed.connect(self.layer_changed)
        self.desk.keys.lend(self._keys_of_tab)
        self.desk.keys.listen_on(self._canvas)
        self.desk.keys.listen_on(self)
        self.visibilityChanged.connect(self._seen)
        self.closed.connect(self._closed)
        self.opened.connect(self._opened)
        QgsProject.instance().layersWillBeRemoved.connect(self._layers_removed)
        QgsProject.instance().writeProject.connect(self._project_begins)
        QgsProject.instance().projectSaved.connect(self._project_saved)

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

    def review(self, layer: QgsVectorLayer | None = None) -> None:
        """Put a layer on the desk; without one the active layer, or else the only one that can be reviewed."""
        layer = layer or self._likely()
        if layer is not None and (self.reviewed is None or self.reviewed.layer is not layer):
            self.layers.choose(layer)
        self._canvas.setFocus()

    def tear_down(self) -> None:
        """QGIS is closing, or the plugin is turned off."""
        if self._map is None:
            return
        QgsProject.instance().layersWillBeRemoved.disconnect(self._layers_removed)
        QgsProject.instance().writeProject.disconnect(self._project_begins)
        QgsProject.instance().projectSaved.disconnect(self._project_saved)
        self._canvas.removeEventFilter(self.desk.keys)
        self.edits.tear_down()
        self.export.tear_down()
        self.desk.review(None)
        self.cut.tear_down()
        self._map.tear_down()
        self._map = None

    def _build(self) -> None:
        keys = QToolButton()
        keys.setObjectName("review_keys")
        keys.setText(tr("Keys..."))
        keys.setToolTip(tr("Which key does what, to be changed"))
        keys.setAutoRaise(True)
        keys.clicked.connect(self._show_keys)
        top = QHBoxLayout()
        top.addWidget(self.layers, 1)
        top.addWidget(keys, 0, Qt.AlignmentFlag.AlignTop)
        desk = QWidget()
        layout = QVBoxLayout(desk)
        for part in (self.queue, self.decisions, self.edits, self.classes, self.cut):
            layout.addWidget(part)
        layout.addStretch(1)
        self.tabs = QTabWidget()
        self.tabs.setDocumentMode(True)
        self.tabs.setUsesScrollButtons(False)
        self.tabs.setElideMode(Qt.TextElideMode.ElideRight)
        self.tabs.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.tabs.addTab(PanelScroll(desk), tr("Review"))
        self.tabs.addTab(PanelScroll(self.export), tr("Export"))
        self.tabs.addTab(PanelScroll(self.evaluation), tr("Evaluate"))
        self.tabs.currentChanged.connect(self._show_current)
        page = QWidget()
        whole = QVBoxLayout(page)
        whole.addLayout(top)
        whole.addWidget(self.tabs, 1)
        whole.addWidget(self.saving)
        self.setWidget(page)

    def _put(self, layer: QgsVectorLayer | None) -> None:
        if layer is None and self.reviewed is None:
            self.desk.say("")  # what was said of the layer chosen before
            return
        if layer is not None and self.reviewed is not None and self.reviewed.layer is layer:
            return
        if self.reviewed is not None:
            self.reviewed.layer.selectionChanged.disconnect(self.decisions.refresh)
        self.desk.say("")
        try:
            self.desk.review(layer)
        except ReviewRefused as refused:
            self.desk.say(str(refused), True)
            return
        if layer is not None:
            layer.selectionChanged.connect(self.decisions.refresh)
            self.reviewed.outdated.connect(self._outdated)
            self._iface.setActiveLayer(layer)
            self._canvas.setFocus()

    def _outdated(self) -> None:
        """The layer has other data, another filter or other fields: its review begins anew, once QGIS is done."""
        layer_id = self.reviewed.layer.id()
        self.layers.choose(None)
        QTimer.singleShot(0, partial(self._put_again, layer_id))

    def _put_again(self, layer_id: str) -> None:
        layer = QgsProject.instance().mapLayer(layer_id)
        if self._map is not None and self.reviewed is None and layer is not None:
            self.layers.choose(layer)

    def _likely(self) -> QgsVectorLayer | None:
        active = self._iface.activeLayer()
        ready = [
            layer
            for layer in QgsProject.instance().mapLayers().values()
            if isinstance(layer, QgsVectorLayer)
            and layer.isValid()
            and not missing_fields(layer)
            and not is_live(layer)
        ]
        if active in ready:
            return active
        return ready[0] if len(ready) == 1 else None

    def _zoom(self, zooms: bool) -> None:
        self._map.zooms = zooms
        self._map.look()
        self._canvas.setFocus()

    def _show_keys(self) -> None:
        KeysDialog(self.desk.keys, self).exec()
        self._canvas.setFocus()

    def _seen(self, seen: bool) -> None:
        self.desk.in_sight = seen
        self._show_current()

    def _show_current(self, *_) -> None:
        """The current object is marked on the map where its queue can be seen."""
        if self._map is not None:
            self._map.show(self.desk.in_sight and self.tabs.currentIndex() == _QUEUE_TAB)

    def _keys_of_tab(self) -> dict | None:
        tab = self.tabs.currentIndex()
        if tab == _QUEUE_TAB:
            return None
        step = self.evaluation.step
        return {"previous": partial(step, -1), "next": partial(step, 1)} if tab == _EVALUATE_TAB else {}

    def _closed(self) -> None:
        """The layer gets its own look back until the desk is opened again."""
        if self.reviewed is not None:
            self._closed_layer = self.reviewed.layer.id()
            self.layers.choose(None)

    def _opened(self) -> None:
        layer = QgsProject.instance().mapLayer(self._closed_layer or "")
        self._closed_layer = None
        if layer is not None and self.reviewed is None:
            self.review(layer)

    def _project_begins(self, _document) -> None:
        self.desk.own_look()
        QTimer.singleShot(0, self.desk.review_look)  # also where it cannot be written

    def _project_saved(self) -> None:
        self.desk.review_look()
        QgsProject.instance().setDirty(False)  # what was written is what there is, but for this look

    def _layers_removed(self, ids: list[str]) -> None:
        if self.reviewed is not None and self.reviewed.layer.id() in ids:
            self.layers.choose(None)
