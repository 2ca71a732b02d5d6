"""Work in the background of QGIS, with its result on the main thread."""

from __future__ import annotations

import traceback
from collections.abc import Callable

from qgis.core import Qgis, QgsApplication, QgsMessageLog, QgsTask
from qgis.PyQt.QtCore import pyqtSignal

from rs4d_qgis.compat import QUIET_TASK
from rs4d_qgis.engine.errors import Cancelled, EngineError

# The task manager owns tasks, but Python would forget what was added to them; so they are held until they have ended.
_unfinished: set[EngineTask] = set()


class EngineTask(QgsTask):
    """Runs `work(task)` in the background. `work` touches no object of the main thread; it polls `task.isCanceled`.

    Signals, on the main thread:
        succeeded: with what `work` returned; also after a cancel, where `work` returned something partial.
        failed: with a message for users, "" where the task was cancelled and nothing came of it.
    """

    succeeded = pyqtSignal(object)
    failed = pyqtSignal(str)

    def __init__(self, description: str, work: Callable[[EngineTask], object]) -> None:
        super().__init__(description, QUIET_TASK)
        self._work = work
        self._result: object = None
        self._error: str | None = None

    def start(self) -> EngineTask:
        """Hand it to QGIS's task manager, and keep it alive until it has ended."""
        _unfinished.add(self)
        QgsApplication.taskManager().addTask(self)
        return self

    def run(self) -> bool:
        """In the background, called by QGIS. To QGIS it never fails: it would tell so in a bar of its own."""
        try:
            self._result = self._work(self)
        except Cancelled:
            self._error = ""
        except EngineError as error:
            self._error = str(error)
        except Exception as error:  # nothing may leave a task: QGIS would end over it
            QgsMessageLog.logMessage(traceback.format_exc(), "RS4D", Qgis.MessageLevel.Critical)
            self._error = f"internal error, please report it: {type(error).__name__}: {error}"
        return True

    def finished(self, ok: bool) -> None:
        """On the main thread, called by QGIS."""
        _unfinished.discard(self)
        if ok and self._error is None:
            self.succeeded.emit(self._result)
        else:
            self.failed.emit(self._error or "")
