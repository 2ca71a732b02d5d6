"""The current object, and the buttons to decide on it or on many: the middle of the desk."""

from __future__ import annotations

from functools import partial

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import (
    QFrame,
    QInputDialog,
    QLabel,
    QMenu,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.layers.class_names import as_known, class_label
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.queue.key_button import KeyButton
from rs4d_qgis.review.queue.many import decide_on_many, set_class_of_many
from rs4d_qgis.review.reflow_grid import ReflowGrid
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, spaced

_CLASS_KEYS = 9


class DecideBox(QWidget):
    """Adds the desk's own keys, and shows them on its buttons."""

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(parent)
        self._desk = desk
        self._where = QuietLabel()
        self._where.setObjectName("review_place")
        self._what = QLabel()
        self._what.setObjectName("review_object")
        self._what.setWordWrap(True)
        self._what.setMinimumWidth(1)  # else a long word widens the panel
        self._buttons: dict[str, KeyButton] = {}
        for name, label, icon, default, run, tip, repeats in self._own_actions():
            button = KeyButton(QgsApplication.getThemeIcon(icon), label, tip)
            button.setObjectName(f"review_{name}")
            button.clicked.connect(partial(self._guarded, run))
            desk.keys.add(name, label, default, partial(self._guarded, run), repeats)
            self._buttons[name] = button
        self._named: list[str] | None = None
        self._name_class_keys()
        desk.keys.add("class_other", tr("Set another class..."), "0", partial(self._guarded, self._other_class))
        self._shown = self._menu_button("decide_shown", tr("All in the queue"), self._shown_ids)
        self._selected = self._menu_button("decide_selected", tr("Selected"), self._selected_ids)
        card = QFrame()
        card.setFrameShape(QFrame.Shape.StyledPanel)
        lines = QVBoxLayout(card)
        lines.addWidget(self._what)
        lines.addWidget(self._where)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(card)
        layout.addWidget(ReflowGrid(list(self._buttons.values()), across=(3, 2)))
        layout.addWidget(ReflowGrid([self._shown, self._selected], across=(2, 1)))
        desk.keys.changed.connect(self._show_keys)
        desk.current_changed.connect(self.refresh)
        desk.shown_changed.connect(self._name_class_keys)
        desk.shown_changed.connect(self.refresh)
        self._show_keys()
        self.refresh()

    def _name_class_keys(self) -> None:
        """The keys of classes are told by the classes' names, where there are any."""
        names = list(self._desk.classes[:_CLASS_KEYS])
        if names == self._named:
            return
        self._named = names
        for number in range(1, _CLASS_KEYS + 1):
            name = class_label(names[number - 1]) if number <= len(names) else str(number)
            self._desk.keys.add(
                f"class_{number}",
                tr("Set class {}").format(name),
                str(number),
                partial(self._guarded, partial(self._class, number)),
            )

    def _own_actions(self) -> list[tuple]:
        """Name, label, icon, default key, what it does, its tip, whether it repeats."""
        desk = self._desk
        return [
            ("accept", tr("Accept"), "/mIconSuccess.svg", "A", partial(self._decide, ACCEPTED),
             tr("It is right: accept it, and go on"), False),
            ("reject", tr("Reject"), "/mActionRemove.svg", "R", partial(self._decide, REJECTED),
             tr("It is wrong: reject it, and go on. It stays in the layer."), False),
            ("skip", tr("Skip"), "/mActionDoubleArrowRight.svg", "S", desk.go_on,
             tr("Leave it as it is, and go on. It comes up again at the end."), False),
            ("previous", tr("Previous"), "/mActionArrowLeft.svg", "P", partial(desk.step, -1),
             tr("One back, also to what was decided on"), True),
            ("next", tr("Next"), "/mActionArrowRight.svg", "N", partial(desk.step, 1),
             tr("One on, also to what was decided on"), True),
            ("undo", tr("Undo"), "/mActionUndo.svg", "U", desk.undo,
             tr("Take back the last decision or edit"), True),
        ]  # fmt: skip

    def _decide(self, status: str) -> None:
        """As edits do, on what is selected, else on the current object."""
        ids = self._desk.selection()
        if len(ids) > 1:
            if decide_on_many(self, self._desk, ids, status):
                self._desk.reviewed.layer.removeSelection()  # done with
        elif ids:
            self._desk.decide(ids, status)

    def _class(self, number: int) -> None:
        if number <= len(self._desk.classes):
            self._set_class(self._desk.classes[number - 1])

    def _other_class(self) -> None:
        name, ok = QInputDialog.getItem(self, tr("Set class"), tr("Class:"), self._desk.classes, 0, True)
        if ok and name.strip():
            self._set_class(*as_known([name.strip()], self._desk.classes))

    def _set_class(self, name: str) -> None:
        ids = self._desk.selection()
        if len(ids) > 1:
            set_class_of_many(self, self._desk, ids, name)
        elif ids:
            self._desk.set_class(ids, name)

    def _guarded(self, run, *_) -> None:
        """Whatever a key or a button does, it does to a layer."""
        if self._desk.reviewed is not None:
            self._desk.say("")
            run()

    def _menu_button(self, name: str, text: str, ids) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setText(text)
        button.setProperty("label", text)
        button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextOnly)
        button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        button.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        menu = QMenu(button)
        for status, label in (
            (ACCEPTED, tr("Accept...")),
            (REJECTED, tr("Reject...")),
            (PENDING, tr("Put back to pending...")),
        ):
            action = menu.addAction(label)
            action.setObjectName(f"{name}_{status}")
            action.triggered.connect(
                lambda _checked=False, status=status: decide_on_many(self, self._desk, ids(), status)
            )
        button.setMenu(menu)
        return button

    def _shown_ids(self) -> list[int]:
        return self._desk.session.shown

    def _selected_ids(self) -> list[int]:
        return sorted(self._desk.reviewed.layer.selectedFeatureIds())

    def _show_keys(self) -> None:
        for name, button in self._buttons.items():
            button.show_key(self._desk.keys.shown(name))

    def refresh(self, *_) -> None:
        """What is decided on may be another object, or others."""
        desk = self._desk
        session = desk.session
        item = session.objects.get(session.current) if session.current is not None else None
        there = desk.reviewed is not None
        selected = desk.reviewed.layer.selectedFeatureCount() if there else 0
        applies = dict.fromkeys(self._buttons, there and item is not None)
        applies.update(previous=there, undo=there and desk.reviewed.can_undo())
        if selected > 1:
            applies.update(accept=True, reject=True)
        for name, button in self._buttons.items():
            button.setEnabled(applies[name])
        self._shown.setText(tr("{} ({})").format(self._shown.property("label"), spaced(session.left)))
        self._shown.setEnabled(session.left > 0)
        self._selected.setText(tr("{} ({})").format(self._selected.property("label"), spaced(selected)))
        self._selected.setEnabled(selected > 0)
        if not there:
            self._what.setText(tr("No layer is under review."))
            self._where.say(tr("Choose one above: a result of RS4D, or any layer of polygons."))
        elif selected > 1:
            self._what.setText(tr("<b>{} objects are selected.</b>").format(spaced(selected)))
            self._where.say(tr("Keys and buttons are for all of these, and ask first."))
        elif item is None:
            self._what.setText(tr("Nothing is left to look at."))
            self._where.say(
                tr("{} that the filters let through, and all is decided on.").format(
                    count(len(session.queue), tr("object"), tr("objects"))
                )
                if session.queue
                else tr("No object passes the filters.")
            )
        else:
            self._what.setText(_described(item))
            self._where.say(
                tr("{} of {} in the queue, {} left").format(
                    spaced(session.place + 1), spaced(len(session.queue)), spaced(session.left)
                )
            )


def _described(item: ReviewObject) -> str:
    status = {PENDING: tr("pending"), ACCEPTED: tr("accepted"), REJECTED: tr("rejected")}[item.status]
    parts = [tr("no score") if item.score is None else tr("score {:.2f}").format(item.score)]
    if item.area_m2 is not None:
        parts.append(tr("{} m²").format(spaced(round(item.area_m2))))
    parts.append(status)
    name = class_label(item.class_name) or tr("no class")
    return "<b>{}</b> &nbsp; {}".format(_escaped(name), " · ".join(parts))


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
