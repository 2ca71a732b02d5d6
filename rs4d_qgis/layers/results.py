"""The layer that a run becomes: its fields and features, its look, its place in the layer tree, and its provenance."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsEditorWidgetSetup,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsFillSymbol,
    QgsGeometry,
    QgsLayerMetadata,
    QgsLayerTreeGroup,
    QgsPalLayerSettings,
    QgsProject,
    QgsRendererCategory,
    QgsTextBufferSettings,
    QgsTextFormat,
    QgsVectorLayer,
    QgsVectorLayerSimpleLabeling,
)
from qgis.PyQt.QtCore import QByteArray
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.compat import FIELD_BOOLEAN, FIELD_REAL, FIELD_TEXT
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.statuses import PENDING, STATUSES
from rs4d_qgis.translation import tr

FIELDS = {
    "class": FIELD_TEXT,
    "score": FIELD_REAL,
    "status": FIELD_TEXT,
    "edited": FIELD_BOOLEAN,
    "area_m2": FIELD_REAL,
    "run": FIELD_TEXT,
}

# Scores are to be read where single objects are, and would hide them further out.
LABELS_FROM_SCALE = 1000.0
OTHER_COLOR = "#808080"
_FILL_OPACITY = 0.25
_OUTLINE_MM = 0.5
_PROPERTY = "rs4d/run"


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


def style_result(layer: QgsVectorLayer, colors: dict[str, str]) -> None:
    """Gives a result layer its look: a colour a class ("#rrggbb"), scores as labels where the map is close.

    What has a class without a colour, as after an edit, is grey.
    """
    categories = [QgsRendererCategory(name, _symbol(color), class_label(name)) for name, color in colors.items()]
    categories.append(QgsRendererCategory(None, _symbol(OTHER_COLOR), tr("other")))
    layer.setRenderer(QgsCategorizedSymbolRenderer("class", categories))
    layer.setLabeling(_score_labels())
    layer.setLabelsEnabled(True)
    layer.setDisplayExpression('"class" || \' \' || format_number("score", 2)')
    status = layer.fields().indexOf("status")
    if status >= 0:
        choices = [{word: word} for word in STATUSES]
        layer.setEditorWidgetSetup(status, QgsEditorWidgetSetup("ValueMap", {"map": choices}))
    layer.triggerRepaint()


def add_to_group(layer: QgsVectorLayer, group_name: str) -> QgsLayerTreeGroup:
    """Puts a layer on top of the layer tree, in a group of this name, which is made where it is missing.

    The layer is added to the project, or moved where it is there already.
    """
    project = QgsProject.instance()
    root = project.layerTreeRoot()
    group = root.findGroup(group_name) or root.insertGroup(0, group_name)
    there = root.findLayer(layer.id())
    if there is None:
        if project.mapLayer(layer.id()) is None:
            project.addMapLayer(layer, False)
        node = group.insertLayer(0, layer)
    elif there.parent() is group:
        node = there
    else:
        node = there.clone()
        group.insertChildNode(0, node)
        there.parent().removeChildNode(there)
    node.setCustomProperty("showFeatureCount", True)
    return group


def result_name(scene: str, began: datetime) -> str:
    """What to call the result of a run on a layer of this name."""
    return tr("{} instances {}").format(scene, began.strftime("%H:%M"))


def step_back(layer: QgsVectorLayer) -> None:
    """Makes room for a new result: earlier ones of its scene fold, and are unticked where they lie under it.

    Only groups that hold nothing but results of that scene are touched. To be called before the layer is shown.
    """
    scene = provenance(layer)["scene"]
    for group in QgsProject.instance().layerTreeRoot().findGroups():
        layers = [node.layer() for node in group.findLayers()]
        if not layers or not all(isinstance(earlier, QgsVectorLayer) for earlier in layers):
            continue
        if all((provenance(earlier) or {}).get("scene") == scene for earlier in layers):
            group.setExpanded(False)
            if any(earlier.extent().intersects(layer.extent()) for earlier in layers):
                group.setItemVisibilityChecked(False)


def set_provenance(layer: QgsVectorLayer, record: dict[str, Any]) -> None:
    """Writes the record of the run into the layer's metadata, for people, and into a property, for `provenance`.

    Args:
        record: of the engine's `segment`: run, time, model, model_sha256, parameters, scene, device; and `seconds`.
    """
    layer.setCustomProperty(_PROPERTY, json.dumps(record))
    metadata = QgsLayerMetadata(layer.metadata())
    metadata.setType("dataset")
    metadata.setTitle(layer.name())
    metadata.setIdentifier(record["run"])
    metadata.setCrs(layer.crs())
    metadata.setAbstract(
        tr("Instances that RS4D found in {}, with model {}. They are predictions: review them before use.").format(
            record["scene"], record["model"]
        )
    )
    metadata.setHistory(
        [
            tr("Run {} of {}, on {}, {:.1f} s").format(
                record["run"], record["time"], record["device"], record["seconds"]
            ),
            tr("Scene: {}").format(record["scene"]),
            tr("Model: {}, SHA-256 {}").format(record["model"], record["model_sha256"]),
            tr("Parameters: {}").format(json.dumps(record["parameters"], ensure_ascii=False)),
        ]
    )
    layer.setMetadata(metadata)


def provenance(layer: QgsVectorLayer) -> dict[str, Any] | None:
    """The record that `set_provenance` wrote; None where there is none."""
    try:
        record = json.loads(layer.customProperty(_PROPERTY) or "null")
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"run", "parameters", "scene"} <= record.keys() else None


def _symbol(color: str) -> QgsFillSymbol:
    inside = QColor(color)
    inside.setAlphaF(_FILL_OPACITY)
    return QgsFillSymbol.createSimple(
        {
            "color": ",".join(str(part) for part in inside.getRgb()),
            "outline_color": color,
            "outline_width": str(_OUTLINE_MM),
            "outline_width_unit": "MM",
            "joinstyle": "miter",
        }
    )


def _score_labels() -> QgsVectorLayerSimpleLabeling:
    text = QgsTextFormat()
    text.setSize(8)
    text.setColor(QColor("#202020"))
    halo = QgsTextBufferSettings()
    halo.setEnabled(True)
    halo.setSize(0.8)
    halo.setColor(QColor("#ffffff"))
    text.setBuffer(halo)
    labels = QgsPalLayerSettings()
    labels.setFormat(text)
    labels.fieldName = 'format_number("score", 2)'
    labels.isExpression = True
    labels.scaleVisibility = True
    labels.minimumScale = LABELS_FROM_SCALE
    labels.maximumScale = 0.0
    return QgsVectorLayerSimpleLabeling(labels)
