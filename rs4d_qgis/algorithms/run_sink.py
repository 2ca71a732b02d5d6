"""Where the polygons of a run go as they are found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureSink,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.compat import MULTIPOLYGON
from rs4d_qgis.layers.no_crs import mark_without_crs
from rs4d_qgis.layers.results import result_features, result_fields
from rs4d_qgis.layers.runs import write_runs
from rs4d_qgis.translation import tr


class RunSink:
    """The sink of an algorithm, made once the CRS of the scene is told: before the first window.

    Attributes:
        destination: of the sink, as the algorithm returns it; None before there is one.
        count: polygons written.
    """

    def __init__(
        self,
        algorithm: QgsProcessingAlgorithm,
        name: str,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
        layer_crs: QgsCoordinateReferenceSystem,
    ) -> None:
        self.destination: str | None = None
        self.count = 0
        self._algorithm, self._name, self._parameters = algorithm, name, parameters
        self._context, self._feedback, self._layer_crs = context, feedback, layer_crs
        self._fields = result_fields()
        self._sink: QgsFeatureSink | None = None
        self._crs = QgsCoordinateReferenceSystem()

    def take(self, told: dict[str, Any]) -> None:
        """The engine's notification `instances`."""
        if self.destination is None:
            self._begin(told["crs_wkt"])
        features = result_features(told["features"], self._fields, told["run"])
        if not features:
            return
        if isinstance(self._feedback, RunFeedback):
            # Copies, as they go to another thread.
            self._feedback.instancesFound.emit([QgsFeature(feature) for feature in features])
        if not self._sink.addFeatures(features, QgsFeatureSink.Flag.FastInsert):
            raise QgsProcessingException(
                tr("The polygons cannot be written to {} ({})").format(self.destination, self._sink.lastError())
            )
        self.count += len(features)

    def close(self) -> None:
        """What was taken is in the file from here on."""
        self._sink = None

    def file(self) -> Path | None:
        """The file that was written; None for layers in memory and in databases."""
        if self.destination is None:
            return None
        path = Path(self.destination.split("|")[0])
        return path if path.is_file() else None

    def rescue(self) -> str | None:
        """Where the polygons of a run that did not come to its end are; None where there are none.

        QGIS drops layers in memory then, so these are saved to a file. To be called when closed.
        """
        path = self.file()
        if path is not None or not self.count:
            return str(path) if self.count else None
        layer = self._layer_in_memory()
        if layer is None:
            return self.destination
        path = QgsProcessingUtils.generateTempFilename("instances.gpkg")
        options = QgsVectorFileWriter.SaveVectorOptions()
        options.driverName, options.layerName = "GPKG", "instances"
        error = QgsVectorFileWriter.writeAsVectorFormatV3(layer, path, self._context.transformContext(), options)
        return path if error[0] == QgsVectorFileWriter.WriterError.NoError else None

    def add_record(self, record: dict[str, Any]) -> None:
        """Keeps the record of the run beside its polygons, where the file can hold it. To be called when closed."""
        path = self.file()
        if path is not None and path.suffix.lower() == ".gpkg":
            if not self._crs.isValid():
                mark_without_crs(path)
            error = write_runs(path, [record])
            if error:
                self._feedback.pushWarning(tr("The record of the run cannot be written: {}").format(error))

    def _layer_in_memory(self) -> QgsVectorLayer | None:
        return self._context.temporaryLayerStore().mapLayer(self.destination)

    def _begin(self, crs_wkt: str | None) -> None:
        crs = QgsCoordinateReferenceSystem()
        if crs_wkt is not None:
            crs = QgsCoordinateReferenceSystem.fromWkt(crs_wkt)
            # The same by another spelling: the layer's has the code that users know.
            if crs == self._layer_crs:
                crs = self._layer_crs
        self._crs = crs
        self._sink, self.destination = self._algorithm.parameterAsSink(
            self._parameters, self._name, self._context, self._fields, MULTIPOLYGON, crs
        )
        if self._sink is None:
            raise QgsProcessingException(self._algorithm.invalidSinkError(self._parameters, self._name))
        layer = self._layer_in_memory()
        if layer is not None and not crs.isValid():
            # QGIS takes longitude and latitude where it is told nothing.
            layer.setCrs(crs)
        if isinstance(self._feedback, RunFeedback):
            self._feedback.layerReady.emit((self._fields, crs))
