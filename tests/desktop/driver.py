"""Runs inside QGIS, as its `--code`: plays a scenario on the real desktop, and writes down what came of it.

A scenario is a generator function that is given a `Desk`. What it yields is a condition; it goes on once that is true,
and QGIS's own event loop runs meanwhile. Mouse and keys go through Qt's events to real widgets.
"""

import faulthandler
import json
import os
import runpy
import sys
import time
import traceback
from pathlib import Path

from qgis.core import QgsProject, QgsRasterLayer
from qgis.PyQt.QtCore import QMetaObject, QPoint, Qt, QTimer
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication, QLabel, QMessageBox, QWidget
from qgis.utils import iface, plugins

FOLDER = Path(os.environ["RS4D_DESK_FOLDER"])
(FOLDER / "pid.txt").write_text(str(os.getpid()))
faulthandler.enable((FOLDER / "crash.txt").open("w"), all_threads=True)
_MS_BETWEEN_LOOKS = 20
_PATIENCE_S = 120.0


class Desk:
    """The desktop, as a scenario handles it."""

    def __init__(self):
        self.report = {"slowest_ms": 0.0}
        self.quits_rudely = False
        self.iface, self.canvas, self.project = iface, iface.mapCanvas(), QgsProject.instance()

    @property
    def plugin(self):
        """The plugin RS4D."""
        return plugins["rs4d_qgis"]

    @property
    def dock(self):
        """Its panel."""
        return self.plugin._dock

    @property
    def review(self):
        """Its review panel."""
        return self.plugin._review_dock

    def widget(self, name, kind=QWidget):
        """A widget of the panel, by its name."""
        found = self.dock.findChild(kind, name)
        assert found is not None, f"no widget {name}"
        return found

    def text(self, name):
        """What a label of the panel says."""
        return self.widget(name, QLabel).text()

    def click(self, name):
        """Press and release the left button on a widget of the panel."""
        widget = self.widget(name)
        assert widget.isVisible(), f"{name} is not there"
        assert widget.isEnabled(), f"{name} is off: {self.text('forecast')}"
        QTest.mouseClick(widget, Qt.MouseButton.LeftButton)

    def load(self, path, name=None):
        """A raster, shown whole."""
        layer = QgsRasterLayer(str(path), name or Path(path).stem)
        assert layer.isValid(), path
        # QGIS asks before it closes over what lies in a folder for temporary files, as that of the test does.
        layer.setCustomProperty("skipMemoryLayersCheck", 1)
        self.project.addMapLayer(layer)
        self.canvas.setDestinationCrs(layer.crs())
        self.canvas.setExtent(layer.extent())
        self.canvas.refresh()
        return layer

    def drag(self, start, end):
        """Drag over the map, from and to shares of its width and height."""
        view = self.canvas.viewport()
        points = [QPoint(round(x * view.width()), round(y * view.height())) for x, y in (start, end)]
        middle = (points[0] + points[1]) / 2
        QTest.mouseMove(view, points[0])
        QTest.mousePress(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, points[0])
        for point in (middle, points[1]):
            QTest.mouseMove(view, point, 20)
            QApplication.processEvents()
        QTest.mouseRelease(view, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, points[1])

    def shot(self, name):
        """A picture of the whole window, `name`.png."""
        iface.mainWindow().grab().save(str(FOLDER / f"{name}.png"))

    def map_shot(self, name):
        """A picture of the map alone, `name`.png."""
        self.canvas.grab().save(str(FOLDER / f"{name}.png"))

    def engine_pid(self):
        """The process of the engine; None where there is none."""
        from rs4d_qgis.engine.client import engine_client

        process = engine_client()._process
        return None if process is None or not process.alive() else process.pid


class _Player:
    """Plays a scenario step by step from a timer, and measures how long the event loop was ever held up."""

    def __init__(self, scenario):
        self.desk = Desk()
        self._steps = scenario(self.desk)
        self._condition = lambda: True
        self._since = self._looked = time.monotonic()
        self._timer = QTimer()
        self._timer.setInterval(_MS_BETWEEN_LOOKS)
        self._timer.timeout.connect(self._look)
        self._timer.start()

    def _look(self):
        now = time.monotonic()
        self.desk.report["slowest_ms"] = max(self.desk.report["slowest_ms"], 1000 * (now - self._looked))
        try:
            if self._condition():
                self._condition = next(self._steps)
                self._since = time.monotonic()
            elif now - self._since > _PATIENCE_S:
                raise TimeoutError(f"waited {_PATIENCE_S:.0f} s in line {self._steps.gi_frame.f_lineno}")
        except StopIteration:
            self._end()
        except BaseException:
            self.desk.report["error"] = traceback.format_exc()
            self.desk.shot("error")
            self._end()
        self._looked = time.monotonic()

    def _end(self):
        self._timer.stop()
        write_report(self.desk.report)
        if self.desk.quits_rudely:
            QMetaObject.invokeMethod(QApplication.instance(), "quit", Qt.ConnectionType.QueuedConnection)
        else:
            self._quitter = _Quitter()


def write_report(report):
    """For the test that has started QGIS."""
    (FOLDER / "report.json").write_text(json.dumps(report))


class _Quitter:
    """Closes QGIS as a user would: notes what it asks, agrees, and closes it again where it then stays open."""

    def __init__(self):
        faulthandler.dump_traceback_later(60, file=(FOLDER / "hangs.txt").open("w"))
        self._asked = []
        self._quiet = 0
        self._timer = QTimer()
        self._timer.timeout.connect(self._look)
        self._timer.start(200)
        self._close()

    def _close(self):
        # Not called from here: Python's lock would be held until QGIS has ended, and no other thread could end.
        QMetaObject.invokeMethod(iface.actionExit(), "trigger", Qt.ConnectionType.QueuedConnection)

    def _look(self):
        box = QApplication.activeModalWidget()
        self._quiet = self._quiet + 1 if box is None else 0
        if self._quiet == 10:
            self._quiet = 0
            self._close()
        if not isinstance(box, QMessageBox):
            return
        self._asked.append(f"{box.windowTitle()}: {box.text()}")
        (FOLDER / "asked.json").write_text(json.dumps(self._asked))
        for answer in (QMessageBox.StandardButton.Yes, QMessageBox.StandardButton.Discard):
            if box.button(answer) is not None:
                QMetaObject.invokeMethod(box.button(answer), "click", Qt.ConnectionType.QueuedConnection)


def play(scenario):
    """Play it, from when the desktop is up."""
    global _player
    _player = _Player(scenario)


sys.path.insert(0, str(Path(os.environ["RS4D_DESK_SCENARIOS"]).parent))
play(runpy.run_path(os.environ["RS4D_DESK_SCENARIOS"])[os.environ["RS4D_DESK_SCENARIO"]])
