"""Layers to review: rectangles on a grid, in UTM."""

from pathlib import Path

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)

from rs4d_qgis.layers.results import result_fields

WEST, NORTH = 440_000, 4_640_000
CLASSES = ("building", "ship", "vehicle")


def write_layer(path: Path, number: int, driver: str = "GPKG") -> None:
    """`number` rectangles of 12 x 8 m: classes in turn, scores from 0.2 up in steps of 0.005, all pending."""
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = driver
    options.layerName = "instances"
    writer = QgsVectorFileWriter.create(
        str(path),
        result_fields(),
        QgsWkbTypes.MultiPolygon,
        QgsCoordinateReferenceSystem("EPSG:32631"),
        QgsCoordinateTransformContext(),
        options,
    )
    for item in range(number):
        feature = QgsFeature(result_fields())
        x, y = WEST + 20 * (item % 10), NORTH - 20 * (item // 10)
        feature.setGeometry(
            QgsGeometry.fromWkt(f"MultiPolygon((({x} {y},{x + 12} {y},{x + 12} {y - 8},{x} {y - 8},{x} {y})))")
        )
        feature.setAttributes([CLASSES[item % 3], 0.2 + item / 200, "pending", False, 96.0, "made"])
        assert writer.addFeature(feature)
    del writer


def opened(path: Path) -> QgsVectorLayer:
    """The layer of a file."""
    layer = QgsVectorLayer(f"{path}|layername=instances", path.stem, "ogr")
    assert layer.isValid()
    return layer


def statuses(layer: QgsVectorLayer) -> dict[int, str]:
    """Of each object."""
    return {feature.id(): feature["status"] for feature in layer.getFeatures()}


def contents(layer: QgsVectorLayer) -> list[tuple]:
    """Attributes and the exact outline of each object."""
    return sorted(
        (feature.id(), *feature.attributes(), bytes(feature.geometry().asWkb())) for feature in layer.getFeatures()
    )
