"""One line that says how the engine is, with a button for what can be done about it."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from rs4d_qgis import settings
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.errors import EngineNotFound
from rs4d_qgis.engine.locate import locate_engine
from rs4d_qgis.engine.tasks import EngineTask
from rs4d_qgis.plain_text import PlainLabel, as_it_is
from rs4d_qgis.translation import tr


class EngineLine(QWidget):
    """Looks for the engine, starts it in the background, and asks it for its device and models.

    Signals:
        ready(dict): what the engine's `hello` answered.
        unavailable(): there is no engine, or it does not start; the line says why.
        setup_wanted(), check_wanted(): the user pressed a button for that dialog.
    """

    ready = pyqtSignal(dict)
    unavailable = pyqtSignal()
    setup_wanted = pyqtSignal()
    check_wanted = pyqtSignal()

    def __init__(self, parent=None):
        super().__init__(parent)
        self._task: EngineTask | None = None
        self._icon = QLabel()
        self._text = PlainLabel()
        self._text.setObjectName("engine_state")
        self._text.setWordWrap(True)
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._setup = QPushButton(tr("Set up engine..."))
        self._setup.setObjectName("engine_setup")
        self._setup.setToolTip(tr("Shows what would be installed and how large it is, before anything is done"))
        self._setup.clicked.connect(self.setup_wanted)
        self._check = QPushButton(tr("Check engine..."))
        self._check.setObjectName("engine_check")
        self._check.setToolTip(tr("Shows interpreter, versions and device, and how to mend what is missing"))
        self._check.clicked.connect(self.check_wanted)
        self._again = QPushButton(tr("Try again"))
        self._again.setObjectName("engine_again")
        self._again.clicked.connect(self.look)
        line = QHBoxLayout()
        line.addWidget(self._icon, 0, Qt.AlignmentFlag.AlignTop)
        line.addWidget(self._text, 1)
        buttons = QHBoxLayout()
        for button in (self._setup, self._check, self._again):
            buttons.addWidget(button)
        buttons.addStretch()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(line)
        layout.addLayout(buttons)
        self._say("/mIconInfo.svg", tr("Engine: not started yet"))

    @property
    def looking(self) -> bool:
        """Its answer is awaited."""
        return self._task is not None

    def look(self) -> None:
        """Find the engine and ask it how it is. Returns at once."""
        if self._task is not None:
            return
        try:
            location = locate_engine()
        except EngineNotFound as error:
            self._say("/mIconWarning.svg", str(error), self._setup, self._check)
            self.unavailable.emit()
            return
        self._say("/mIconInfo.svg", tr("Engine: starting..."))
        self._text.setToolTip(as_it_is(location.python))
        folders = settings.model_folders()
        self._task = EngineTask(
            tr("Start the engine of RS4D"),
            lambda task: engine_client().request("hello", {"model_folders": folders}, cancelled=task.isCanceled),
        )
        self._task.succeeded.connect(self._answered)
        self._task.failed.connect(self._failed)
        self._task.start()

    def look_at_model(self, path: str) -> None:
        """Have the engine list the models of this file's folder too, from now on."""
        folder = str(Path(path).parent)
        if folder not in settings.model_folders():
            settings.set_model_folders([*settings.model_folders(), folder])
        self.look()

    def tear_down(self) -> None:
        """Expect no answer any more."""
        if self._task is not None:
            self._task.succeeded.disconnect(self._answered)
            self._task.failed.disconnect(self._failed)
            self._task.cancel()
            self._task = None

    def _answered(self, hello: dict) -> None:
        self._task = None
        device = hello["device"]
        # An older engine does not tell the GPU's name.
        kind = tr("processor") if device["name"] == "cpu" else tr("GPU: {}").format(device.get("gpu") or device["name"])
        self._say("/mIconSuccess.svg", tr("Engine ready ({})").format(kind))
        details = (f"{device['name']}: {device['reason']}", f"rs4d {hello['version']}", hello["executable"])
        self._text.setToolTip(as_it_is("\n".join(details)))
        self.ready.emit(hello)

    def _failed(self, reason: str) -> None:
        self._task = None
        self._say("/mIconWarning.svg", reason or tr("The engine was stopped."), self._again, self._check)
        self.unavailable.emit()

    def _say(self, icon: str, text: str, *buttons: QPushButton) -> None:
        side = self.fontMetrics().height()
        self._icon.setPixmap(QgsApplication.getThemeIcon(icon).pixmap(side, side))
        self._text.setText(text)
        for button in (self._setup, self._check, self._again):
            button.setVisible(button in buttons)
