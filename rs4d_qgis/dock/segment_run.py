"""One run of `rs4d:segment` in the background, with its polygons on the map while it goes on."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from qgis.core import (
    QgsApplication,
    QgsDataSourceUri,
    QgsProcessingAlgRunnerTask,
    QgsProcessingContext,
    QgsProcessingFeatureSourceDefinition,
    QgsProject,
    QgsTask,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, pyqtSignal, pyqtSlot

from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.dock.live_layer import PacedLayer
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.run_state import RunState
from rs4d_qgis.dock.zone import POLYGONS, WHOLE
from rs4d_qgis.layers.live import LiveLayer
from rs4d_qgis.layers.no_crs import forget_undefined_crs
from rs4d_qgis.layers.results import add_to_group, result_name, set_provenance, step_back, style_result
from rs4d_qgis.translation import tr

ALGORITHM = "rs4d:segment"
# As the command line names it.
RESULT_LAYER = "instances"
# The engine answers a cancel within 2 s.
_END_S = 2.5
_OVER = (QgsTask.TaskStatus.Complete, QgsTask.TaskStatus.Terminated)


class RunRefused(Exception):
    """A run cannot start with these settings. The message is fit to show to a user."""


@dataclass(frozen=True)
class Ended:
    """A run that is over.

    Attributes:
        state: its last one.
        layer: the result; None where nothing was found, or another project is open by now.
        result: what the engine answered; None where it could not.
        seconds: from start to end.
    """

    state: RunState
    layer: QgsVectorLayer | None
    result: dict | None
    seconds: float


def parameters(settings: RunSettings, output: Path) -> dict:
    """Settings as the algorithm takes them."""
    given = {
        "INPUT": settings.layer_id,
        "MODEL": settings.model,
        "CLASSES": ",".join(settings.classes or ()),
        "SCORE": settings.score or 0.0,
        "RESOLUTION": settings.resolution_m,
        "REGULARIZE": settings.regularize,
        "OUTPUT": _destination(output),
    }
    zone = settings.zone
    if zone.kind == POLYGONS:
        given["AREA"] = QgsProcessingFeatureSourceDefinition(zone.polygons, zone.selected_only)
    elif zone.kind != WHOLE:
        given["EXTENT"] = zone.rectangle
    return {name: value for name, value in given.items() if value not in (None, "")}


def _destination(output: Path) -> str:
    """As QGIS names a layer of a GeoPackage that is to have a name of its own."""
    uri = QgsDataSourceUri()
    uri.setDatabase(str(output))  # quotes what has to be
    uri.setTable(RESULT_LAYER)
    uri.setGeometryColumn("geom")
    return f"ogr:{uri.uri()}"


def open_result(path: Path, settings: RunSettings, began: datetime) -> QgsVectorLayer:
    """The instances of a run's file, named after what was run on and when."""
    name = result_name(settings.layer_name, began)
    return QgsVectorLayer(f"{path}|layername={RESULT_LAYER}", name, "ogr")


def group_name(settings: RunSettings, began: datetime) -> str:
    """Of a run's group of layers."""
    return tr("{} {}").format(settings.layer_name, began.strftime("%H:%M:%S"))


