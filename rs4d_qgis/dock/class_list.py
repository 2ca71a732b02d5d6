"""The classes to look for: a list to tick, with the colours that they have on the map."""

from __future__ import annotations

from qgis.gui import QgsCollapsibleGroupBox
from qgis.PyQt.QtCore import QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QIcon, QPixmap
from qgis.PyQt.QtWidgets import QAbstractItemView, QHBoxLayout, QListWidget, QListWidgetItem, QToolButton, QVBoxLayout

from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.translation import tr

_NAME_ROLE = Qt.ItemDataRole.UserRole
_MOST_ROWS = 12


class ClassList(QgsCollapsibleGroupBox):
    """A group that folds, and stays so the next time, titled with how many are ticked."""

    changed = pyqtSignal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setObjectName("classes")
        self._list = _RowsHigh()
        self._list.setObjectName("class_list")
        self._list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self._list.itemChanged.connect(self._tell)
        self._list.setAccessibleName(tr("Classes to look for"))
        self._all = self._button(tr("All"), tr("Look for all classes"), Qt.CheckState.Checked)
        self._none = self._button(tr("None"), tr("Untick all, to choose a few"), Qt.CheckState.Unchecked)
        buttons = QHBoxLayout()
        buttons.addWidget(self._all)
        buttons.addWidget(self._none)
        buttons.addStretch()
        layout = QVBoxLayout(self)
        layout.addWidget(self._list)
        layout.addLayout(buttons)
        self._title()

    def set_classes(self, names: list[str], colors: list[str], scores: list[float]) -> None:
        """Show the classes of another model. Ticks stay with classes that both have."""
        before = {item.data(_NAME_ROLE): item.checkState() for item in self._items()}
        # Of a model with other classes altogether, all are wanted.
        keep = any(before.get(name) == Qt.CheckState.Checked for name in names)
        self._list.blockSignals(True)
        self._list.clear()
        for name, color, score in zip(names, colors, scores):
            item = QListWidgetItem(self._swatch(color), class_label(name))
            item.setData(_NAME_ROLE, name)
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
            item.setCheckState(before.get(name, Qt.CheckState.Checked) if keep else Qt.CheckState.Checked)
            item.setToolTip(tr("The model's own least score for this class: {:.2f}").format(score))
            self._list.addItem(item)
        self._list.blockSignals(False)
        self._list.updateGeometry()
        self._tell()

    def checked(self) -> tuple[str, ...]:
        """Names of the ticked ones."""
        return tuple(item.data(_NAME_ROLE) for item in self._items() if item.checkState() == Qt.CheckState.Checked)

    def wanted(self) -> tuple[str, ...] | None:
        """As a run takes it: None where all are ticked."""
        checked = self.checked()
        return None if len(checked) == self._list.count() else checked

    def set_wanted(self, names: tuple[str, ...] | None) -> None:
        """Tick these, or all where None. Names that this model does not have are passed over."""
        self._list.blockSignals(True)
        for item in self._items():
            wanted = names is None or item.data(_NAME_ROLE) in names
            item.setCheckState(Qt.CheckState.Checked if wanted else Qt.CheckState.Unchecked)
        self._list.blockSignals(False)
        self._tell()

    def _items(self) -> list[QListWidgetItem]:
        return [self._list.item(row) for row in range(self._list.count())]

    def _button(self, text: str, tip: str, state: Qt.CheckState) -> QToolButton:
        button = QToolButton()
        button.setText(text)
        button.setToolTip(tip)
        button.setAutoRaise(True)
        button.clicked.connect(lambda: self.set_wanted(None if state == Qt.CheckState.Checked else ()))
        return button

    def _swatch(self, color: str) -> QIcon:
        side = self.fontMetrics().ascent()
        pixmap = QPixmap(side, side)
        pixmap.fill(QColor(color))
        return QIcon(pixmap)

    def _tell(self) -> None:
        self._title()
        self.changed.emit()

    def _title(self) -> None:
        total = self._list.count()
        ticked = len(self.checked())
        self.setTitle(
            tr("Classes (all {})").format(total) if ticked == total else tr("Classes ({} of {})").format(ticked, total)
        )


class _RowsHigh(QListWidget):
    """A list as high as its rows, whatever the font: the panel scrolls, so that the list need not."""

    def sizeHint(self) -> QSize:
        rows = max(1, min(self.count(), _MOST_ROWS))
        row = self.sizeHintForRow(0) if self.count() else self.fontMetrics().height()
        return QSize(super().sizeHint().width(), rows * row + 2 * self.frameWidth())

    def minimumSizeHint(self) -> QSize:
        return QSize(super().minimumSizeHint().width(), self.sizeHint().height())
