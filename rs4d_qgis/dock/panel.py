"""The dock: the form, the run, and the engine, tied together."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from html import escape
from pathlib import Path

from qgis.core import Qgis, QgsProject, QgsRasterLayer
from qgis.gui import QgsDockWidget
from qgis.PyQt.QtCore import QStandardPaths, QTimer, pyqtSignal
from qgis.PyQt.QtWidgets import QFrame, QVBoxLayout, QWidget

from rs4d_qgis.dock import past_runs, window_times
from rs4d_qgis.dock.engine_line import EngineLine
from rs4d_qgis.dock.forecast import Forecast, forecast
from rs4d_qgis.dock.looked_at import LookedAt
from rs4d_qgis.dock.past_runs import PastRun
from rs4d_qgis.dock.result_place import choose_place
from rs4d_qgis.dock.run_box import RunBox
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.run_state import Phase, RunState
from rs4d_qgis.dock.scroll import PanelScroll
from rs4d_qgis.dock.segment_run import Ended, RunRefused, SegmentRun, group_name, open_result
from rs4d_qgis.dock.settings_form import SettingsForm
from rs4d_qgis.dock.ways_out import WayOut, ways_out
from rs4d_qgis.dock.zone import whole_layer
from rs4d_qgis.layers.results import add_to_group
from rs4d_qgis.translation import tr

# A map that is panned tells of every step.
_MS_UNTIL_FORECAST = 150


class SegmentDock(QgsDockWidget):
    """The panel "RS4D". Looks for the engine when it is first shown.

    Signals:
        setup_wanted(), check_wanted(): the user wants the dialog of that name.
        review_wanted(QgsVectorLayer): the result of the last run is to be reviewed.
    """

    setup_wanted = pyqtSignal()
    check_wanted = pyqtSignal()
    review_wanted = pyqtSignal(object)

    def __init__(self, iface, parent=None):
        super().__init__(tr("RS4D"), parent or iface.mainWindow())
        self.setObjectName("RS4DSegmentDock")
        self._iface = iface
        self._canvas = iface.mapCanvas()
        self._hello: dict | None = None
        self._run: SegmentRun | None = None
        self._forecast: Forecast | None = None
        self._aloud = ""
        self._result_id = ""

        self.form = SettingsForm(self._canvas)
        self.box = RunBox(past_runs.past_runs)
        self.engine = EngineLine()
        self._build()

        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.setInterval(_MS_UNTIL_FORECAST)
        self._soon.timeout.connect(self._foresee)
        self.form.changed.connect(self._soon.start)
        self.form.models.file_chosen.connect(self.engine.look_at_model)
        self.box.run_wanted.connect(self.start)
        self.box.cancel_wanted.connect(self.cancel)
        self.box.way_out_wanted.connect(self._take_way_out)
        self.box.past_run_wanted.connect(self.reopen)
        self.box.review_wanted.connect(self._review)
        self.engine.ready.connect(self._engine_ready)
        self.engine.unavailable.connect(self._engine_unavailable)
        self.engine.setup_wanted.connect(self.setup_wanted)
        self.engine.check_wanted.connect(self.check_wanted)
        self._looked_at = LookedAt(iface, self)
        self._looked_at.picked.connect(self.form.picked)
        self._looked_at.changed.connect(self.form.follow)
        QgsProject.instance().layersRemoved.connect(self._layers_removed)
        QgsProject.instance().cleared.connect(self._project_closed)
        self.visibilityChanged.connect(self._shown)
        self._looked_at.look()
        self._foresee()

    def start(self) -> None:
        """Run with the settings that the panel shows."""
        settings, layer, model = self.form.settings(), self.form.layer(), self.form.models.current()
        if settings is None or self.busy:
            return
        self._forecast = forecast(settings, model["card"], layer)
        try:
            project_folder = QgsProject.instance().absolutePath() if QgsProject.instance().fileName() else ""
            documents = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation)
            place = choose_place(project_folder, documents, settings.layer_name)
            self._run = SegmentRun(settings, model, place.path, self._canvas, self)
            self._run.changed.connect(self._run_changed)
            self._run.ended.connect(self._run_ended)
            self._run.start()
        except (OSError, RunRefused) as refused:
            self._run = None
            self.box.show_state(RunState(Phase.FAILED, reason=str(refused)))
            self._push(str(refused), Qgis.MessageLevel.Warning)
            return
        self._aloud = place.aloud
        self.form.remember()

    def cancel(self) -> None:
        """Stop the run that is on. Returns at once."""
        if self._run is not None:
            self._run.cancel()

    @property
    def busy(self) -> bool:
        """A run is on."""
        return self._run is not None and self._run.state.busy

    def reopen(self, past: PastRun) -> None:
        """Show the settings and the place of an earlier run, and its result where that is not on the map."""
        layer = self._raster_of(past.settings)
        self.form.show_settings(past.settings, layer)
        said = (
            []
            if layer is not None
            else [
                tr("The imagery of that run is not in this project and was not found: {}").format(
                    past.settings.layer_source
                )
            ]
        )
        if past.output is not None and not self._bring_back(past):
            said.append(tr("Its result is not there any more: {}").format(past.output))
        self.box.say(" ".join(said))
        # After the map's own zoom to the first layer of an empty project.
        QTimer.singleShot(0, lambda: self._zoom_to(past.settings))

    def tear_down(self) -> None:
        """End everything that is on. QGIS is closing, or the plugin is turned off."""
        if self._looked_at is None:
            return
        QgsProject.instance().layersRemoved.disconnect(self._layers_removed)
        QgsProject.instance().cleared.disconnect(self._project_closed)
        self._looked_at.deleteLater()
        self._looked_at = None
        self._soon.stop()
        self.engine.tear_down()
        if self._run is not None:
            self._run.tear_down()
            self._run = None
        self.form.extents.tear_down()

    def _build(self) -> None:
        scroll = PanelScroll(self.form)
        line = QFrame()
        line.setFrameShape(QFrame.Shape.HLine)
        line.setFrameShadow(QFrame.Shadow.Sunken)
        page = QWidget()
        layout = QVBoxLayout(page)
        layout.addWidget(scroll, 1)
        layout.addWidget(self.box)
        layout.addWidget(line)
        layout.addWidget(self.engine)
        self.setWidget(page)

    def _shown(self, shown: bool) -> None:
        self.form.extents.setVisibleOnMap(shown)
        if shown and self._hello is None:
            self.engine.look()
            self._foresee()

    def _engine_ready(self, hello: dict) -> None:
        first, self._hello = self._hello is None, hello
        self.form.models.set_models(hello["models"], hello["default_model"])
        if first:
            self.form.recall()
        self._foresee()

    def _engine_unavailable(self) -> None:
        self._hello = None
        self.form.models.set_models([], None)
        self._foresee()

    def _review(self) -> None:
        self.review_wanted.emit(QgsProject.instance().mapLayer(self._result_id))

    def _layers_removed(self, ids) -> None:
        if self._result_id in ids:
            self.box.offer_review(False)
        self.form.layer_removed()
        self._looked_at.look()
        self._soon.start()

    def _project_closed(self) -> None:
        self.form.extents.forget_drawing()
        if not self.busy:
            self.box.say("")  # of a run in that project, beside it

    def _foresee(self) -> None:
        missing = self.form.missing()
        if self._hello is None and self.form.layer() is not None:
            missing = tr("The engine is starting") if self.engine.looking else tr("The engine is not ready: see below")
        if missing:
            self.form.set_reading("")
            self.box.set_forecast("", missing)
            return
        settings, layer, model = self.form.settings(), self.form.layer(), self.form.models.current()
        seen = forecast(settings, model["card"], layer)
        self.form.set_reading(seen.reading)
        self.box.set_forecast(seen.line(model["sha256"], self._hello["device"]["name"]), seen.refusal)

    def _run_changed(self, state: RunState) -> None:
        if state.busy:
            self.box.show_state(state)

    def _run_ended(self, ended: Ended) -> None:
        run, self._run = self._run, None
        run.deleteLater()
        state = ended.state
        self._learn(run, ended)
        past_runs.remember(
            PastRun(
                run.began.isoformat(timespec="seconds"),
                run.model["name"],
                state.found,
                state.phase is Phase.DONE,
                state.kept,
                replace(run.settings, zone=run.settings.zone.fixed()),
            )
        )
        more = self._where(ended)
        ways = self._ways_out(run) if state.phase is Phase.DONE and not state.found else []
        self.box.show_state(state, more, ways)
        self._result_id = "" if ended.layer is None else ended.layer.id()
        self.box.offer_review(bool(self._result_id))
        level = {Phase.DONE: Qgis.MessageLevel.Success, Phase.CANCELLED: Qgis.MessageLevel.Info}.get(
            state.phase, Qgis.MessageLevel.Warning
        )
        if state.phase is Phase.DONE and not state.found:
            level = Qgis.MessageLevel.Info
        # After QGIS's own word that a task is complete, which would hide it.
        QTimer.singleShot(0, lambda: self._push(state.line(), level))
        if state.phase is Phase.FAILED:
            # It may be gone: the line should say how it is now, and have one ready for the next run.
            self.engine.look()
        self._foresee()

    def _where(self, ended: Ended) -> str:
        if ended.state.kept is None or ended.state.kept in ended.state.reason:
            return ""
        if ended.layer is None:  # the project that it lies beside is not the open one any more
            return tr("Saved as {}.").format(ended.state.kept)
        name = Path(ended.state.kept).name
        return f"{self._aloud}." if self._aloud else tr("Saved beside the project, as {}.").format(name)

    def _learn(self, run: SegmentRun, ended: Ended) -> None:
        result = ended.result
        if result is None or not result["windows"] or self._forecast is None or not self._forecast.windows:
            return
        done = self._forecast.megapixels / self._forecast.windows * result["windows"]
        window_times.learn(run.model["sha256"], result["device"], done, result["seconds"])

    def _ways_out(self, run: SegmentRun) -> list[WayOut]:
        layer = QgsProject.instance().mapLayer(run.settings.layer_id)
        if layer is None:
            return []
        read_at_m = None if self._forecast is None else self._forecast.read_at_m
        others = {model["path"]: model["name"] for model in self.form.models.others()}
        return ways_out(run.settings, run.model["card"], read_at_m, whole_layer(layer), others)

    def _take_way_out(self, way: WayOut) -> None:
        self.form.show_settings(way.settings, QgsProject.instance().mapLayer(way.settings.layer_id))
        self.start()

    def _raster_of(self, settings: RunSettings) -> QgsRasterLayer | None:
        """The raster of an earlier run: in this project, or added to it once more."""
        project = QgsProject.instance()
        rasters = [layer for layer in project.mapLayers().values() if isinstance(layer, QgsRasterLayer)]
        for layer in rasters:
            if layer.source() == settings.layer_source:
                return layer
        layer = QgsRasterLayer(settings.layer_source, settings.layer_name, settings.layer_provider)
        return project.addMapLayer(layer) if layer.isValid() else None

    def _bring_back(self, past: PastRun) -> bool:
        """Have the result of an earlier run on the map. False where it is gone."""
        path = Path(past.output)
        project = QgsProject.instance()
        if any(Path(layer.source().split("|")[0]) == path for layer in project.mapLayers().values()):
            return True
        if not path.exists():
            return False
        began = datetime.fromisoformat(past.time)
        layer = open_result(path, past.settings, began)
        if not layer.isValid():
            return False
        add_to_group(layer, group_name(past.settings, began))
        return True

    def _zoom_to(self, settings: RunSettings) -> None:
        self._canvas.setReferencedExtent(settings.zone.rectangle)
        self._canvas.refresh()

    def _push(self, text: str, level) -> None:
        self._iface.messageBar().pushMessage(tr("RS4D"), escape(text), level)  # HTML, always
