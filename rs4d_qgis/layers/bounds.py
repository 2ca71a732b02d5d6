"""Where a rectangle of one CRS lies in another."""

from __future__ import annotations

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsProject,
    QgsRectangle,
)


def bounds_in(
    there: QgsCoordinateReferenceSystem, rectangle: QgsRectangle, crs: QgsCoordinateReferenceSystem
) -> QgsRectangle | None:
    """What encloses a rectangle of `crs` in the CRS `there`; None where that is not defined, as at the poles.

    To a metre or so. Without a CRS on either side, the coordinates are taken to be the same.
    """
    transform = QgsCoordinateTransform(crs, there, QgsProject.instance().transformContext())
    transform.setBallparkTransformsAreAppropriate(True)  # so rough is fine: nobody needs to be warned
    try:
        return transform.transformBoundingBox(rectangle)
    except QgsCsException:
        return None
