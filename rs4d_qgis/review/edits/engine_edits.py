"""What the engine does for an analyst's edits: outlines in boxes, right angles. In the background, one at a time."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QByteArray, QObject, pyqtSignal

from rs4d_qgis import settings
from rs4d_qgis.dock.zone import DRAWN, Zone
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.tasks import EngineTask
from rs4d_qgis.layers.bounds import bounds_in
from rs4d_qgis.layers.errors import RenderError
from rs4d_qgis.layers.results import provenance
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.layers.source import layer_of_file, scene_source
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr

# Of the run, what a box is to be looked at with too.
_OF_THE_RUN = ("bands", "resolution_m", "window_px", "regularize")


class EngineEdits(QObject):
    """Asks the engine, which must have nothing else to do.

    Signals:
        waiting(bool): an answer is awaited, or not any more.
    """

    waiting = pyqtSignal(bool)

    def __init__(self, desk: DeskState, parent: QObject | None = None):
        super().__init__(parent)
        self._desk = desk
        self._task: EngineTask | None = None
        self._models: list[dict] | None = None
        self._folder: tempfile.TemporaryDirectory | None = None
        self._scenes: dict[tuple[str, str, str], str] = {}

    @property
    def busy(self) -> bool:
        """An answer is awaited."""
        return self._task is not None

    def outline(
        self, box: QgsRectangle, crs: QgsCoordinateReferenceSystem, class_name: str | None, done: Callable[[dict], None]
    ) -> None:
        """Ask for the outline of what lies in a box; returns at once.

        Args:
            box: in `crs`, the map's.
            class_name: what it is; None lets the model say, as does one that the model does not know.
            done: given the engine's answer, with `geometry` in the layer's CRS.

        Raises:
            ReviewRefused: the engine is at work, or there is no imagery that it could look at.
        """
        layer = self._desk.reviewed.layer
        record = self._record()
        zone = Zone.of(DRAWN, box, crs)
        params: dict[str, Any] = {"scene": self._scene(box, crs), "box": list(zone.bounds)}
        if layer.crs().isValid() and zone.crs_text:
            params["box_crs"] = zone.crs_text
        given = record.get("parameters") or {}
        params.update({name: given[name] for name in _OF_THE_RUN if given.get(name) is not None})
        sha256 = record.get("model_sha256")
        folders = settings.model_folders()

        def work(task: EngineTask) -> dict:
            client = engine_client()
            known = self._models is not None and sha256 in (None, *(model["sha256"] for model in self._models))
            if not known:  # one that was not there before may be now
                hello = client.request("hello", {"model_folders": folders}, cancelled=task.isCanceled)
                self._models = [
                    {**model, "default": model["path"] == hello["default_model"]}
                    for model in hello["models"]
                    if "card" in model
                ]
            model = _chosen(self._models, sha256)
            if model is not None:
                params["model"] = model["path"]
                if class_name in model["card"]["config"]["classes"]:
                    params["class"] = class_name
            return client.request("outline", params, cancelled=task.isCanceled)

        def answered(answer: dict) -> None:
            shape = _geometry(answer["wkb"])
            if answer["crs_wkt"] and layer.crs().isValid():
                there = QgsCoordinateReferenceSystem.fromWkt(answer["crs_wkt"])
                shape.transform(QgsCoordinateTransform(there, layer.crs(), QgsProject.instance()))
            done({**answer, "geometry": shape})

        self._ask(tr("Outline in a box"), work, answered)

    def straighten(self, features: list[QgsFeature], done: Callable[[dict[int, QgsGeometry]], None]) -> None:
        """Ask for right angles; returns at once.

        Args:
            done: given the shapes of those that get any, by id; not those whose shape is another one by then.

        Raises:
            ReviewRefused: the engine is at work, or the layer has no CRS.
        """
        layer = self._desk.reviewed.layer
        if not layer.crs().isValid():
            raise ReviewRefused(tr("Lengths on the ground are unknown: give {} its CRS first").format(layer.name()))
        sizes = _pixel_sizes(layer)
        asked = {feature.id(): bytes(feature.geometry().asWkb()) for feature in features}
        told = [
            {
                "wkb": asked[feature.id()].hex(),
                "class": feature["class"] if isinstance(feature["class"], str) else None,
                "pixel_m": sizes.get(feature["run"]) if isinstance(feature["run"], str) else None,
            }
            for feature in features
        ]
        crs_wkt = layer.crs().toWkt(QgsCoordinateReferenceSystem.WKT_PREFERRED)
        params = {"features": told, "crs_wkt": crs_wkt, "regularize": True}

        def work(task: EngineTask) -> dict:
            return engine_client().request("reshape", params, cancelled=task.isCanceled)

        def answered(answer: dict) -> None:
            found = {}
            for item, one in zip(asked, answer["features"]):
                if one["changed"] and bytes(layer.getGeometry(item).asWkb()) == asked[item]:
                    found[item] = _geometry(one["wkb"])
            done(found)

        self._ask(tr("Right angles"), work, answered)

    def cancel(self) -> None:
        """Do without the answer."""
        task, self._task = self._task, None
        if task is not None:
            task.succeeded.disconnect()
            task.failed.disconnect()
            task.cancel()
            self.waiting.emit(False)

    def tear_down(self) -> None:
        """Let go of everything."""
        self.cancel()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _ask(self, text: str, work: Callable[[EngineTask], dict], answered: Callable[[dict], None]) -> None:
        if self.busy:
            raise ReviewRefused(tr("The engine still looks at the last one: wait a moment"))
        if engine_client().busy():
            raise ReviewRefused(tr("The engine is at work on a run: try again when that has ended, or cancel it"))
        self._task = task = EngineTask(text, work)
        layer = self._desk.reviewed.layer

        def succeeded(answer: dict) -> None:
            self._end()
            if self._desk.reviewed is not None and self._desk.reviewed.layer is layer:
                answered(answer)

        def failed(reason: str) -> None:
            self._end()
            if reason:
                self._desk.say(reason, True)

        task.succeeded.connect(succeeded)
        task.failed.connect(failed)
        task.start()
        self.waiting.emit(True)

    def _end(self) -> None:
        self._task = None
        self.waiting.emit(False)

    def _record(self) -> dict[str, Any]:
        """Of the run that the layer comes from, with its parameters as a dictionary; empty where it is not known."""
        layer = self._desk.reviewed.layer
        for record in (provenance(layer), *reversed(read_runs(layer))):
            if record:
                return {**record, "parameters": _parameters(record)}
        return {}

    def _scene(self, box: QgsRectangle, crs: QgsCoordinateReferenceSystem) -> str:
        """The imagery of the layer's run; where that is not there, what the map shows there and the engine can read."""
        scene = self._desk.scene()
        if scene is not None:
            raster = layer_of_file(scene)
            return (None if raster is None else self._readable(raster)) or scene
        elsewhere = []
        for layer in self._desk.iface.mapCanvas().layers():
            if not isinstance(layer, QgsRasterLayer):
                continue
            here = bounds_in(layer.crs(), box, crs)
            if here is None or not layer.extent().intersects(here):
                continue
            path = self._readable(layer)
            if path is not None:
                return path
            elsewhere.append(layer.name())
        if elsewhere:
            raise ReviewRefused(
                tr(
                    "The engine looks at files only, and {} is none: right-click it, Export > Save As a GeoTIFF, "
                    "and add that to the map; or draw by hand"
                ).format(", ".join(elsewhere))
            )
        raise ReviewRefused(
            tr("There is no imagery in a file here that the engine could look at: add it to the map, or draw by hand")
        )

    def _readable(self, layer: QgsRasterLayer) -> str | None:
        """The layer as the engine can read it, by the same name each time: the engine knows again what it has seen."""
        key = (layer.id(), layer.source(), layer.crs().toWkt())
        if key not in self._scenes:
            self._folder = self._folder or tempfile.TemporaryDirectory(prefix="rs4d-")
            try:
                source = scene_source(layer, Path(tempfile.mkdtemp(dir=self._folder.name)))
            except RenderError as error:
                raise ReviewRefused(str(error)) from error
            if source is None:
                return None
            self._scenes[key] = source.path
        return self._scenes[key]


def _chosen(models: list[dict], sha256: str | None) -> dict | None:
    """The model of the run where it is still there, else the default one."""
    of_run = next((model for model in models if model["sha256"] == sha256), None)
    return of_run or next((model for model in models if model["default"]), None)


def _pixel_sizes(layer: QgsVectorLayer) -> dict[str, float]:
    """Of each run that is on record, the metres in the pixels that it looked at."""
    sizes = {}
    for record in read_runs(layer):
        size = _parameters(record).get("resolution_m")
        if isinstance(size, (int, float)) and size > 0:
            sizes[record["run"]] = float(size)
    return sizes


def _parameters(record: dict[str, Any]) -> dict[str, Any]:
    """The table holds them as text."""
    given = record.get("parameters")
    if isinstance(given, str):
        with suppress(ValueError):
            given = json.loads(given)
    return given if isinstance(given, dict) else {}


def _geometry(wkb: str) -> QgsGeometry:
    geometry = QgsGeometry()
    geometry.fromWkb(QByteArray.fromHex(wkb.encode()))
    return geometry
