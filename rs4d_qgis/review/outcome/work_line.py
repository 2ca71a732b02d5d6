"""Work of the desk that goes on in the background: how far it is, how to stop it, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from rs4d_qgis.engine.tasks import EngineTask
from rs4d_qgis.plain_text import PlainLabel
from rs4d_qgis.translation import tr


class WorkLine(QWidget):
    """One piece of work at a time.

    Signals:
        busy_changed(): work begins or is over.
    """

    busy_changed = pyqtSignal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._task: EngineTask | None = None
        self._done: Callable[[Any], None] | None = None
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self.cancel_button = QPushButton(tr("Cancel"))
        self.cancel_button.setObjectName("cancel_work")
        self.cancel_button.clicked.connect(self.cancel)
        self._icon = QLabel()
        self._text = PlainLabel()
        self._text.setObjectName("work_told")
        self._text.setWordWrap(True)
        self._text.setMinimumWidth(1)  # else a long word widens the panel
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._progress = QWidget()
        going = QHBoxLayout(self._progress)
        going.setContentsMargins(0, 0, 0, 0)
        going.addWidget(self._bar, 1)
        going.addWidget(self.cancel_button)
        told = QHBoxLayout()
        told.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        told.addWidget(self._text, 1)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._progress)
        layout.addLayout(told)
        self._progress.hide()
        self.say("")

    @property
    def busy(self) -> bool:
        """Work is on."""
        return self._task is not None

    @property
    def told(self) -> str:
        """What it says now."""
        return self._text.text()

    def start(self, description: str, work: Callable[[EngineTask], Any], done: Callable[[Any], None]) -> None:
        """Run `work(task)` in the background, then `done` with its result, here. Says itself why it failed."""
        task = EngineTask(description, work)
        # To methods, which Qt does not call any more once this widget is gone.
        task.progressChanged.connect(self._progressed)
        task.succeeded.connect(self._succeeded)
        task.failed.connect(self._failed)
        self._task, self._done = task, done
        self.say("")
        # Until something is told, nobody knows how far it is: a bar that moves to and fro.
        self._bar.setRange(0, 0)
        self.cancel_button.setEnabled(True)
        self._progress.show()
        task.start()
        self.busy_changed.emit()

    def cancel(self) -> None:
        """Ask what is on to stop. Returns at once."""
        if self._task is not None:
            self.cancel_button.setEnabled(False)
            self._task.cancel()

    def give_up(self) -> None:
        """Do without what comes of it: nothing is told of it any more."""
        task, self._task = self._task, None
        if task is not None:
            task.progressChanged.disconnect(self._progressed)
            task.succeeded.disconnect(self._succeeded)
            task.failed.disconnect(self._failed)
            task.cancel()
            self._over()

    def say(self, text: str, icon: str = "/mIconInfo.svg") -> None:
        """Tell something; an empty text takes the last one away."""
        side = self.fontMetrics().height()
        self._icon.setPixmap(QgsApplication.getThemeIcon(icon).pixmap(side, side))
        self._icon.setVisible(bool(text))
        self._text.setText(text)
        self._text.setVisible(bool(text))

    def warn(self, text: str) -> None:
        """Tell what went wrong."""
        self.say(text, "/mIconWarning.svg")

    def _progressed(self, percent: float) -> None:
        self._bar.setRange(0, 100)
        self._bar.setValue(round(percent))

    def _succeeded(self, result: Any) -> None:
        done = self._done
        self._over()
        done(result)

    def _failed(self, reason: str) -> None:
        self._over()
        if reason:
            self.warn(reason)
        else:
            self.say(tr("Cancelled; nothing of it is left."))

    def _over(self) -> None:
        self._task = self._done = None
        self._progress.hide()
        self.busy_changed.emit()
