"""`rs4d:segment`: a raster layer in, a layer of instance polygons out."""

from __future__ import annotations

import os
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsApplication,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsVectorLayer,
)

from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.algorithms.loading import ResultLoader, load_later
from rs4d_qgis.algorithms.run_sink import RunSink
from rs4d_qgis.algorithms.segment_parameters import SegmentParameters
from rs4d_qgis.layers.class_names import as_known
from rs4d_qgis.layers.errors import RenderCancelled, RenderError
from rs4d_qgis.layers.no_crs import forget_undefined_crs
from rs4d_qgis.layers.prepared import PreparedScene
from rs4d_qgis.layers.results import result_name, set_provenance, style_result
from rs4d_qgis.layers.source import SceneSource
from rs4d_qgis.translation import tr

# Of a run's progress, where the imagery has to be fetched first.
_FETCH_SHARE = 0.3


class SegmentAlgorithm(SegmentParameters):
    """Finds the instances in a raster layer. A cancelled or broken run leaves what it found in the sink's file."""

    def __init__(self) -> None:
        super().__init__()
        self._loader: ResultLoader | None = None
        self._destination = ""

    def name(self) -> str:
        return "segment"

    def displayName(self) -> str:
        return tr("Segment a raster layer")

    def tags(self) -> list[str]:
        return tr(
            "instance segmentation,object detection,deep learning,ai,buildings,ships,vehicles,tanks,footprints,"
            "extract,digitize,imagery,orthophoto,satellite,aerial,drone"
        ).split(",")

    def shortDescription(self) -> str:
        return tr("Finds buildings, ships, tanks and other objects in imagery, and outlines each one.")

    def shortHelpString(self) -> str:
        return tr(
            "Finds objects in a raster layer and gives each an outline, a class and a score. All is computed on this "
            "machine.\n\nAny raster layer can be taken. Files are read where they are. What comes from a web service "
            "is first fetched for the chosen extent, at the resolution that the model was made for: see that the "
            "imagery's terms allow it.\n\nThe layer is read at the model's resolution, whatever the map's scale. The "
            "log says how it was read.\n\nA run that is cancelled keeps what it has found, in the output's file. If "
            "the same is run next, it goes on from there."
        )

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.INPUT))
        self._folder = tempfile.TemporaryDirectory(prefix="rs4d-")
        self._began = datetime.now()
        try:
            self._scene = PreparedScene(layer, Path(self._folder.name))
        except RenderError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        with self._folder:
            try:
                return self._run(parameters, context, feedback)
            except RenderCancelled:
                return {}
            except RenderError as error:
                raise QgsProcessingException(str(error)) from error

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        if self._loader is not None:
            load_later(context, self._destination, self._loader)
        return {}

    def _run(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        card = self._card(parameters, context, feedback)
        if card is None:
            return {}
        options = self.options(parameters, context, self._scene.crs.isValid())
        if options["classes"]:
            options["classes"] = as_known(options["classes"], card["config"]["classes"])
        source, share = self._source(parameters, context, feedback, card, options)
        for note in source.notes:
            feedback.pushInfo(note)
        self.call_it(Path(source.path), self._scene.name)
        sink = RunSink(self, self.OUTPUT, parameters, context, feedback, self._scene.crs)
        # So that the same run, started again, goes on where it was cancelled, or where the engine died.
        journal = Path(QgsApplication.qgisSettingsDirPath()) / "rs4d-run"
        request = {**options, "scene": source.path, "journal": str(journal)}
        try:
            result = self.ask("segment", request, feedback, sink.take, share)
        except QgsProcessingException as error:
            sink.close()
            kept = sink.rescue()
            if kept is None:
                raise
            found = tr("{} polygons that were found before are in {}").format(sink.count, kept)
            raise QgsProcessingException(f"{error} ({found})") from error
        sink.close()
        if result is None:
            return {}
        record = {**result["record"], "scene": self._scene.origin, "seconds": result["seconds"]}
        sink.add_record(record)
        self._sum_up(result, sink, feedback)
        if isinstance(feedback, RunFeedback):
            feedback.runFinished.emit({**result, "record": record})
        self._destination = sink.destination
        colors = _shown_colors(card, result["by_class"])
        name = result_name(self._scene.name, self._began)

        def dress(layer: QgsVectorLayer) -> None:
            if layer.name() == tr("Instances"):  # the user gave it no other name
                layer.setName(name)
            forget_undefined_crs(layer)
            set_provenance(layer, record)
            style_result(layer, colors)

        self._loader = ResultLoader(dress, self._group_name())
        return {self.OUTPUT: sink.destination, self.INSTANCES: result["instances"], self.RUN: result["run"]}

    def _card(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any] | None:
        """The model's card, as the engine tells it; None where the user cancelled."""
        feedback.setProgressText(tr("Starting the engine"))
        path = self.parameterAsString(parameters, self.MODEL, context)
        engine = self.ask("hello", {"model_folders": [os.path.dirname(path)] if path else None}, feedback)
        if engine is None:
            return None
        wanted = path or engine["default_model"]
        for model in engine["models"]:
            if wanted and os.path.exists(model["path"]) and os.path.samefile(model["path"], wanted):
                if "error" in model:
                    raise QgsProcessingException(model["error"])
                return model["card"]
        raise QgsProcessingException(tr("There is no model: choose a model file"))

    def _source(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        card: dict[str, Any],
        options: dict[str, Any],
    ) -> tuple[SceneSource, float]:
        """The scene as the engine can read it, and the share of the progress that making it has taken."""
        share = _FETCH_SHARE if self._scene.is_fetched else 0.0

        def tell(fraction: float) -> None:
            feedback.setProgress(100.0 * share * fraction)
            if isinstance(feedback, RunFeedback):
                message = tr("Fetching the imagery: {:.0f} %").format(100.0 * fraction)
                feedback.progressTold.emit({"fraction": share * fraction, "message": message, "seconds_left": None})

        if self._scene.is_picture and options.pop("bands", None):
            feedback.pushInfo(tr("The layer is a picture: the choice of bands is left out"))
        source = self._scene.source(
            self.extent_in(self._scene.crs, parameters, context),
            tuple(card["resolution_m"]),
            options.get("resolution_m"),
            feedback,
            feedback.pushInfo,
            tell,
        )
        return source, share

    def _sum_up(self, result: dict[str, Any], sink: RunSink, feedback: QgsProcessingFeedback) -> None:
        self.tell(result["notes"], feedback)
        counts = ", ".join(f"{name} {count}" for name, count in result["by_class"].items() if count)
        feedback.pushInfo(
            tr("{} instances{} from {} of {} windows, in {:.1f} s on {} ({})").format(
                result["instances"],
                f" ({counts})" if counts else "",
                result["windows"],
                result["windows_total"],
                result["seconds"],
                result["device"],
                result["device_reason"],
            )
        )
        if result["interrupted"]:
            kept = sink.rescue()
            if kept:
                feedback.pushInfo(tr("Cancelled: what was found so far is in {}").format(kept))
        elif not result["instances"]:
            feedback.pushInfo(
                tr("Nothing was found. A lower score, another resolution, another model or a larger extent may help.")
            )

    def _group_name(self) -> str:
        return f"{self._scene.name}, {self._began.strftime('%H:%M:%S')}"


def _shown_colors(card: dict[str, Any], by_class: dict[str, int]) -> dict[str, str]:
    """The model's colours of the classes that were found; of all that were looked for, where none was."""
    colors = dict(zip(card["config"]["classes"], card["colors"]))
    found = {name: color for name, color in colors.items() if by_class.get(name)}
    return found or {name: color for name, color in colors.items() if name in by_class}
