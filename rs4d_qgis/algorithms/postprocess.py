"""`rs4d:postprocess`: choose among polygons, and give them better shapes."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from qgis.core import (
    NULL,
    QgsFeature,
    QgsFeatureSink,
    QgsFields,
    QgsMapLayerStyle,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeatureSource,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterString,
    QgsVectorLayer,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.loading import ResultLoader, load_later
from rs4d_qgis.algorithms.parameters import class_names
from rs4d_qgis.algorithms.vector_input import fields_without_key, write_input
from rs4d_qgis.compat import MULTIPOLYGON, NUMBER_DOUBLE, SOURCE_POLYGON
from rs4d_qgis.layers.class_names import as_known
from rs4d_qgis.layers.no_crs import mark_without_crs, real_crs
from rs4d_qgis.layers.runs import read_runs, write_runs
from rs4d_qgis.review.reviewed import look
from rs4d_qgis.translation import tr


class PostprocessAlgorithm(EngineAlgorithm):
    """Works over any layer of polygons, and leaves that layer as it is."""

    INPUT = "INPUT"
    SCORE = "SCORE"
    CLASSES = "CLASSES"
    MERGE = "MERGE"
    REGULARIZE = "REGULARIZE"
    SIMPLIFY = "SIMPLIFY"
    MIN_AREA = "MIN_AREA"
    OUTPUT = "OUTPUT"
    INSTANCES = "INSTANCES"

    def __init__(self) -> None:
        super().__init__()
        self._loader: ResultLoader | None = None
        self._destination = ""

    def name(self) -> str:
        return "postprocess"

    def displayName(self) -> str:
        return tr("Clean up instance polygons")

    def tags(self) -> list[str]:
        return tr(
            "regularize,orthogonalize,right angles,simplify,score,filter,minimum area,merge,dissolve,buildings,"
            "footprints"
        ).split(",")

    def shortDescription(self) -> str:
        return tr("Cuts by score, class and area; merges, simplifies, and gives buildings right angles.")

    def shortHelpString(self) -> str:
        return tr(
            "Works over a result of RS4D, or any other layer of polygons, and writes a new layer with the same fields. "
            "The steps, in this order: least score, classes, merge, right angles, simplify, least area.\n\nLengths and "
            "areas are metres and square metres on the ground, in any CRS. A field area_m2 follows the new outlines."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.add(
            QgsProcessingParameterFeatureSource(self.INPUT, tr("Polygons"), [SOURCE_POLYGON]),
            tr("A result of RS4D, or any other polygons. Fields class and score are used where they are needed."),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.SCORE, tr("Least score (0: all)"), NUMBER_DOUBLE, defaultValue=0.0, minValue=0.0, maxValue=1.0
            ),
            tr("From 0 to 1. What has no score stays. 0 keeps all."),
        )
        self.add(
            QgsProcessingParameterString(self.CLASSES, tr("Classes to keep, such as: building, ship"), optional=True),
            tr("Names of the classes to keep, with commas between them. Without it, all of them."),
        )
        self.add(
            QgsProcessingParameterBoolean(self.MERGE, tr("Merge what touches"), defaultValue=False),
            tr("Polygons of one class that touch or overlap become one, with the fields of the one of the best score."),
        )
        self.add(
            QgsProcessingParameterBoolean(self.REGULARIZE, tr("Right angles"), defaultValue=False),
            tr("Gives right angles to outlines that nearly have them. A shape that would change too much stays as it "
               "is, and so do classes of curved things, such as ships."),
        )  # fmt: skip
        self.add(
            QgsProcessingParameterNumber(
                self.SIMPLIFY, tr("Simplify to within [metres]"), NUMBER_DOUBLE, defaultValue=0.0, minValue=0.0
            ),
            tr("How far an outline may move where points are taken off it. 0 leaves outlines as they are."),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.MIN_AREA, tr("Least area [square metres]"), NUMBER_DOUBLE, defaultValue=0.0, minValue=0.0
            ),
            tr("Smaller polygons, as they are in the end, are left out."),
        )
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, tr("Cleaned up"), SOURCE_POLYGON),
            tr("The polygons, in the CRS and with the fields of the input."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.INSTANCES, tr("Number of polygons")))

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        layer = self.parameterAsVectorLayer(parameters, self.INPUT, context)
        self._records = [] if layer is None else read_runs(layer)
        if layer is not None:
            style = QgsMapLayerStyle()
            style.readFromLayer(layer)
            self._loader = ResultLoader(partial(_dress, style))
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        source = self.parameterAsSource(parameters, self.INPUT, context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, self.INPUT))
        with tempfile.TemporaryDirectory(prefix="rs4d-") as folder:
            given, made = Path(folder) / "input.gpkg", Path(folder) / "output.gpkg"
            self.call_it(given, source.sourceName())
            write_input(source, given, self._records, context, feedback)
            request = {
                "layer": str(given),
                "output": str(made),
                "score": self.parameterAsDouble(parameters, self.SCORE, context) or None,
                "classes": self._classes(parameters, context, source),
                "merge": self.parameterAsBoolean(parameters, self.MERGE, context),
                "regularize": self.parameterAsBoolean(parameters, self.REGULARIZE, context),
                "simplify_m": self.parameterAsDouble(parameters, self.SIMPLIFY, context) or None,
                "min_area_m2": self.parameterAsDouble(parameters, self.MIN_AREA, context) or None,
            }
            result = None if feedback.isCanceled() else self.ask("postprocess", request, feedback)
            if result is None:
                return {}
            self.tell(result["notes"], feedback)
            fields = fields_without_key(source.fields())
            crs = real_crs(source.sourceCrs())
            sink, destination = self.parameterAsSink(parameters, self.OUTPUT, context, fields, MULTIPOLYGON, crs)
            if sink is None:
                raise QgsProcessingException(self.invalidSinkError(parameters, self.OUTPUT))
            _copy(made, sink, fields)
            del sink
        self._complete(Path(destination.split("|")[0]), crs.isValid(), feedback)
        told = tr("{} of {} polygons").format(result["instances"], source.featureCount())
        if result["instances"]:
            feedback.pushInfo(told)
        else:
            feedback.pushWarning(told)
        self._destination = destination
        return {self.OUTPUT: destination, self.INSTANCES: result["instances"]}

    def _classes(
        self, parameters: dict[str, Any], context: QgsProcessingContext, source: QgsProcessingFeatureSource
    ) -> list[str] | None:
        """Those to keep, as the polygons have them; None for all."""
        wanted = class_names(self.parameterAsString(parameters, self.CLASSES, context))
        field = source.fields().lookupField("class")
        if wanted is None or field < 0:
            return wanted
        return as_known(wanted, (str(value) for value in source.uniqueValues(field) if value != NULL))

    def _complete(self, path: Path, has_crs: bool, feedback: QgsProcessingFeedback) -> None:
        """Adds what a sink cannot take, where the output is a file that can hold it."""
        if path.suffix.lower() != ".gpkg" or not path.is_file():
            return
        if not has_crs:
            mark_without_crs(path)
        problem = write_runs(path, self._records) if self._records else None
        if problem:
            feedback.pushWarning(tr("The records of the runs cannot be written: {}").format(problem))

    def postProcessAlgorithm(self, context: QgsProcessingContext, feedback: QgsProcessingFeedback) -> dict[str, Any]:
        if self._loader is not None:
            load_later(context, self._destination, self._loader)
        return {}


def _copy(path: Path, sink: QgsFeatureSink, fields: QgsFields) -> None:
    """What the engine wrote, into the sink. The engine's file may store a value as another type."""
    made = QgsVectorLayer(f"{path}|layername=instances", "made", "ogr")
    if not made.isValid():
        raise QgsProcessingException(tr("The engine's result cannot be read: {}").format(made.error().message()))
    places = [made.fields().indexOf(field.name()) for field in fields]
    for feature in made.getFeatures():
        copy = QgsFeature(fields)
        copy.setGeometry(feature.geometry())
        values = [NULL if place < 0 else feature.attribute(place) for place in places]
        copy.setAttributes([NULL if v == NULL else field.convertCompatible(v) for field, v in zip(fields, values)])
        if not sink.addFeature(copy, QgsFeatureSink.Flag.FastInsert):
            raise QgsProcessingException(tr("The polygons cannot be written: {}").format(sink.lastError()))


def _dress(style: QgsMapLayerStyle, layer: QgsVectorLayer) -> None:
    """Like the input; not as it looks under review, with some of it hidden."""
    style.writeToLayer(layer)
    look.take_off(layer)
