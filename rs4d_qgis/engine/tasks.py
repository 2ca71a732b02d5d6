"""Work in the background of QGIS, with its result on the main thread."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable

from qgis.core import Qgis, QgsApplication, QgsMessageLog, QgsTask
from qgis.PyQt import sip
from qgis.PyQt.QtCore import pyqtSignal

from rs4d_qgis.compat import QUIET_TASK
from rs4d_qgis.engine.client import close_engine
from rs4d_qgis.engine.errors import Cancelled, EngineError

# The task manager owns tasks, but Python would forget what was added to them; so they are held until they have ended.
_unfinished: set[EngineTask] = set()
# A set-up gives its commands 3 s to end by themselves. A cancelled task that has no thread by then gets none.
_END_S, _BEGIN_S = 4.0, 0.1


class EngineTask(QgsTask):
    """Runs `work(task)` in the background. `work` touches no object of the main thread; it polls `task.isCanceled`.

    Signals, on the main thread:
        succeeded: with what `work` returned; also after a cancel, where `work` returned something partial.
        failed: with a message for users, "" where the task was cancelled and nothing came of it.

    Attributes:
        begun: its thread is at work, or was.
        over: set once its thread is done with Python. QGIS's own states only follow where its event loop goes on.
    """

    succeeded = pyqtSignal(object)
    failed = pyqtSignal(str)

    def __init__(self, description: str, work: Callable[[EngineTask], object]) -> None:
        super().__init__(description, QUIET_TASK)
        self._work = work
        self._result: object = None
        self._error: str | None = None
        self.begun = False
        self.over = threading.Event()

    def start(self) -> EngineTask:
        """Hand it to QGIS's task manager, and keep it alive until it has ended."""
        _unfinished.add(self)
        QgsApplication.taskManager().addTask(self)
        return self

    def run(self) -> bool:
        """In the background, called by QGIS. To QGIS it never fails: it would tell so in a bar of its own."""
        self.begun = True
        try:
            self._result = self._work(self)
        except Cancelled:
            self._error = ""
        except EngineError as error:
            self._error = str(error)
        except Exception as error:  # nothing may leave a task: QGIS would end over it
            QgsMessageLog.logMessage(traceback.format_exc(), "RS4D", Qgis.MessageLevel.Critical)
            self._error = f"internal error, please report it: {type(error).__name__}: {error}"
        finally:
            self.over.set()
        return True

    def finished(self, ok: bool) -> None:
        """On the main thread, called by QGIS."""
        _unfinished.discard(self)
        if ok and self._error is None:
            self.succeeded.emit(self._result)
        else:
            self.failed.emit(self._error or "")


def end_tasks() -> None:
    """End the engine and all work of tasks, and wait until their threads are done with Python: QGIS is closing, where a
    thread that comes back to a Python that is gone would crash it, or the plugin is turned off."""
    tasks = [task for task in _unfinished if not sip.isdeleted(task)]
    for task in tasks:
        task.cancel()
    close_engine()
    until = time.monotonic() + _END_S
    for task in tasks:
        # Not waitForFinished, which would hold Python's lock against the thread that is waited for.
        if not task.over.wait(_BEGIN_S) and task.begun:
            task.over.wait(max(0.0, until - time.monotonic()))
