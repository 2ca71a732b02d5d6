"""The layer under review as it is at this moment, for work in the background."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFields,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProject,
    QgsTask,
    QgsVectorLayer,
    QgsVectorLayerFeatureSource,
)

from rs4d_qgis.algorithms.vector_input import write_input
from rs4d_qgis.engine.errors import Cancelled, RequestFailed
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.review.logic.objects import ReviewObject

_REFUSED = 2


class LayerSnapshot:
    """Features with the edits that are not saved. Made on the main thread; read on any, while the layer may change.

    Attributes:
        name: of the layer.
    """

    def __init__(
        self,
        layer: QgsVectorLayer,
        only: Collection[int] | None = None,
        objects: Mapping[int, ReviewObject] | None = None,
        statuses: Mapping[int, str] | None = None,
    ) -> None:
        """
        Args:
            only: ids of the features wanted; None for all.
            objects: of the desk, whose class and status count, as some may not be in the file yet.
            statuses: that count instead of those, by id.
        """
        self.name = layer.name()
        self._source = QgsVectorLayerFeatureSource(layer)
        self._fields = QgsFields(layer.fields())
        self._crs = QgsCoordinateReferenceSystem(layer.crs())
        self._records = read_runs(layer)
        self._context = QgsProcessingContext()
        self._context.setProject(QgsProject.instance())
        self._only = None if only is None else frozenset(only)
        self._values = {item.id: (item.class_name or NULL, item.status) for item in (objects or {}).values()}
        for item, status in (statuses or {}).items():
            self._values[item] = (self._values[item][0], status)

    def write(self, path: Path, task: QgsTask) -> None:
        """Write a GeoPackage that the engine reads. On a thread of the background.

        Raises:
            Cancelled: by the task.
            RequestFailed: it cannot be written.
        """
        try:
            write_input(self, path, self._records, self._context, task)
        except QgsProcessingException as error:
            raise RequestFailed(str(error), _REFUSED) from error
        if task.isCanceled():
            raise Cancelled("cancelled")

    # What `write_input` asks of a source of features.

    def fields(self) -> QgsFields:
        return self._fields

    def sourceCrs(self) -> QgsCoordinateReferenceSystem:
        return self._crs

    def sourceName(self) -> str:
        return self.name

    def getFeatures(self) -> Iterator[QgsFeature]:
        places = self._fields.indexOf("class"), self._fields.indexOf("status")
        for feature in self._source.getFeatures():
            if self._only is not None and feature.id() not in self._only:
                continue
            for place, value in zip(places, self._values.get(feature.id(), ())):
                feature.setAttribute(place, value)
            yield feature
