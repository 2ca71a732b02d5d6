"""Objects that are there twice. The rule of the engine's runs, for layers that several runs or hands have made."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from qgis.core import QgsFeature, QgsGeometry, QgsSpatialIndex

from rs4d_qgis.review.edits.shapes import iou

# An object that has more than this share of its ground in common with better ones of its class is another view of them.
DUPLICATE_SHARE = 0.4
# Objects of two classes with this intersection over union, or more, are one thing.
ONE_THING_IOU = 0.7


def duplicates(features: Iterable[QgsFeature], rank: Callable[[QgsFeature], tuple]) -> list[int]:
    """Ids of the objects that are there already under another id that counts more.

    Args:
        features: with `class`, and shapes of any one CRS.
        rank: of two, the one with the smaller rank stays.
    """
    ordered = sorted(features, key=rank)
    place = {feature.id(): number for number, feature in enumerate(ordered)}
    index = QgsSpatialIndex()
    index.addFeatures(ordered)
    gone: set[int] = set()
    for number, feature in enumerate(ordered):
        shape = feature.geometry()
        better = [
            ordered[place[item]]
            for item in index.intersects(shape.boundingBox())
            if place[item] < number and item not in gone
        ]
        if better and _is_duplicate(feature, shape, better):
            gone.add(feature.id())
    return sorted(gone)


def _is_duplicate(feature: QgsFeature, shape: QgsGeometry, better: list[QgsFeature]) -> bool:
    own = [other.geometry() for other in better if other["class"] == feature["class"]]
    own = [other for other in own if other.intersects(shape)]
    if own and shape.intersection(QgsGeometry.unaryUnion(own)).area() > DUPLICATE_SHARE * shape.area():
        return True
    return any(iou(shape, other.geometry()) >= ONE_THING_IOU for other in better if other["class"] != feature["class"])
