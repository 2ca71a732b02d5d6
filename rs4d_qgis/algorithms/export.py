"""`rs4d:export`: a result layer, as reviewed, in another format."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterLayer,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.vector_input import write_input
from rs4d_qgis.compat import SOURCE_POLYGON
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.layers.source import local_file
from rs4d_qgis.translation import tr


class ExportAlgorithm(EngineAlgorithm):
    """Writes a result layer with all its fields; or, as COCO, in pixels of its scene."""

    INPUT = "INPUT"
    ACCEPTED = "ACCEPTED"
    SCENE = "SCENE"
    OUTPUT = "OUTPUT"
    INSTANCES = "INSTANCES"

    def name(self) -> str:
        return "export"

    def displayName(self) -> str:
        return tr("Export instance polygons")

    def tags(self) -> list[str]:
        return tr("coco,json,geojson,geopackage,flatgeobuf,geoparquet,accepted,training data,save").split(",")

    def shortDescription(self) -> str:
        return tr("Writes a result as COCO, GeoJSON, GeoPackage, FlatGeobuf or GeoParquet: all, or what was accepted.")

    def shortHelpString(self) -> str:
        return tr(
            "Writes a result of RS4D, with its edits, in the format that the file's name asks for: .gpkg, .geojson (in "
            "longitude and latitude), .fgb, .parquet, or .json for COCO (in pixels of the scene).\n\nThe log says how "
            "many polygons really are in the file. An existing GeoPackage may hold other results and is not replaced; "
            "other files are."
        )

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.add(
            QgsProcessingParameterFeatureSource(self.INPUT, tr("Instances"), [SOURCE_POLYGON]),
            tr("A result of RS4D: a layer with the fields class, score, status, edited, area_m2 and run."),
        )
        self.add(
            QgsProcessingParameterBoolean(self.ACCEPTED, tr("Accepted ones only"), defaultValue=False),
            tr("Leaves out what a review has not accepted, by the field status."),
        )
        self.add(
            QgsProcessingParameterRasterLayer(self.SCENE, tr("Scene, for COCO"), optional=True),
            tr("The raster whose pixels COCO counts, a file. Without it, the one that the result was found in, where "
               "that still is at its place."),
        )  # fmt: skip
        self.add(
            QgsProcessingParameterFileDestination(
                self.OUTPUT,
                tr("File"),
                "GeoPackage (*.gpkg);;GeoJSON (*.geojson);;COCO (*.json);;FlatGeobuf (*.fgb);;GeoParquet (*.parquet)",
            ),
            tr("The ending of its name decides on the format."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.INSTANCES, tr("Number of polygons in the file")))

    def prepareAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> bool:
        layer = self.parameterAsVectorLayer(parameters, self.INPUT, context)
        self._records = [] if layer is None else read_runs(layer)
        scene = self.parameterAsRasterLayer(parameters, self.SCENE, context)
        self._scene = None if scene is None else local_file(scene)
        if scene is not None and self._scene is None:
            raise QgsProcessingException(
                tr("Scene: layer “{}” is no file, and has no pixels to count").format(scene.name())
            )
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        source = self.parameterAsSource(parameters, self.INPUT, context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, self.INPUT))
        output = self.parameterAsFileOutput(parameters, self.OUTPUT, context)
        with tempfile.TemporaryDirectory(prefix="rs4d-") as folder:
            path = Path(folder) / "instances.gpkg"
            self.call_it(path, source.sourceName())
            write_input(source, path, self._records, context, feedback)
            request = {
                "layer": str(path),
                "output": output,
                "accepted": self.parameterAsBoolean(parameters, self.ACCEPTED, context),
                "scene": self._scene,
            }
            result = None if feedback.isCanceled() else self.ask("export", request, feedback)
        if result is None:
            return {}
        self.tell(result["notes"], feedback)
        counts = ", ".join(f"{name} {count}" for name, count in result["by_class"].items())
        feedback.pushInfo(
            tr("{} polygons are in {}{}").format(result["instances"], output, f" ({counts})" if counts else "")
        )
        return {self.OUTPUT: output, self.INSTANCES: result["instances"]}
