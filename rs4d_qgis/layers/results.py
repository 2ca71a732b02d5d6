"""The layer that a run becomes: its fields, its look, its place in the layer tree, and where it comes from."""

from __future__ import annotations

from typing import Any

from qgis.core import QgsFeature, QgsField, QgsFields, QgsGeometry
from qgis.PyQt.QtCore import QByteArray

from rs4d_qgis.compat import FIELD_BOOLEAN, FIELD_REAL, FIELD_TEXT

FIELDS = {
    "class": FIELD_TEXT,
    "score": FIELD_REAL,
    "status": FIELD_TEXT,
    "edited": FIELD_BOOLEAN,
    "area_m2": FIELD_REAL,
    "run": FIELD_TEXT,
}
PENDING = "pending"


def result_fields() -> QgsFields:
    """The fields of a result layer, as the engine writes them."""
    fields = QgsFields()
    for name, kind in FIELDS.items():
        fields.append(QgsField(name, kind))
    return fields


def result_features(told: list[dict[str, Any]], fields: QgsFields, run: str) -> list[QgsFeature]:
    """Features of a result layer, of what the engine's notification `instances` tells: new ones, pending."""
    features = []
    for instance in told:
        feature = QgsFeature(fields)
        geometry = QgsGeometry()
        geometry.fromWkb(QByteArray.fromHex(instance["wkb"].encode()))
        feature.setGeometry(geometry)
        feature.setAttributes([instance["class"], instance["score"], PENDING, False, instance["area_m2"], run])
        features.append(feature)
    return features
