"""Any vector layer as a file that the engine reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qgis.core import (
    QgsFeature,
    QgsFeatureSource,
    QgsFields,
    QgsGeometry,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsVectorFileWriter,
)

from rs4d_qgis.compat import MULTIPOLYGON
from rs4d_qgis.layers.no_crs import mark_without_crs, real_crs
from rs4d_qgis.layers.runs import write_runs
from rs4d_qgis.translation import tr

# The name of the key in GeoPackages: made anew there, and not unique once layers have been merged.
_KEY = "fid"


def fields_without_key(fields: QgsFields) -> QgsFields:
    """All fields but the key of a GeoPackage."""
    kept = QgsFields()
    for field in fields:
        if field.name().lower() != _KEY:
            kept.append(field)
    return kept


def write_input(
    source: QgsFeatureSource,
    path: Path,
    records: list[dict[str, Any]],
    context: QgsProcessingContext,
    feedback: QgsProcessingFeedback,
) -> int:
    """Writes the polygons of a source, as they are in QGIS now, to a new GeoPackage: with unsaved edits, and only those
    that a selection or filter leaves. Curves become lines.

    Args:
        records: of the runs that they come from.

    Returns:
        How many were written; fewer than there are where the user cancelled.

    Raises:
        QgsProcessingException: they cannot be written.
    """
    fields = fields_without_key(source.fields())
    kept = [source.fields().indexOf(field.name()) for field in fields]
    crs = real_crs(source.sourceCrs())
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = "instances"
    writer = QgsVectorFileWriter.create(str(path), fields, MULTIPOLYGON, crs, context.transformContext(), options)
    count = 0
    for feature in source.getFeatures():
        if feedback.isCanceled():
            break
        copy = QgsFeature(fields)
        copy.setAttributes([feature.attribute(index) for index in kept])
        if feature.hasGeometry():
            copy.setGeometry(_plain(feature.geometry()))
        if not writer.addFeature(copy):
            break
        count += 1
    problem = writer.errorMessage() if writer.hasError() else None
    del writer
    problem = problem or (write_runs(path, records) if records else None)
    if problem:
        raise QgsProcessingException(
            tr("Layer “{}” cannot be handed to the engine: {}").format(source.sourceName(), problem)
        )
    if not crs.isValid():
        mark_without_crs(path)
    return count


def _plain(geometry: QgsGeometry) -> QgsGeometry:
    """Flat and straight."""
    plain = QgsGeometry(geometry.constGet().segmentize())
    plain.get().dropZValue()
    plain.get().dropMValue()
    plain.convertToMultiType()
    return plain
