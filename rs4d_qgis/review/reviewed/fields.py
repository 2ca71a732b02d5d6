"""The fields that a layer needs to be reviewed."""

from __future__ import annotations

from qgis.core import (
    NULL,
    QgsFeatureRequest,
    QgsField,
    QgsVectorDataProvider,
    QgsVectorLayer,
)

from rs4d_qgis.compat import FIELD_TEXT
from rs4d_qgis.layers.area import GroundArea
from rs4d_qgis.layers.results import FIELDS
from rs4d_qgis.layers.statuses import PENDING
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr

# Of the formats of files, those in which one decision changes one row. Others are written anew, and forget fields that
# hold nothing yet.
_CHANGED_IN_PLACE = {"GPKG", "SQLite", "ESRI Shapefile"}
_TEXTS, _NUMBERS = ("class", "status"), ("score", "area_m2")
# So many at a time are written.
_BATCH = 5000


def missing_fields(layer: QgsVectorLayer) -> list[str]:
    """Names of the design's fields that a layer has not."""
    there = layer.fields().names()
    return [name for name in FIELDS if name not in there]


def unfit_fields(layer: QgsVectorLayer) -> list[str]:
    """Names of the design's fields that a layer has for something else: no text, or no numbers, can be in them."""
    kinds = {name: layer.fields().field(name) for name in FIELDS if name in layer.fields().names()}
    return [
        name
        for name, field in kinds.items()
        if (name in _TEXTS and field.type() != FIELD_TEXT) or (name in _NUMBERS and not field.isNumeric())
    ]


def add_review_fields(layer: QgsVectorLayer) -> None:
    """Add what `missing_fields` tells, in the file itself: status pending, not edited, area as measured; else empty.

    Raises:
        ReviewRefused: the layer, its file or its format does not allow it.
    """
    missing = missing_fields(layer)
    provider = layer.dataProvider()
    wanted = QgsVectorDataProvider.Capability.AddAttributes | QgsVectorDataProvider.Capability.ChangeAttributeValues
    if layer.isEditable() and layer.isModified():
        raise ReviewRefused(tr("Save or discard the edits of {} first").format(layer.name()))
    # To most formats these are the same name: they would refuse ours, or give it another one.
    in_the_way = [name for name in layer.fields().names() if name.lower() in missing]
    if in_the_way:
        raise ReviewRefused(
            tr("{} has {} where a review needs {}: rename that first").format(
                layer.name(), ", ".join(in_the_way), ", ".join(name.lower() for name in in_the_way)
            )
        )
    rewritten = provider.name() == "ogr" and provider.storageType() not in _CHANGED_IN_PLACE
    if rewritten or layer.readOnly() or provider.capabilities() & wanted != wanted:
        why = (
            tr("{} is written anew with each change").format(provider.storageType())
            if rewritten
            else tr("it is read-only")
        )
        raise ReviewRefused(
            tr("No field can be added to {}: {}. Save it as a GeoPackage, and review that").format(layer.name(), why)
        )
    if not provider.addAttributes([QgsField(name, FIELDS[name]) for name in missing]):
        raise ReviewRefused(tr("No field could be added to {}: {}").format(layer.name(), _reason(provider)))
    layer.updateFields()
    _fill(layer, missing)


def _fill(layer: QgsVectorLayer, added: list[str]) -> None:
    index = {name: layer.fields().indexOf(name) for name in added}
    start = {index[name]: value for name, value in (("status", PENDING), ("edited", False)) if name in index}
    area = GroundArea(layer)
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([])
    if "area_m2" not in index:
        request.setFlags(QgsFeatureRequest.Flag.NoGeometry)
    values = {}
    for feature in layer.getFeatures(request):
        values[feature.id()] = dict(start)
        if "area_m2" in index:
            measured = area.square_metres(feature.geometry())
            values[feature.id()][index["area_m2"]] = NULL if measured is None else measured
    ids = list(values)
    for first in range(0, len(ids), _BATCH):
        batch = {item: values[item] for item in ids[first : first + _BATCH]}
        if not layer.dataProvider().changeAttributeValues(batch):
            raise ReviewRefused(
                tr("The fields were added to {}, but not all could be filled: {}").format(
                    layer.name(), _reason(layer.dataProvider())
                )
            )
    layer.triggerRepaint()


def _reason(provider: QgsVectorDataProvider) -> str:
    errors = provider.errors()
    return errors[-1] if errors else tr("its file cannot be written")
