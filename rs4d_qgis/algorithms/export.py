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
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.vector_input import write_input
from rs4d_qgis.compat import NUMBER_DOUBLE, NUMBER_INTEGER, SOURCE_POLYGON
from rs4d_qgis.layers.errors import RenderError
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.layers.source import layer_of_file, scene_source
from rs4d_qgis.translation import tr


class ExportAlgorithm(EngineAlgorithm):
    """Writes a result layer with all its fields; or, as COCO, in pixels of its scene."""

    INPUT = "INPUT"
    ACCEPTED = "ACCEPTED"
    SCENE = "SCENE"
    CHIP_PX = "CHIP_PX"
    RESOLUTION = "RESOLUTION"
    OUTPUT = "OUTPUT"
    INSTANCES = "INSTANCES"

    def name(self) -> str:
        return "export"

    def displayName(self) -> str:
        return tr("Export instance polygons")

    def tags(self) -> list[str]:
        return tr(
            "coco,json,geojson,geopackage,shapefile,flatgeobuf,geoparquet,accepted,training data,chips,save"
        ).split(",")

    def shortDescription(self) -> str:
        return tr(
            "Writes a result as COCO, GeoJSON, GeoPackage, Shapefile, FlatGeobuf or GeoParquet, or as image chips."
        )

    def shortHelpString(self) -> str:
        return tr(
            "Writes a result of RS4D, with its edits, in the format that the file's name asks for: .gpkg, .geojson (in "
            "longitude and latitude), .shp, .fgb, .parquet, or .json for COCO (in pixels of the scene).\n\n"
            "With a size of chips, the file is FOLDER/annotations.json in a new folder, and image chips of the scene "
            "lie beside it, to train on: what was rejected is background there, and with “Accepted ones only” what is "
            "not decided yet is to be ignored.\n\n"
            "The log says how many polygons really are in the file. An existing GeoPackage may hold other results and "
            "is not replaced, nor is a Shapefile; other files are."
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
            QgsProcessingParameterNumber(
                self.CHIP_PX, tr("Size of chips, pixels"), NUMBER_INTEGER, optional=True, minValue=32, maxValue=4096
            ),
            tr("Cuts the scene into image chips to train on, where the layer has polygons. Without it there are none."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(
                self.RESOLUTION, tr("Resolution of chips, metres a pixel"), NUMBER_DOUBLE, optional=True, minValue=0.001
            ),
            tr("Without it, chips are as the run read the scene."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFileDestination(
                self.OUTPUT,
                tr("File"),
                "GeoPackage (*.gpkg);;GeoJSON (*.geojson);;COCO (*.json);;Shapefile (*.shp);;FlatGeobuf (*.fgb);;"
                "GeoParquet (*.parquet)",
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
        raster, of_runs = scene, {str(record["scene"]) for record in self._records}
        if scene is None and len(of_runs) == 1:
            raster = layer_of_file(*of_runs)
        self._folder = tempfile.TemporaryDirectory(prefix="rs4d-")
        try:
            source = None if raster is None else scene_source(raster, Path(tempfile.mkdtemp(dir=self._folder.name)))
        except RenderError as error:
            raise QgsProcessingException(str(error)) from error
        if scene is not None and source is None:
            raise QgsProcessingException(
                tr("Scene: layer “{}” is no file, and has no pixels to count").format(scene.name())
            )
        self._scene = None if source is None else source.path
        if source is not None:
            self.call_it(Path(source.path), raster.name())
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        source = self.parameterAsSource(parameters, self.INPUT, context)
        if source is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, self.INPUT))
        output = self.parameterAsFileOutput(parameters, self.OUTPUT, context)
        with self._folder as folder:
            path = Path(folder) / "instances.gpkg"
            self.call_it(path, source.sourceName())
            write_input(source, path, self._records, context, feedback)
            request = {
                "layer": str(path),
                "output": output,
                "accepted": self.parameterAsBoolean(parameters, self.ACCEPTED, context),
                "scene": self._scene,
                "chip_px": self._number(self.parameterAsInt, parameters, self.CHIP_PX, context),
                "resolution_m": self._number(self.parameterAsDouble, parameters, self.RESOLUTION, context),
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

    @staticmethod
    def _number(read, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> Any:
        return None if parameters.get(name) is None else read(parameters, name, context)
