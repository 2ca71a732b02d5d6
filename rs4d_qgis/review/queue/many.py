"""Deciding on many objects at once."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qgis.PyQt.QtWidgets import QMessageBox, QWidget

from rs4d_qgis.layers.class_names import class_label
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
    if not _agreed(parent, question.format, len(ids)):
        return False
    desk.decide(ids, status)
    return True


def set_class_of_many(parent: QWidget, desk: DeskState, ids: list[int], name: str) -> None:
    """Ask, with their number, and give them this class."""
    if _agreed(parent, partial(tr("Set class {} on {}?").format, class_label(name)), len(ids)):
        desk.set_class(ids, name)


def _agreed(parent: QWidget, question: Callable[[str], str], number: int) -> bool:
    buttons = QMessageBox.StandardButton
    # A stray Enter decides nothing.
    answer = QMessageBox.question(
        parent,
        tr("Decide on many"),
        question(count(number, tr("object"), tr("objects"))) + "\n\n" + tr("It is one step, which Undo takes back."),
        buttons.Yes | buttons.No,
        buttons.No,
    )
    return answer == buttons.Yes
