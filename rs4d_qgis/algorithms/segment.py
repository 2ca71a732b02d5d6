"""`rs4d:segment`: a raster layer in, a layer of instance polygons out."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateTransform,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsRectangle,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.algorithms.loading import ResultLoader, load_later
from rs4d_qgis.algorithms.parameters import class_names, dissolved, wkt
from rs4d_qgis.algorithms.run_sink import RunSink
from rs4d_qgis.compat import NUMBER_DOUBLE, NUMBER_INTEGER, SOURCE_POLYGON
from rs4d_qgis.layers.prepared import PreparedScene
from rs4d_qgis.layers.render import RenderCancelled, RenderError
from rs4d_qgis.layers.source import SceneSource
from rs4d_qgis.translation import tr

# Of the engine's windows: see its plan of them.
WINDOW_STEP_PX = 32
LEAST_OVERLAP_PX = 16
# Of a run's progress, where the imagery has to be fetched first.
_FETCH_SHARE = 0.3


class SegmentAlgorithm(EngineAlgorithm):
    """Finds the instances in a raster layer. A cancelled or broken run leaves what it found in the sink's file."""

    INPUT = "INPUT"
    EXTENT = "EXTENT"
    AREA = "AREA"
    MODEL = "MODEL"
    CLASSES = "CLASSES"
    SCORE = "SCORE"
    RESOLUTION = "RESOLUTION"
    BANDS = "BANDS"
    WINDOW = "WINDOW"
    OVERLAP = "OVERLAP"
    REGULARIZE = "REGULARIZE"
    DEVICE = "DEVICE"
    OUTPUT = "OUTPUT"
    INSTANCES = "INSTANCES"
    RUN = "RUN"

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
            "log says how it was read.\n\nA run that is cancelled keeps what it has found, in the output's file."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, tr("Raster layer")),
            tr("The imagery: a file, a web service (XYZ, WMS), a virtual layer."),
        )
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, tr("Extent"), optional=True),
            tr("Only this part of the layer is looked at, in any CRS. Without it, all of the layer."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(self.AREA, tr("Area"), [SOURCE_POLYGON], optional=True),
            tr("Only what lies inside these polygons is kept; the rest is not even looked at. In any CRS."),
        )
        self.add(
            QgsProcessingParameterFile(self.MODEL, tr("Model"), extension="safetensors", optional=True),
            tr("A model file of RS4D. Without it, the one that comes with the engine."),
        )
        self.add(
            QgsProcessingParameterString(self.CLASSES, tr("Classes"), optional=True),
            tr(
                "What to look for: names of the model's classes, with commas between them, such as: building, ship. "
                "Without it, all of them."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.SCORE, tr("Least score"), NUMBER_DOUBLE, defaultValue=0.0, minValue=0.0, maxValue=1.0
            ),
            tr(
                "From 0 to 1: a higher one gives fewer and surer objects. 0 leaves it to the model, which has a score "
                "of its own for each class."
            ),
        )
        self.add(
            QgsProcessingParameterBoolean(self.REGULARIZE, tr("Right angles"), defaultValue=False),
            tr(
                "Straightens outlines, of buildings to right angles, where the shape stays nearly the same. Classes of "
                "curved things, such as ships, are left alone."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.RESOLUTION,
                tr("Resolution to read at [metres a pixel]"),
                NUMBER_DOUBLE,
                optional=True,
                minValue=0.001,
            ),
            tr(
                "On the ground, in any CRS. Without it, the layer's own where the model was made for it, else the "
                "nearest that the model was made for."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBand(
                self.BANDS, tr("Bands"), parentLayerParameterName=self.INPUT, optional=True, allowMultiple=True
            ),
            tr(
                "Three bands to take as red, green and blue, or one for all three. Without it, those that the file "
                "says, else the first three."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(
                self.WINDOW, tr("Window [pixels]"), NUMBER_INTEGER, optional=True, minValue=32
            ),
            tr("Side of the squares that the model sees at once; a multiple of 32. Without it, the model's own."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(
                self.OVERLAP,
                tr("Overlap of windows [pixels]"),
                NUMBER_INTEGER,
                optional=True,
                minValue=LEAST_OVERLAP_PX,
            ),
            tr("How far neighbouring windows overlap. Objects may be larger. Without it, the model's own."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString(self.DEVICE, tr("Device"), defaultValue="auto", optional=True),
            tr(
                "auto, cpu, cuda, or cuda:1 for the second graphics card. auto takes a graphics card where one can be "
                "used."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, tr("Instances"), SOURCE_POLYGON),
            tr("The polygons, in the layer's CRS, each with class, score, review status and area in square metres."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.INSTANCES, tr("Number of instances")))
        self.addOutput(QgsProcessingOutputString(self.RUN, tr("Id of the run")))

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        ok, reason = super().checkParameterValues(parameters, context)
        if not ok:
            return ok, reason
        window = self._integer(parameters, self.WINDOW, context)
        overlap = self._integer(parameters, self.OVERLAP, context)
        bands = self.parameterAsInts(parameters, self.BANDS, context)
        model = self.parameterAsString(parameters, self.MODEL, context)
        if window and window % WINDOW_STEP_PX:
            return False, tr("Window: {} is not a multiple of {}").format(window, WINDOW_STEP_PX)
        if window and overlap and overlap >= window:
            return False, tr("Overlap: {} px is not smaller than the window of {} px").format(overlap, window)
        if len(bands) not in (0, 1, 3):
            return False, tr("Bands: choose three (red, green, blue), or one, not {}").format(len(bands))
        if model and not os.path.isfile(model):
            return False, tr("Model: there is no file {}").format(model)
        return True, ""

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        layer = self.parameterAsRasterLayer(parameters, self.INPUT, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, self.INPUT))
        self._folder = tempfile.TemporaryDirectory(prefix="rs4d-")
        self._scene = PreparedScene(layer, Path(self._folder.name))
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
        options = self._options(parameters, context)
        source, share = self._source(parameters, context, feedback, card, options)
        for note in source.notes:
            feedback.pushInfo(note)
        sink = RunSink(self, self.OUTPUT, parameters, context, feedback, self._scene.crs)
        request = {**options, "scene": source.path}
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
        self._tell(result, sink, feedback)
        if isinstance(feedback, RunFeedback):
            feedback.runFinished.emit({**result, "record": record})
        self._destination = sink.destination
        self._loader = ResultLoader(_shown_colors(card, result["by_class"]), record, self._group_name())
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
            self._extent(parameters, context),
            tuple(card["resolution_m"]),
            options.get("resolution_m"),
            feedback,
            feedback.pushInfo,
            tell,
        )
        return source, share

    def _extent(self, parameters: dict[str, Any], context: QgsProcessingContext) -> QgsRectangle | None:
        """The part of the layer that is asked for, in its CRS; None for all of it."""
        extent = None
        if parameters.get(self.EXTENT) is not None:
            extent = self.parameterAsExtent(parameters, self.EXTENT, context, self._scene.crs)
        area = self.parameterAsSource(parameters, self.AREA, context)
        if area is not None:
            transform = QgsCoordinateTransform(area.sourceCrs(), self._scene.crs, context.transformContext())
            bounds = transform.transformBoundingBox(dissolved(area).boundingBox())
            extent = bounds if extent is None or extent.isNull() else extent.intersect(bounds)
        return None if extent is None or extent.isNull() else extent

    def _tell(self, result: dict[str, Any], sink: RunSink, feedback: QgsProcessingFeedback) -> None:
        for note in result["notes"]:
            feedback.pushInfo(note)
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
        return tr("{}, {}").format(self._scene.name, time.strftime("%H:%M:%S"))

    def _options(self, parameters: dict[str, Any], context: QgsProcessingContext) -> dict[str, Any]:
        """The parameters of the engine's `segment` beside the scene."""
        options = {
            "model": self.parameterAsString(parameters, self.MODEL, context) or None,
            "classes": class_names(self.parameterAsString(parameters, self.CLASSES, context)),
            "score": self.parameterAsDouble(parameters, self.SCORE, context) or None,
            "bands": self.parameterAsInts(parameters, self.BANDS, context) or None,
            "window_px": self._integer(parameters, self.WINDOW, context),
            "overlap_px": self._integer(parameters, self.OVERLAP, context),
            "regularize": self.parameterAsBoolean(parameters, self.REGULARIZE, context),
            "device": self.parameterAsString(parameters, self.DEVICE, context).strip() or None,
        }
        if parameters.get(self.RESOLUTION) is not None:
            options["resolution_m"] = self.parameterAsDouble(parameters, self.RESOLUTION, context)
        if parameters.get(self.EXTENT) is not None:
            extent = self.parameterAsExtent(parameters, self.EXTENT, context)
            if not extent.isNull():
                crs = self.parameterAsExtentCrs(parameters, self.EXTENT, context)
                options["bbox"] = [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
                # A scene without a CRS is asked for in its own coordinates.
                options["bbox_crs"] = wkt(crs) if self._scene.crs.isValid() else None
        area = self.parameterAsSource(parameters, self.AREA, context)
        if area is not None:
            shape = dissolved(area)
            if shape.isEmpty():
                raise QgsProcessingException(tr("Area: the layer has no polygon; choose another, or none"))
            options["area"] = {"wkb": bytes(shape.asWkb().toHex()).decode(), "crs_wkt": wkt(area.sourceCrs())}
        return options

    def _integer(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> int | None:
        if parameters.get(name) is None:
            return None
        return self.parameterAsInt(parameters, name, context)


def _shown_colors(card: dict[str, Any], by_class: dict[str, int]) -> dict[str, str]:
    """The model's colours of the classes that were found; of all that were looked for, where none was."""
    colors = dict(zip(card["config"]["classes"], card["colors"]))
    found = {name: color for name, color in colors.items() if by_class.get(name)}
    return found or {name: color for name, color in colors.items() if name in by_class}