class SegmentRun(QObject):
    """Starts with `start`, and ends by itself or after `cancel`.

    Whatever ends it, what was found until then is kept: as a styled layer in a group of its own, above the imagery.
    Where another project is open by then, in its file only.

    Signals:
        changed(RunState): something happened.
        ended(Ended): it is over, whichever way. The last signal.
    """

    changed = pyqtSignal(object)
    ended = pyqtSignal(object)

    def __init__(
        self, settings: RunSettings, model: dict, output: Path, canvas: QgsMapCanvas, parent: QObject | None = None
    ):
        super().__init__(parent)
        self.settings = settings
        self.model = model
        self.output = output
        self.state = RunState()
        self._canvas = canvas
        self._colors = dict(zip(model["card"]["config"]["classes"], model["card"]["colors"]))
        self._live: PacedLayer | None = None
        self._result: dict | None = None
        self._started = 0.0
        self.began = datetime.now()
        self._name = group_name(settings, self.began)
        self._same_project = True
        # The task manager keeps none of these alive.
        self._task: QgsProcessingAlgRunnerTask | None = None
        self._context: QgsProcessingContext | None = None
        self._feedback: RunFeedback | None = None

    def start(self) -> None:
        """Hand the work to QGIS's task manager.

        Raises:
            RunRefused: the settings do not fit the project or the engine, or the layer cannot be handed to it.
        """
        algorithm = QgsApplication.processingRegistry().createAlgorithmById(ALGORITHM)
        if algorithm is None:
            raise RunRefused(tr("Processing has no algorithm {}: turn the plugin RS4D off and on").format(ALGORITHM))
        given = parameters(self.settings, self.output)
        self._context = QgsProcessingContext()
        self._context.setProject(QgsProject.instance())
        for ok, reason in (algorithm.canExecute(), algorithm.checkParameterValues(given, self._context)):
            if not ok:
                raise RunRefused(reason)
        feedback = _Feedback()
        task = QgsProcessingAlgRunnerTask(algorithm, given, self._context, feedback)
        # The task manager cancels what it still has when QGIS ends, and each task its feedback: they must go together.
        feedback.setParent(task)
        if task.isCanceled():  # it could not prepare itself, and QGIS does not tell that such a task has ended
            raise RunRefused(feedback.reason().strip().splitlines()[-1])  # of the unforeseen, QGIS tells the traceback
        self._feedback = feedback
        self._feedback.layerReady.connect(self._layer_ready)
        self._feedback.instancesFound.connect(self._found)
        self._feedback.progressTold.connect(self._progressed)
        self._feedback.runFinished.connect(self._finished)
        QgsProject.instance().cleared.connect(self._project_gone)
        self._started = time.monotonic()
        self._set(self.state.started())
        self._task = task
        self._task.executed.connect(self._executed)
        QgsApplication.taskManager().addTask(self._task)

    def cancel(self) -> None:
        """Ask it to stop. Returns at once; `ended` follows."""
        if self._feedback is not None:
            self._set(self.state.cancel_asked())
            self._feedback.cancel()

    def tear_down(self) -> None:
        """Stop it, and wait until its thread is done with Python: QGIS is closing."""
        if self._task is None:
            return
        self._task.executed.disconnect(self._executed)
        QgsProject.instance().cleared.disconnect(self._project_gone)
        self._feedback.cancel()
        self._take_live_away()
        until = time.monotonic() + _END_S
        # Not waitForFinished, which would hold Python's lock against the thread that is waited for; and not isActive,
        # which waits for QGIS's event loop.
        while self._task.status() not in _OVER and time.monotonic() < until:
            time.sleep(0.02)
        # Its thread may still work with it, or QGIS may still have to tell the task of its end: nobody deletes it.
        sip.transferto(self._context, None)
        self._task = None

    @pyqtSlot(object)
    def _layer_ready(self, told) -> None:
        if not self.state.busy or not self._same_project or self._live is not None:
            return
        fields, crs = told
        live = LiveLayer(tr("Found so far"), self._name, fields, crs, self._colors)
        self._live = PacedLayer(live, self._canvas)

    @pyqtSlot(object)
    def _found(self, features) -> None:
        self._set(self.state.more_found(len(features)))
        if self._live is not None:
            self._live.add(features)

    @pyqtSlot(object)
    def _progressed(self, told) -> None:
        self._set(self.state.progressed(told))

    @pyqtSlot(object)
    def _finished(self, result) -> None:
        self._result = result

    @pyqtSlot()
    def _project_gone(self) -> None:
        """Another project is opened: the run's layers have no place in that one."""
        self._same_project = False
        self.cancel()

    def _executed(self, ok: bool, _results: dict) -> None:
        self._task = None
        QgsProject.instance().cleared.disconnect(self._project_gone)
        if self._feedback.isCanceled():  # maybe from the task manager's list
            self._set(self.state.cancel_asked())
        layer = self._result_layer()
        found = 0 if layer is None else layer.featureCount()
        self._take_live_away()
        if layer is not None:
            self._dress(layer)
        if layer is not None and self._same_project:
            self._show(layer)
        else:
            layer = None
        self._set(self.state.ended(ok, found, str(self.output) if found else None, self._feedback.reason()))
        self.ended.emit(Ended(self.state, layer, self._result, time.monotonic() - self._started))

    def _dress(self, layer: QgsVectorLayer) -> None:
        """Give the result its look and its provenance."""
        forget_undefined_crs(layer)
        style_result(layer, self._colors_of(layer))
        record = self._record()
        set_provenance(layer, record)
        # Whoever opens the file later sees it so too. QGIS would ask before it replaces a style of the same name.
        layer.saveStyleToDatabase(record["run"], "", True, "")

    def _show(self, layer: QgsVectorLayer) -> None:
        """The result in the group of the run, and what it lies over out of its way."""
        step_back(layer)
        group = add_to_group(layer, self._name)
        group.setExpanded(False)  # which it is not, but the tree shows so until it is told of a change
        group.setExpanded(True)

    def _result_layer(self) -> QgsVectorLayer | None:
        """The layer of the file; None, and no file either, where nothing was found. What cannot be opened stays."""
        if not self.output.exists():
            return None
        layer = open_result(self.output, self.settings, self.began)
        if layer.isValid() and layer.featureCount() > 0:
            return layer
        opens = layer.isValid()
        del layer  # it holds the file open
        if opens:
            with suppress(OSError):  # another program has it open
                self.output.unlink()
        return None

    def _colors_of(self, layer: QgsVectorLayer) -> dict[str, str]:
        """Of the classes that it has: the legend need not list what was not found."""
        there = layer.uniqueValues(layer.fields().indexOf("class"))
        return {name: color for name, color in self._colors.items() if name in there}

    def _record(self) -> dict:
        if self._result is not None:
            return {**self._result["record"], "seconds": self._result["seconds"]}
        # The engine is gone and cannot say how it read the scene: what it was asked is known.
        return {
            "run": self.output.stem,
            "time": self.began.astimezone().isoformat(timespec="seconds"),
            "model": self.model["name"],
            "model_sha256": self.model["sha256"],
            "parameters": {**self.settings.to_json(), "complete": False},
            "scene": self.settings.layer_source,
            "device": tr("unknown"),
            "seconds": time.monotonic() - self._started,
        }

    def _take_live_away(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()
            if live.live.layer is not None:
                QgsProject.instance().removeMapLayer(live.live.layer.id())
            root = QgsProject.instance().layerTreeRoot()
            group = root.findGroup(self._name)
            if group is not None and not group.children():
                root.removeChildNode(group)

    def _set(self, state: RunState) -> None:
        if state != self.state:
            self.state = state
            self.changed.emit(state)


class _Feedback(RunFeedback):
    """Keeps what went wrong, which Processing only tells to its feedback."""

    def __init__(self):
        super().__init__(False)  # not to the log of messages: the panel says it
        self.errors: list[str] = []

    def reason(self) -> str:
        """What went wrong last."""
        return self.errors[-1] if self.errors else tr("The run failed; the log may tell why.")

    def reportError(self, error: str, fatalError: bool = False) -> None:
        """In the thread of the run."""
        self.errors.append(error)
        super().reportError(error, fatalError)
