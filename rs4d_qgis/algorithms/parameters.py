"""Parameters as the engine takes them."""

from __future__ import annotations

from qgis.core import QgsCoordinateReferenceSystem, QgsFeatureRequest, QgsGeometry, QgsProcessingFeatureSource

from rs4d_qgis.compat import POLYGON_GEOMETRY


def class_names(text: str) -> list[str] | None:
    """Names of classes with commas between them, as a list; None for none."""
    return [name.strip() for name in text.split(",") if name.strip()] or None


def wkt(crs: QgsCoordinateReferenceSystem) -> str | None:
    """A CRS for the engine; None where there is none."""
    return crs.toWkt(QgsCoordinateReferenceSystem.WKT_PREFERRED) if crs.isValid() else None


def dissolved(source: QgsProcessingFeatureSource) -> QgsGeometry:
    """The polygons of a source as one polygon or multipolygon, flat and straight; empty where there is none."""
    request = QgsFeatureRequest().setSubsetOfAttributes([])
    shapes = []
    for feature in source.getFeatures(request):
        if feature.hasGeometry():
            shape = QgsGeometry(feature.geometry().constGet().segmentize())
            shapes.append(shape if shape.isGeosValid() else shape.makeValid())
    whole = QgsGeometry.unaryUnion(shapes)
    # What a repair leaves of a polygon may be a collection, with lines in it.
    whole.convertGeometryCollectionToSubclass(POLYGON_GEOMETRY)
    if whole.isEmpty():
        return QgsGeometry()
    whole.get().dropZValue()
    whole.get().dropMValue()
    return whole
