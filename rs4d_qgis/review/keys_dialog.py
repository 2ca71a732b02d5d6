"""Which key does what, to be changed."""

from __future__ import annotations

from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QKeySequence
from qgis.PyQt.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QKeySequenceEdit,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
)

from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.keys import Keys
from rs4d_qgis.translation import tr


class KeysDialog(QDialog):
    """A row an action."""

    def __init__(self, keys: Keys, parent=None):
        super().__init__(parent)
        self.setWindowTitle(tr("Keys of the review"))
        self._keys = keys
        self._table = QTableWidget(len(keys.actions), 2)
        self._table.setObjectName("keys_table")
        self._table.setHorizontalHeaderLabels([tr("Action"), tr("Key")])
        self._table.verticalHeader().hide()
        self._table.horizontalHeader().setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for row, action in enumerate(keys.actions):
            label = QTableWidgetItem(action.label)
            label.setFlags(Qt.ItemFlag.ItemIsEnabled)
            self._table.setItem(row, 0, label)
            self._table.setCellWidget(row, 1, QKeySequenceEdit(QKeySequence(keys.key(action.name))))
        self._refused = QuietLabel()
        hint = QLabel(tr("Click on a key and press another one. They count while the map or the panel has the focus."))
        hint.setWordWrap(True)
        buttons = QDialogButtonBox(
            QDialogButtonBox.StandardButton.Ok
            | QDialogButtonBox.StandardButton.Cancel
            | QDialogButtonBox.StandardButton.RestoreDefaults
        )
        buttons.accepted.connect(self.accept)
        buttons.rejected.connect(self.reject)
        buttons.button(QDialogButtonBox.StandardButton.RestoreDefaults).clicked.connect(self._defaults)
        layout = QVBoxLayout(self)
        layout.addWidget(hint)
        layout.addWidget(self._table, 1)
        layout.addWidget(self._refused)
        layout.addWidget(buttons)
        self.resize(420, 560)

    def accept(self) -> None:
        """Take them, unless two are the same."""
        chosen = {
            action.name: self._edit(row).keySequence().toString(QKeySequence.SequenceFormat.PortableText)
            for row, action in enumerate(self._keys.actions)
        }
        try:
            self._keys.choose(chosen)
        except ReviewRefused as refused:
            self._refused.say(str(refused))
            return
        super().accept()

    def _defaults(self) -> None:
        for row, action in enumerate(self._keys.actions):
            self._edit(row).setKeySequence(QKeySequence(action.default))

    def _edit(self, row: int) -> QKeySequenceEdit:
        return self._table.cellWidget(row, 1)
