"""What of the work is in the file."""

from __future__ import annotations

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QHBoxLayout, QLabel, QMessageBox, QPushButton, QVBoxLayout, QWidget

from rs4d_qgis.plain_text import PlainLabel
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count


class SavingLine(QWidget):
    """Says whether decisions are saved, saves edits, and offers what a crash has left."""

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(parent)
        self._desk = desk
        self._icon = QLabel()
        self._text = PlainLabel()
        self._text.setObjectName("saving_state")
        self._text.setWordWrap(True)
        self._save = _button("save_edits", tr("Save edits"), self._save_edits)
        self._save.setIcon(QgsApplication.getThemeIcon("/mActionSaveAllEdits.svg"))
        self._save.setToolTip(tr("Write the new outlines to the file. QGIS's undo begins anew after that."))
        self._message = PlainLabel()
        self._message.setObjectName("review_message")
        self._message.setWordWrap(True)
        self._message.setMinimumWidth(1)  # else a long word widens the panel
        self._message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._message.hide()
        self._found = QWidget()
        self._found_text = PlainLabel()
        self._found_text.setObjectName("found_work")
        self._found_text.setWordWrap(True)
        found = QHBoxLayout(self._found)
        found.setContentsMargins(0, 0, 0, 0)
        found.addWidget(self._found_text, 1)
        found.addWidget(_button("restore_work", tr("Restore"), self._restore))
        found.addWidget(_button("discard_work", tr("Discard..."), self._discard))
        line = QHBoxLayout()
        line.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, 1)
        line.addWidget(self._save)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._message)
        layout.addWidget(self._found)
        layout.addLayout(line)
        desk.said.connect(self._say)
        desk.reviewed_changed.connect(self._another_layer)
        desk.saving_changed.connect(self._show)
        desk.keeper.changed.connect(self._show)
        self._another_layer()

    def _save_edits(self) -> None:
        self._try(self._desk.reviewed.save_edits)

    def _restore(self) -> None:
        self._try(self._desk.keeper.restore)

    def _try(self, run) -> None:
        try:
            self._desk.say(run() or "")
        except ReviewRefused as refused:
            self._desk.say(str(refused), True)

    def _discard(self) -> None:
        buttons = QMessageBox.StandardButton
        question = tr("Forget the unsaved work on {}? It cannot be brought back after that.")
        answer = QMessageBox.question(
            self, tr("Discard unsaved work"), question.format(self._found_count()), buttons.Yes | buttons.No, buttons.No
        )
        if answer == buttons.Yes:
            self._desk.keeper.discard()

    def _found_count(self) -> str:
        return count(self._desk.keeper.found_count(), tr("object"), tr("objects"))

    def _say(self, text: str, warning: bool) -> None:
        self._message.setText(text)
        self._message.setStyleSheet("font-weight: bold" if warning else "")
        self._message.setVisible(bool(text))

    def _another_layer(self) -> None:
        if self._desk.reviewed is not None and not self._desk.keeper.alone:
            self._desk.say(
                tr("Another QGIS has this layer on its desk. Of two decisions on one object, the later one counts."),
                True,
            )
        self._show()

    def _show(self) -> None:
        reviewed = self._desk.reviewed
        there = reviewed is not None
        edits = reviewed.unsaved_edits() if there else 0
        self._found.setVisible(there and bool(self._desk.keeper.found))
        self._found_text.setText(
            tr("QGIS ended before work on {} was saved.").format(self._found_count()) if there else ""
        )
        self._save.setVisible(edits > 0)
        self._text.setVisible(there)
        self._icon.setVisible(there)
        if not there:
            return
        waiting = len(reviewed.waiting)
        icon, text = "/mIconSuccess.svg", tr("All decisions are saved.")
        if reviewed.layer.providerType() == "memory":
            icon = "/mIconWarning.svg"
            text = tr(
                "This layer is in QGIS's memory only, and lost when QGIS closes: right-click it in the list of layers, "
                "and choose “Make Permanent...”."
            )
        if waiting:
            icon = "/mIconWarning.svg"
            text = tr("{} not saved yet: {}. They are kept in memory, and tried again.").format(
                count(waiting, tr("decision"), tr("decisions")), reviewed.trouble
            )
        if edits:
            icon = "/mIconInfo.svg" if icon == "/mIconSuccess.svg" else icon
            text += " " + tr("{} not saved.").format(count(edits, tr("edited object"), tr("edited objects")))
        side = self.fontMetrics().height()
        self._icon.setPixmap(QgsApplication.getThemeIcon(icon).pixmap(side, side))
        self._text.setText(text)


def _button(name: str, text: str, run) -> QPushButton:
    button = QPushButton(text)
    button.setObjectName(name)
    button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    button.clicked.connect(lambda: run())
    return button
