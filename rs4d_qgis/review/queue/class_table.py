"""Classes: which are to be looked at, which key gives them, and how far they are decided on."""

from __future__ import annotations

from dataclasses import replace

from qgis.PyQt.QtCore import QRect, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QIcon, QPalette, QPixmap
from qgis.PyQt.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QTreeWidgetItem,
)

from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.results import OTHER_COLOR
from rs4d_qgis.layers.statuses import ACCEPTED, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.row_table import RowTable
from rs4d_qgis.translation import tr
from rs4d_qgis.words import spaced

_NAME_ROLE = Qt.ItemDataRole.UserRole
_COUNT_ROLE = Qt.ItemDataRole.UserRole + 1
_CLASS, _KEY, _BAR, _DONE = range(4)
_MOST_ROWS = 10
_BAR_WIDTH = 72
_NAME_LETTERS = 20
ACCEPTED_COLOR, REJECTED_COLOR = "#4a9d5b", "#b9524a"


class ClassTable(RowTable):
    """A row a class, and one for all. Ticks filter the queue.

    Signals:
        touched(): the mouse was used: the keys may go back to the map.
    """

    touched = pyqtSignal()

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(_MOST_ROWS, parent)
        self._desk = desk
        self.setObjectName("review_classes")
        self.setColumnCount(4)
        self.setHeaderLabels([tr("Class"), tr("Key"), "", tr("Decided")])
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.setItemDelegateForColumn(_BAR, _Bar(self))
        self.setAccessibleName(tr("Classes, and how far they are decided on"))
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(_CLASS, QHeaderView.ResizeMode.Stretch)
        for column in (_KEY, _BAR, _DONE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        self.itemChanged.connect(self._ticked)
        desk.shown_changed.connect(self._show)
        desk.keys.changed.connect(self._show)
        self._show()

    def resizeEvent(self, event) -> None:
        """Where there is no room for names beside it, the bar goes: the numbers say the same."""
        super().resizeEvent(event)
        others = _BAR_WIDTH + self.sizeHintForColumn(_KEY) + self.sizeHintForColumn(_DONE)
        names = _NAME_LETTERS * self.fontMetrics().averageCharWidth()
        self.setColumnHidden(_BAR, self.viewport().width() < others + names)

    def _show(self) -> None:
        counts = self._desk.session.counts()
        names = [*self._desk.classes, *([""] if "" in counts else [])]
        self.blockSignals(True)
        if not self.topLevelItemCount() or [self._name(row) for row in range(1, self.topLevelItemCount())] != names:
            self._fill(names)
        wanted = self._desk.session.filters.classes
        rows = [(None, [sum(values) for values in zip(*map(_split, counts.values()))] or [0, 0, 0])]
        rows += [(name, _split(counts.get(name, {}))) for name in names]
        for row, (name, split) in enumerate(rows):
            item = self.topLevelItem(row)
            total = sum(split)
            if wanted is None or name in wanted:
                item.setCheckState(_CLASS, Qt.CheckState.Checked)
            elif name is None and wanted:
                item.setCheckState(_CLASS, Qt.CheckState.PartiallyChecked)
            else:
                item.setCheckState(_CLASS, Qt.CheckState.Unchecked)
            item.setData(_BAR, _COUNT_ROLE, split)
            item.setText(_DONE, tr("{} of {}").format(spaced(split[0] + split[1]), spaced(total)))
            tip = tr("{} accepted, {} rejected, {} pending").format(*split)
            for column in (_BAR, _DONE):
                item.setToolTip(column, tip)
        self.blockSignals(False)
        self.viewport().update()

    def _fill(self, names: list[str]) -> None:
        self.clear()
        every = QTreeWidgetItem([tr("All")])
        font = every.font(_CLASS)
        font.setBold(True)
        every.setFont(_CLASS, font)
        self.addTopLevelItem(every)
        for number, name in enumerate(names, 1):
            item = QTreeWidgetItem([class_label(name) or tr("no class")])
            item.setData(_CLASS, _NAME_ROLE, name)
            item.setIcon(_CLASS, self._swatch(self._desk.colors.get(name, OTHER_COLOR)))
            if number <= 9 and name:
                item.setText(_KEY, self._desk.keys.shown(f"class_{number}"))
            self.addTopLevelItem(item)
        for row in range(self.topLevelItemCount()):
            item = self.topLevelItem(row)
            item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            item.setTextAlignment(_DONE, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.updateGeometry()

    def _name(self, row: int) -> str:
        return self.topLevelItem(row).data(_CLASS, _NAME_ROLE)

    def _ticked(self, item: QTreeWidgetItem, column: int) -> None:
        if column != _CLASS:
            return
        rows = [self.topLevelItem(row) for row in range(1, self.topLevelItemCount())]
        on = item.checkState(_CLASS) == Qt.CheckState.Checked
        if item is self.topLevelItem(0):
            names = None if on else frozenset()
        else:
            ticked = [row for row in rows if row.checkState(_CLASS) == Qt.CheckState.Checked]
            names = None if len(ticked) == len(rows) else frozenset(row.data(_CLASS, _NAME_ROLE) for row in ticked)
        self._desk.set_filters(replace(self._desk.session.filters, classes=names))
        self.touched.emit()

    def _swatch(self, color: str) -> QIcon:
        side = self.fontMetrics().ascent()
        pixmap = QPixmap(side, side)
        pixmap.fill(QColor(color))
        return QIcon(pixmap)


def _split(count) -> list[int]:
    """Accepted, rejected, pending."""
    decided = [count.get(ACCEPTED, 0), count.get(REJECTED, 0)]
    return [*decided, sum(count.values()) - sum(decided)]


class _Bar(QStyledItemDelegate):
    """Accepted and rejected, as shares of all."""

    def paint(self, painter, option, index) -> None:
        split = index.data(_COUNT_ROLE)
        high = max(6, option.fontMetrics.ascent() // 2)
        box = QRect(option.rect.left() + 4, option.rect.center().y() - high // 2 + 1, option.rect.width() - 8, high)
        painter.fillRect(box, option.palette.color(QPalette.ColorRole.Midlight))
        total = sum(split) if split else 0
        left = box.left()
        for number, color in zip(split or (), (ACCEPTED_COLOR, REJECTED_COLOR)):
            # Whatever has begun shows.
            width = max(1, round(box.width() * number / total)) if number else 0
            painter.fillRect(QRect(left, box.top(), width, high), QColor(color))
            left += width

    def sizeHint(self, option, index) -> QSize:
        return QSize(_BAR_WIDTH, super().sizeHint(option, index).height())
