"""What the queue holds and in which order: the upper part of the desk."""

from __future__ import annotations

from dataclasses import replace

from qgis.core import QgsApplication
from qgis.gui import QgsCollapsibleGroupBox, QgsDoubleSpinBox
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.order import Order
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count


class QueueBox(QWidget):
    """Sets the desk's order and filters. Classes are chosen in the table of classes.

    Signals:
        zoom_wanted(bool): whether the map is to zoom to each object.
        touched(): the mouse was used: the keys may go back to the map.
    """

    zoom_wanted = pyqtSignal(bool)
    touched = pyqtSignal()

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(parent)
        self._desk = desk
        self._order = QComboBox()
        self._order.setObjectName("review_order")
        self._order.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._order.setAccessibleName(tr("Order of the queue"))
        for order, label in _order_labels().items():
            self._order.addItem(label, order.value)
        self._order.setItemData(0, tr("Scores near 0.5"), Qt.ItemDataRole.ToolTipRole)
        self._order.activated.connect(self._order_chosen)
        self.zoom = QToolButton()
        self.zoom.setObjectName("review_zoom")
        self.zoom.setIcon(QgsApplication.getThemeIcon("/mActionZoomToSelected.svg"))
        self.zoom.setToolTip(tr("Zoom to each object. Otherwise the map keeps its scale, and pans only where it must."))
        self.zoom.setCheckable(True)
        self.zoom.setChecked(True)
        self.zoom.setAutoRaise(True)
        self.zoom.toggled.connect(self.zoom_wanted)
        self._statuses = {}
        for status, label in ((PENDING, tr("Pending")), (ACCEPTED, tr("Accepted")), (REJECTED, tr("Rejected"))):
            box = QCheckBox(label)
            box.setObjectName(f"show_{status}")
            box.clicked.connect(self._filters_chosen)
            self._statuses[status] = box
        self._least = _score_box("review_least_score", tr("Lowest score to look at"))
        self._most = _score_box("review_most_score", tr("Highest score to look at"))
        self._most.setValue(1.0)
        self._most.setClearValue(1.0)
        for box in (self._least, self._most):
            box.valueChanged.connect(self._filters_chosen)
            box.editingFinished.connect(self.touched)

        order = QHBoxLayout()
        order.addWidget(self._order, 1)
        order.addWidget(self.zoom)
        self._fold = QgsCollapsibleGroupBox()
        self._fold.setObjectName("review_filters")
        self._fold.setCollapsed(True)
        statuses = QHBoxLayout()
        for box in self._statuses.values():
            statuses.addWidget(box)
        statuses.addStretch()
        scores = QHBoxLayout()
        scores.addWidget(QLabel(tr("Scores from")))
        scores.addWidget(self._least, 1)
        scores.addWidget(QLabel(tr("to")))
        scores.addWidget(self._most, 1)
        filters = QVBoxLayout(self._fold)
        filters.addLayout(statuses)
        filters.addLayout(scores)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(order)
        layout.addWidget(self._fold)
        desk.reviewed_changed.connect(self._show)
        desk.shown_changed.connect(self._title)
        self._show()

    def _show(self) -> None:
        """What the desk's queue has."""
        session = self._desk.session
        self.setEnabled(self._desk.reviewed is not None)
        self._order.setCurrentIndex(self._order.findData(session.order.value))
        for status, box in self._statuses.items():
            box.setChecked(status in session.filters.statuses)
        for box, value in ((self._least, session.filters.least_score), (self._most, session.filters.most_score)):
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self._title()

    def _title(self) -> None:
        """What is looked at, without unfolding it."""
        filters = self._desk.session.filters
        parts = [", ".join(box.text().lower() for name, box in self._statuses.items() if name in filters.statuses)]
        if filters.classes is not None:
            parts.append(count(len(filters.classes), tr("class"), tr("classes")))
        if (filters.least_score, filters.most_score) != (0.0, 1.0):
            parts.append(tr("scores {:.2f} to {:.2f}").format(filters.least_score, filters.most_score))
        self._fold.setTitle(tr("Filters: {}").format("; ".join(filter(None, parts)) or tr("nothing")))

    def _order_chosen(self) -> None:
        self._desk.set_order(Order(self._order.currentData()))
        self.touched.emit()

    def _filters_chosen(self) -> None:
        statuses = frozenset(status for status, box in self._statuses.items() if box.isChecked())
        filters = replace(
            self._desk.session.filters,
            statuses=statuses,
            least_score=self._least.value(),
            most_score=self._most.value(),
        )
        self._desk.set_filters(filters)


def _order_labels() -> dict[Order, str]:
    return {
        Order.UNCERTAIN: tr("Most uncertain first"),
        Order.LOW_SCORE: tr("Lowest score first"),
        Order.HIGH_SCORE: tr("Highest score first"),
        Order.LARGE: tr("Largest first"),
        Order.SMALL: tr("Smallest first"),
        Order.CLASS: tr("Class by class"),
        Order.PLACE: tr("Across the map, row by row"),
    }


def _score_box(name: str, label: str) -> QgsDoubleSpinBox:
    box = QgsDoubleSpinBox()
    box.setObjectName(name)
    box.setRange(0.0, 1.0)
    box.setSingleStep(0.05)
    box.setDecimals(2)
    box.setAccessibleName(label)
    box.setToolTip(label)
    box.setKeyboardTracking(False)
    return box
