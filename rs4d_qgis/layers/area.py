"""How large polygons are on the ground."""

from __future__ import annotations

from qgis.core import QgsDistanceArea, QgsGeometry, QgsProject, QgsVectorLayer

from rs4d_qgis.compat import AREA_SQUARE_METERS


class GroundArea:
    """Measures polygons of a layer on the ellipsoid, as the engine does for the field `area_m2`."""

    def __init__(self, layer: QgsVectorLayer):
        self._known = layer.crs().isValid()
        self._measure = QgsDistanceArea()
        self._measure.setSourceCrs(layer.crs(), QgsProject.instance().transformContext())
        self._measure.setEllipsoid(layer.crs().ellipsoidAcronym())

    def square_metres(self, geometry: QgsGeometry) -> float | None:
        """None where it is unknown: without a CRS, or without a shape."""
        if not self._known or geometry.isEmpty():
            return None
        return self._measure.convertAreaMeasurement(self._measure.measureArea(geometry), AREA_SQUARE_METERS)
