"""Work that is not in the layer's file yet, written down so that it can be done again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qgis.core import NULL, QgsFeature, QgsGeometry, QgsVectorLayer
from qgis.PyQt.QtCore import QByteArray


def unsaved_work(layer: QgsVectorLayer, decisions: Mapping[int, Mapping[int, Any]]) -> dict[str, Any]:
    """In JSON's kinds; empty where there is none.

    Args:
        decisions: that wait to be written: of features, by field index, the values.
    """
    names = layer.fields().names()

    def by_id(values: Mapping[int, Mapping[int, Any]]) -> dict[str, dict[str, Any]]:
        return {
            str(item): {names[index]: _plain(value) for index, value in of.items() if index < len(names)}
            for item, of in values.items()
        }

    work: dict[str, Any] = {"decisions": by_id(decisions)}
    buffer = layer.editBuffer()
    if buffer is not None:
        work["values"] = by_id(buffer.changedAttributeValues())
        work["shapes"] = {str(item): _hex(shape) for item, shape in buffer.changedGeometries().items()}
        work["removed"] = list(buffer.deletedFeatureIds())
        work["added"] = [
            {
                "shape": _hex(feature.geometry()),
                "values": {name: _plain(value) for name, value in zip(names, feature.attributes())},
            }
            for feature in buffer.addedFeatures().values()
        ]
    return {kind: what for kind, what in work.items() if what}


def redo_edits(layer: QgsVectorLayer, work: Mapping[str, Any]) -> int:
    """Make edits anew, in a layer that is being edited. What they were made on must be there still.

    Returns:
        How many objects are not there any more, so that their edits are lost.
    """
    fields = layer.fields()
    ids = {int(item) for kind in ("shapes", "values") for item in work.get(kind, {})}.union(work.get("removed", ()))
    there = {item for item in ids if layer.getFeature(item).isValid()}
    for item, shape in work.get("shapes", {}).items():
        if int(item) in there:
            layer.changeGeometry(int(item), _shape(shape))
    for item, values in work.get("values", {}).items():
        for name, value in values.items():
            if int(item) in there and fields.indexOf(name) >= 0:
                layer.changeAttributeValue(int(item), fields.indexOf(name), NULL if value is None else value)
    layer.deleteFeatures([item for item in work.get("removed", ()) if item in there])
    key = layer.primaryKeyAttributes()
    for new in work.get("added", ()):
        feature = QgsFeature(fields)
        feature.setGeometry(_shape(new["shape"]))
        for name, value in new["values"].items():
            index = fields.indexOf(name)
            if index >= 0 and index not in key:
                feature.setAttribute(index, NULL if value is None else value)
        layer.addFeature(feature)
    return len(ids - there)


def _plain(value: Any) -> Any:
    if value == NULL:
        return None
    return value if isinstance(value, (str, int, float, bool)) else str(value)


def _hex(shape: QgsGeometry) -> str:
    return bytes(shape.asWkb()).hex()


def _shape(wkb: str) -> QgsGeometry:
    shape = QgsGeometry()
    shape.fromWkb(QByteArray.fromHex(wkb.encode()))
    return shape
