"""Deciding on many objects at once."""

from __future__ import annotations

from qgis.PyQt.QtWidgets import QMessageBox, QWidget

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count


def decide_on_many(parent: QWidget, desk: DeskState, ids: list[int], status: str) -> bool:
    """Ask, with their number, and decide. False where the analyst would rather not, or there are none."""
    if not ids:
        desk.say(tr("There is nothing to decide on."))
        return False
    question = {ACCEPTED: tr("Accept {}?"), REJECTED: tr("Reject {}?"), PENDING: tr("Put {} back to pending?")}[status]
    buttons = QMessageBox.StandardButton
    # A stray Enter decides nothing.
    answer = QMessageBox.question(
        parent,
        tr("Decide on many"),
        question.format(count(len(ids), tr("object"), tr("objects")))
        + "\n\n"
        + tr("It is one step, which Undo takes back."),
        buttons.Yes | buttons.No,
        buttons.No,
    )
    if answer != buttons.Yes:
        return False
    desk.decide(ids, status)
    return True
