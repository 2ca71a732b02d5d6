"""What of the work is in the file."""

from __future__ import annotations

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count


class SavingLine(QWidget):
    """Says whether decisions are saved, and saves edits."""

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(parent)
        self._desk = desk
        self._icon = QLabel()
        self._text = QLabel()
        self._text.setObjectName("saving_state")
        self._text.setWordWrap(True)
        self._save = QPushButton(QgsApplication.getThemeIcon("/mActionSaveAllEdits.svg"), tr("Save edits"))
        self._save.setObjectName("save_edits")
        self._save.setToolTip(tr("Write the new outlines to the file. QGIS's undo begins anew after that."))
        self._save.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._save.clicked.connect(self._save_edits)
        self._message = QLabel()
        self._message.setObjectName("review_message")
        self._message.setWordWrap(True)
        self._message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._message.hide()
        line = QHBoxLayout()
        line.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, 1)
        line.addWidget(self._save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._message)
        layout.addLayout(line)
        desk.said.connect(self._say)
        desk.reviewed_changed.connect(self._show)
        desk.saving_changed.connect(self._show)
        self._show()

    def _save_edits(self) -> None:
        try:
            self._desk.reviewed.save_edits()
        except ReviewRefused as refused:
            self._desk.say(str(refused), True)

    def _say(self, text: str, warning: bool) -> None:
        self._message.setText(text)
        self._message.setStyleSheet("font-weight: bold" if warning else "")
        self._message.setVisible(bool(text))

    def _show(self) -> None:
        reviewed = self._desk.reviewed
        edits = 0 if reviewed is None else reviewed.unsaved_edits()
        self._save.setVisible(edits > 0)
        self.setVisible(reviewed is not None or bool(self._message.text()))
        if reviewed is None:
            self._text.clear()
            self._icon.clear()
            return
        icon = "/mIconSuccess.svg"
        if reviewed.unsaved:
            icon = "/mIconWarning.svg"
            text = tr("{} not saved yet: {}. They are kept in memory, and tried again.").format(
                count(reviewed.unsaved, tr("decision"), tr("decisions")), reviewed.trouble
            )
        else:
            text = tr("All decisions are saved.")
        if edits:
            icon = icon if reviewed.unsaved else "/mIconInfo.svg"
            text += " " + tr("{} not saved.").format(count(edits, tr("edited object"), tr("edited objects")))
        side = self.fontMetrics().height()
        self._icon.setPixmap(QgsApplication.getThemeIcon(icon).pixmap(side, side))
        self._text.setText(text)
