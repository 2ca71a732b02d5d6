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
    QgsProviderRegistry,
    QgsVectorFileWriter,
    QgsVectorLayer,
)

from rs4d_qgis.compat import FIELD_REAL, FIELD_TEXT, NO_GEOMETRY
from rs4d_qgis.layers.results import provenance

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


def read_runs(layer: QgsVectorLayer) -> list[dict[str, Any]]:
    """The records of the runs that a layer's polygons come from: those in its GeoPackage, else that of its metadata."""
    path = layer.source().split("|")[0]
    if layer.providerType() == "ogr" and path.lower().endswith(".gpkg") and _has_runs(path):
        table = QgsVectorLayer(f"{path}|layername={RUNS_TABLE}", RUNS_TABLE, "ogr")
        if set(RUN_FIELDS) <= set(table.fields().names()):
            return [{name: row[name] for name in RUN_FIELDS} for row in table.getFeatures()]
    record = provenance(layer)
    return [record] if record else []


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
        options.actionOnExistingFile = QgsVectorFileWriter.ActionOnExistingFile.CreateOrOverwriteLayer
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


def _has_runs(path: str) -> bool:
    # Asked first, since opening a table that is not there is logged as an error.
    return any(layer.name() == RUNS_TABLE for layer in QgsProviderRegistry.instance().querySublayers(path))


def _plain(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value
