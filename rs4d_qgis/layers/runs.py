"""The table `runs` of a GeoPackage: how its results came about, as the engine writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsVectorFileWriter,
)

from rs4d_qgis.compat import FIELD_REAL, FIELD_TEXT, NO_GEOMETRY

RUNS_TABLE = "runs"
RUN_FIELDS = {
    "run": FIELD_TEXT,
    "time": FIELD_TEXT,
    "model": FIELD_TEXT,
    "model_sha256": FIELD_TEXT,
    "parameters": FIELD_TEXT,
    "scene": FIELD_TEXT,
    "device": FIELD_TEXT,
    "seconds": FIELD_REAL,
}


def write_runs(path: Path, records: list[dict[str, Any]]) -> str | None:
    """Writes the table `runs` of a GeoPackage, which is made where it is missing, and replaces one that is there.

    Returns:
        What went wrong, None where nothing did.
    """
    fields = QgsFields()
    for name, kind in RUN_FIELDS.items():
        fields.append(QgsField(name, kind))
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "GPKG"
    options.layerName = RUNS_TABLE
    if path.exists():
        options.actionOnExistingFile = QgsVectorFileWriter.CreateOrOverwriteLayer
    writer = QgsVectorFileWriter.create(
        str(path), fields, NO_GEOMETRY, QgsCoordinateReferenceSystem(), QgsCoordinateTransformContext(), options
    )
    for record in records:
        feature = QgsFeature(fields)
        feature.setAttributes([_plain(record[name]) for name in RUN_FIELDS])
        writer.addFeature(feature)
    error = writer.errorMessage() if writer.hasError() else None
    del writer
    return error


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
