"""Layers without a CRS, as scenes without one give them.

GeoPackages cannot say so: what GDAL writes in its place, QGIS and older GDALs take for a CRS, even for degrees.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from qgis.core import QgsCoordinateReferenceSystem, QgsVectorLayer

# What GDAL writes since 3.9, and the engine reads as no CRS.
_ROW = (
    "Undefined SRS",
    99999,
    "GDAL",
    99999,
    'LOCAL_CS["Undefined SRS",LOCAL_DATUM["unknown",32767],UNIT["unknown",0],AXIS["Easting",EAST],'
    'AXIS["Northing",NORTH]]',
    "Custom undefined coordinate reference system",
)


def real_crs(crs: QgsCoordinateReferenceSystem) -> QgsCoordinateReferenceSystem:
    """The CRS; an invalid one where it only says that there is none."""
    return QgsCoordinateReferenceSystem() if crs.description().startswith("Undefined ") else crs


def forget_undefined_crs(layer: QgsVectorLayer) -> None:
    """Lets a layer of a file without a CRS have none in QGIS either, so that it lies on its scene."""
    if not real_crs(layer.crs()).isValid():
        layer.setCrs(QgsCoordinateReferenceSystem())


def mark_without_crs(path: Path) -> None:
    """Says in a GeoPackage that its layers have no CRS. Nothing must have it open."""
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT OR IGNORE INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", _ROW)
        database.execute("UPDATE gpkg_contents SET srs_id = 99999 WHERE srs_id IN (0, -1)")
        database.execute("UPDATE gpkg_geometry_columns SET srs_id = 99999 WHERE srs_id IN (0, -1)")
