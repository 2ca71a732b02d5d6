"""The desk's keys: what each does, which it is, and where it is listened to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qgis.PyQt.QtCore import QEvent, QObject, pyqtSignal
from qgis.PyQt.QtGui import QKeySequence
from qgis.PyQt.QtWidgets import QAbstractSpinBox, QLineEdit, QWidget

from rs4d_qgis import settings
from rs4d_qgis.compat import key_of
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr

_SETTING = "review_keys"


@dataclass(frozen=True)
class KeyAction:
    """Something that a key does.

    Attributes:
        name: for the settings.
        label: for people.
        default: the key, as Qt writes it: "A", "Ctrl+Z"; "" for none.
        run: what it does.
        repeats: also again and again while the key is held. Decisions do not: a key that is held too long would decide
            on what nobody has seen.
    """

    name: str
    label: str
    default: str
    run: Callable[[], None]
    repeats: bool = False


class Keys(QObject):
    """Keys of the main window's own shortcuts are taken from it only where the map or the desk has the focus, and only
    while `listening` says so. Fields that text is typed into keep theirs.

    Signals:
        changed(): there is another action, or another key for one.
    """

    changed = pyqtSignal()

    def __init__(self, listening: Callable[[], bool], parent: QObject | None = None):
        super().__init__(parent)
        self._listening = listening
        self._actions: dict[str, KeyAction] = {}
        self._others: list[Callable[[], dict[str, Callable[[], None]] | None]] = []
        self._chosen = self._recalled()

    def add(self, name: str, label: str, default: str, run: Callable[[], None], repeats: bool = False) -> None:
        """One more action."""
        self._actions[name] = KeyAction(name, label, default, run, repeats)
        self.changed.emit()

    def lend(self, others: Callable[[], dict[str, Callable[[], None]] | None]) -> None:
        """As long as this gives something, as while the analyst draws, keys do that, by the actions' names. All other
        actions have no key then: they would act on what is not looked at."""
        self._others.append(others)

    @property
    def actions(self) -> list[KeyAction]:
        """All of them."""
        return list(self._actions.values())

    def key(self, name: str) -> str:
        """The key of an action, as Qt writes it; "" where it has none."""
        return self._chosen.get(name, self._actions[name].default)

    def shown(self, name: str) -> str:
        """The key of an action, as the user's system writes it."""
        return QKeySequence(self.key(name)).toString(QKeySequence.SequenceFormat.NativeText)

    def choose(self, keys: dict[str, str]) -> None:
        """Give actions other keys, and remember them. Those left out have their defaults.

        Raises:
            ReviewRefused: two actions would have the same key.
        """
        taken: dict[str, str] = {}
        for action in self._actions.values():
            key = keys.get(action.name, action.default)
            if key and key in taken:
                raise ReviewRefused(tr("{} is the key of both “{}” and “{}”").format(key, taken[key], action.label))
            taken[key] = action.label
        self._chosen = {
            name: key for name, key in keys.items() if name in self._actions and key != self._actions[name].default
        }
        settings.set_last(_SETTING, self._chosen)
        self.changed.emit()

    def listen_on(self, widget: QWidget) -> None:
        """Take keys that are pressed while this widget, or one inside of it that has no use for them, has the focus."""
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """A key counts where it would otherwise be a shortcut of the main window, or be lost."""
        kind = event.type()
        if kind not in (QEvent.Type.ShortcutOverride, QEvent.Type.KeyPress) or not self._listening():
            return False
        if isinstance(watched, (QLineEdit, QAbstractSpinBox)):
            return False
        pressed = key_of(event).toString(QKeySequence.SequenceFormat.PortableText)
        action = next(
            (action for action in self._actions.values() if pressed and self.key(action.name) == pressed), None
        )
        run = None if action is None else self._meaning(action)
        if run is None:
            return False
        event.accept()
        if kind == QEvent.Type.KeyPress and (action.repeats or not event.isAutoRepeat()):
            run()
        return True

    def _meaning(self, action: KeyAction) -> Callable[[], None] | None:
        """What its key does now; None where it is off."""
        lent = next((given for given in (others() for others in self._others) if given is not None), None)
        return action.run if lent is None else lent.get(action.name)

    @staticmethod
    def _recalled() -> dict[str, str]:
        kept = settings.last(_SETTING, {})
        if not isinstance(kept, dict):
            return {}
        return {str(name): key for name, key in kept.items() if isinstance(key, str)}
