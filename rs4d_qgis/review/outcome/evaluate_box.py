"""How good the layer is: against a reference, in figures, as curves, and error by error on the map."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication, QgsProject, QgsVectorLayer
from qgis.gui import QgsDoubleSpinBox, QgsFieldComboBox, QgsMapLayerComboBox
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFormLayout,
    QHBoxLayout,
    QHeaderView,
    QPushButton,
    QSizePolicy,
    QToolButton,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis.compat import POLYGON_LAYERS
from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.plain_text import as_it_is
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.curve import Curve
from rs4d_qgis.review.outcome.asking import ask_engine
from rs4d_qgis.review.outcome.curve_view import CurveView
from rs4d_qgis.review.outcome.errors_layer import (
    KINDS,
    Errors,
    ErrorWalk,
    Spotlight,
    errors_layer,
    kind_label,
    read_errors,
    remove_emptied,
)
from rs4d_qgis.review.outcome.snapshot import LayerSnapshot
from rs4d_qgis.review.outcome.work_line import WorkLine
from rs4d_qgis.review.row_table import RowTable
from rs4d_qgis.translation import tr
from rs4d_qgis.words import spaced

_FIGURES = ("ap50", "precision", "recall", "f1", "mean_iou")
_CURVE_ROLE = Qt.ItemDataRole.UserRole
_MOST_ROWS = 8
_WIDEST_NAME = 24


class EvaluateBox(QWidget):
    """What counts is the layer as it is now, with edits that are not saved yet; what is rejected does not."""

    def __init__(self, desk: DeskState, iface, parent=None):
        super().__init__(parent)
        self.setObjectName("review_evaluate")
        self._desk = desk
        self._iface = iface
        self._walk: ErrorWalk | None = None
        self.reference = QgsMapLayerComboBox()
        self.reference.setObjectName("evaluate_reference")
        self.reference.setFilters(POLYGON_LAYERS)
        self.reference.setAllowEmptyLayer(True, tr("Choose a layer of polygons"))
        self.reference.setCurrentIndex(0)
        self.class_field = QgsFieldComboBox()
        self.class_field.setObjectName("evaluate_class_field")
        self.class_field.setAllowEmptyFieldName(True)
        self.class_field.setToolTip(tr("The reference's field of classes. Without one, classes are not compared."))
        self.iou = QgsDoubleSpinBox()
        self.iou.setObjectName("evaluate_iou")
        self.iou.setRange(0.05, 0.95)
        self.iou.setSingleStep(0.05)
        self.iou.setValue(0.5)
        self.iou.setClearValue(0.5)
        self.iou.setToolTip(tr("A match needs this much: the common area of two polygons, divided by that of both"))
        self.run_button = QPushButton(tr("Evaluate"))
        self.run_button.setObjectName("evaluate_run")
        self.work = WorkLine()
        self.table = _Figures()
        self.curve = CurveView()
        self.best = QuietLabel()
        self.kind = QComboBox()
        self.kind.setObjectName("evaluate_kind")
        self.previous_button = _arrow("/mActionArrowLeft.svg", tr("Previous error"))
        self.next_button = _arrow("/mActionArrowRight.svg", tr("Next error"))
        self.error = QuietLabel()
        self.error.setObjectName("evaluate_error")
        self.spotlight = Spotlight(iface.mapCanvas())
        self._results = QWidget()
        self._build()

        self.reference.layerChanged.connect(self._reference_changed)
        self.run_button.clicked.connect(self.evaluate)
        self.work.busy_changed.connect(self._enable)
        self.table.currentItemChanged.connect(lambda *_: self._show_curve())
        self.kind.currentIndexChanged.connect(self._kind_changed)
        self.previous_button.clicked.connect(lambda: self.step(-1))
        self.next_button.clicked.connect(lambda: self.step(1))
        desk.reviewed_changed.connect(self._another_layer)
        QgsProject.instance().readProject.connect(self._project_read)
        remove_emptied(QgsProject.instance())
        self._another_layer()

    def evaluate(self) -> None:
        """Compare, in the background."""
        reference = self.reference.currentLayer()
        if self.work.busy or self._desk.reviewed is None or reference is None:
            return
        found = LayerSnapshot(self._desk.reviewed.layer, None, self._desk.session.objects)
        truth = LayerSnapshot(reference)
        params = {"iou": self.iou.value(), "class_field": self.class_field.currentField() or None}

        def work(task) -> tuple[dict[str, Any], Errors]:
            with tempfile.TemporaryDirectory(prefix="rs4d-") as folder:
                names = {Path(folder) / "found.gpkg": found.name, Path(folder) / "reference.gpkg": truth.name}
                predicted, against = names
                found.write(predicted, task)
                truth.write(against, task)
                errors = Path(folder) / "errors.gpkg"
                files = {"predicted": str(predicted), "reference": str(against), "errors": str(errors)}
                metrics = ask_engine(task, "evaluate", {**files, **params}, names)
                return metrics, read_errors(errors)

        self._clear()
        self.work.start(tr("Evaluate {}").format(found.name), work, lambda result: self._done(*result, found.name))

    def step(self, by: int) -> None:
        """To the next error on the map, or the one before where `by` is negative."""
        if self._walk is None or sip.isdeleted(self._walk.layer):
            return
        feature = self._walk.step(by)
        if feature is not None and feature.isValid():  # the analyst may have deleted it
            self.spotlight.show(self._walk.layer, feature)
            self.error.say(self._walk.told(feature))

    def showEvent(self, event) -> None:
        """The list has lost its place where layers came while nobody looked."""
        super().showEvent(event)
        if self.reference.currentIndex() < 0:
            self.reference.setCurrentIndex(0)

    def _build(self) -> None:
        for combo in (self.reference, self.class_field):
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        form = QFormLayout()
        form.addRow(tr("Reference"), self.reference)
        form.addRow(tr("Its class field"), self.class_field)
        form.addRow(tr("Least IoU"), self.iou)
        line = QHBoxLayout()
        line.addStretch(1)
        line.addWidget(self.run_button)
        walk = QHBoxLayout()
        walk.addWidget(self.kind, 1)
        walk.addWidget(self.previous_button)
        walk.addWidget(self.next_button)
        results = QVBoxLayout(self._results)
        results.setContentsMargins(0, 0, 0, 0)
        for part in (self.table, self.curve, self.best):
            results.addWidget(part)
        results.addLayout(walk)
        results.addWidget(self.error)
        layout = QVBoxLayout(self)
        layout.addLayout(form)
        layout.addLayout(line)
        layout.addWidget(self._results)
        layout.addWidget(self.work)
        layout.addStretch(1)

    def _done(self, metrics: dict[str, Any], errors: Errors, name: str) -> None:
        self.table.show_metrics(metrics)
        layer = errors_layer(errors, tr("Errors of {}").format(name))
        QgsProject.instance().addMapLayer(layer)
        self._walk = ErrorWalk(layer)
        self._list_kinds()
        self._results.show()
        self._show_curve()
        self.work.say("\n".join(f"– {note}" for note in metrics["notes"]))

    def _list_kinds(self) -> None:
        self.kind.blockSignals(True)
        self.kind.clear()
        self.kind.addItem(tr("All errors ({})").format(spaced(self._walk.count(None))), None)
        for kind in KINDS:
            self.kind.addItem(f"{kind_label(kind)} ({spaced(self._walk.count(kind))})", kind)
        self.kind.blockSignals(False)
        self._kind_changed()

    def _kind_changed(self) -> None:
        self._walk.choose(self.kind.currentData())
        for button in (self.previous_button, self.next_button):
            button.setEnabled(bool(self._walk.ids))
        self.spotlight.clear()
        self.error.say("" if self._walk.ids else tr("There are none."))

    def _show_curve(self) -> None:
        item = self.table.currentItem()
        curve = Curve.told(None if item is None else item.data(0, _CURVE_ROLE))
        self.curve.show_curve(curve)
        best = curve.best()
        self.best.say(
            tr("There is no curve without scores and reference polygons.")
            if not curve.score
            else tr("F1 is 0 with a cut at any score: nothing that has one matches the reference.")
            if best is None
            else tr("F1 is best, {:.2f}, with a cut at score {:.2f}.").format(curve.f1(best), curve.score[best])
        )

    def _clear(self) -> None:
        """Take the last results away."""
        if self._walk is not None and not sip.isdeleted(self._walk.layer):
            QgsProject.instance().removeMapLayer(self._walk.layer.id())
        self._walk = None
        self.spotlight.clear()
        self._results.hide()

    def _another_layer(self) -> None:
        """The errors stay on the map: they are of the layer that they are named after."""
        self._walk = None
        self.spotlight.clear()
        self._results.hide()
        self.reference.setExceptedLayerList([] if self._desk.reviewed is None else [self._desk.reviewed.layer])
        self.work.give_up()
        self.work.say("")
        self._enable()

    def _project_read(self, _document) -> None:
        remove_emptied(QgsProject.instance())

    def _reference_changed(self, layer: QgsVectorLayer | None) -> None:
        self.class_field.setLayer(layer)
        self.class_field.setField("class" if layer is not None and "class" in layer.fields().names() else "")
        self._enable()

    def _enable(self) -> None:
        ready = self._desk.reviewed is not None and self.reference.currentLayer() is not None
        self.run_button.setEnabled(ready and not self.work.busy)


class _Figures(RowTable):
    """A row for all and one for each class; the current one has its curve shown."""

    def __init__(self):
        super().__init__(_MOST_ROWS)
        self.setObjectName("evaluate_figures")
        self.setHeaderLabels(["%", "AP50", tr("P"), tr("R"), "F1", tr("IoU"), tr("Ref.")])
        tips = (
            tr("Figures are in per cent"),
            tr("Average precision at IoU 0.50"),
            tr("Precision: how many of what was found are right"),
            tr("Recall: how many of the reference were found"),
            tr("F1: the harmonic mean of precision and recall"),
            tr("Mean IoU of the matched pairs"),
            tr("Polygons of the reference"),
        )
        for column, tip in enumerate(tips):
            self.headerItem().setToolTip(column, tip)
            self.headerItem().setTextAlignment(column, _alignment(column))
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setAccessibleName(tr("Figures, in all and by class"))
        self.header().setStretchLastSection(False)
        self.header().setMinimumSectionSize(10)
        self._fit()

    def resizeEvent(self, event) -> None:
        super().resizeEvent(event)
        self._fit()

    def show_metrics(self, metrics: dict[str, Any]) -> None:
        """The engine's answer to `evaluate`."""
        self.clear()
        for name, figures in [(tr("All"), metrics), *sorted(metrics["by_class"].items())]:
            texts = ["–" if figures[key] is None else f"{100 * figures[key]:.0f}" for key in _FIGURES]
            item = QTreeWidgetItem([class_label(name), *texts, spaced(figures["reference"])])
            counts = (spaced(figures[key]) for key in ("predicted", "reference", "matched"))
            tip = tr("{}: {} found, {} in the reference, {} matched").format(class_label(name), *counts)
            item.setToolTip(0, as_it_is(tip))
            item.setData(0, _CURVE_ROLE, figures["curve"])
            for column in range(self.columnCount()):
                item.setTextAlignment(column, _alignment(column))
            self.addTopLevelItem(item)
        self.setCurrentItem(self.topLevelItem(0))
        self._fit()
        self.updateGeometry()

    def _fit(self) -> None:
        """In a wide panel, names take what is left. In a narrow one they are read first: they take what they need,
        within reason, and the figures scroll."""
        header = self.header()
        header.setMaximumSectionSize(_WIDEST_NAME * self.fontMetrics().averageCharWidth())
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        if header.length() < self.viewport().width():
            header.setMaximumSectionSize(self.viewport().width())
            header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)


def _alignment(column: int):
    return (Qt.AlignmentFlag.AlignRight if column else Qt.AlignmentFlag.AlignLeft) | Qt.AlignmentFlag.AlignVCenter


def _arrow(icon: str, tip: str) -> QToolButton:
    button = QToolButton()
    button.setIcon(QgsApplication.getThemeIcon(icon))
    button.setToolTip(tip)
    button.setAccessibleName(tip)
    return button
