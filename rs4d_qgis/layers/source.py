"""What of a raster layer the engine can read in place, and what it needs to know of it that the file does not say."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

from osgeo import gdal, osr
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCsException,
    QgsDistanceArea,
    QgsPointXY,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)

from rs4d_qgis.layers.bounds import bounds_in
from rs4d_qgis.layers.errors import RenderError
from rs4d_qgis.translation import tr

_OPTION_MARK = "|option:"
# These live in the memory of this process, where the engine cannot see them.
_MEMORY_MARKS = ("/vsimem/", "MEM:::")
# GDAL's drivers for web services: pictures to be fetched, with care for the server, rather than a file to be read.
_SERVICES = frozenset({"WMS", "WMTS", "WCS", "HTTP", "PLMOSAIC", "EEDAI", "NGW", "DAAS", "OGCAPI"})


@dataclass(frozen=True)
class SceneSource:
    """A raster that the engine can read.

    Attributes:
        path: a file, or a name that GDAL understands.
        temporary: it was made for a run, and goes with it.
        notes: what the user should know of it, one sentence each.
    """

    path: str
    temporary: bool
    notes: tuple[str, ...] = ()


def local_file(layer: QgsRasterLayer) -> str | None:
    """The GDAL source that the engine can read in place: a file, a part of one, one in an archive. None for others."""
    if layer.providerType() != "gdal" or is_in_memory(layer):
        return None
    source = layer.source().split(_OPTION_MARK)[0]
    dataset = _opened(source, _open_options(layer))
    if dataset is None or dataset.GetDriver().ShortName in _SERVICES:
        return None
    return source


def is_web_picture(layer: QgsRasterLayer) -> bool:
    """Whether a service draws this layer at whatever resolution it is asked for, as it has none of its own."""
    return layer.providerType() in ("wms", "arcgismapserver")


def is_in_memory(layer: QgsRasterLayer) -> bool:
    """Whether this is a GDAL raster in the memory of this process."""
    return layer.providerType() == "gdal" and any(mark in layer.source() for mark in _MEMORY_MARKS)


def layer_of_file(path: str) -> QgsRasterLayer | None:
    """The project's layer of a raster file: it may know what the file does not say."""
    rasters = (each for each in QgsProject.instance().mapLayers().values() if isinstance(each, QgsRasterLayer))
    return next((each for each in rasters if _file(each.source()) == _file(path)), None)


def scene_source(layer: QgsRasterLayer, folder: Path) -> SceneSource | None:
    """The layer as the engine can read it in place; None where it must be rendered. Quick: no pixel is read.

    The file itself, where that says all. Otherwise a small VRT in `folder`, which refers to it and adds what only QGIS
    knows: a CRS or a nodata value set there, options to open it with, a place by ground control points.

    Must be called on the main thread.

    Args:
        folder: an empty one.

    Raises:
        RenderError: the VRT cannot be made.
    """
    source = local_file(layer)
    if source is None:
        return None
    options = _open_options(layer)
    dataset = _opened(source, options)
    notes: list[str] = []
    changes = _set_in_qgis(layer, dataset, notes)
    by_points = _placed_by_points(dataset) and layer.crs().isValid()
    if not (by_points or changes or options or source.lstrip().startswith("<")):
        return SceneSource(os.path.abspath(source) if os.path.exists(source) else source, False)
    # By the name of the file, which COCO tells. GDAL knows a VRT by what is in it.
    vrt = folder / (os.path.basename(source) if os.path.isfile(source) else "scene.vrt")
    made = dataset
    try:
        if by_points:
            # As QGIS shows it. The engine follows an affine map only.
            placed, srs = folder / "placed.vrt" if changes else vrt, _srs(layer.dataProvider().crs())
            made = gdal.Warp(str(placed), dataset, format="VRT", dstSRS=srs, dstAlpha=True)
            notes.append(tr("placed by its ground control points or camera model, as on the map"))
        if made is not None and (changes or not by_points):
            made = gdal.Translate(str(vrt), made, format="VRT", **changes)
    except RuntimeError:  # where another plugin has switched GDAL to exceptions
        made = None
    if made is None:
        raise RenderError(tr("Layer “{}” cannot be read in its place: {}").format(layer.name(), gdal.GetLastErrorMsg()))
    made.FlushCache()
    return SceneSource(str(vrt), True, tuple(notes))


def _file(source: str) -> str:
    return os.path.abspath(source.split(_OPTION_MARK)[0])


def _opened(source: str, options: list[str]) -> gdal.Dataset | None:
    try:
        return gdal.OpenEx(source, gdal.OF_RASTER, open_options=options)
    except RuntimeError:  # where another plugin has switched GDAL to exceptions
        return None


def _open_options(layer: QgsRasterLayer) -> list[str]:
    return layer.source().split(_OPTION_MARK)[1:]


def _set_in_qgis(layer: QgsRasterLayer, dataset: gdal.Dataset, notes: list[str]) -> dict:
    """What the user set in QGIS and the file does not say, as options of gdal.Translate."""
    changes = {}
    provider = layer.dataProvider()
    if layer.crs().isValid() and layer.crs() != provider.crs():
        changes["outputSRS"] = _srs(layer.crs())
        notes.append(tr("its CRS is {}, as set in QGIS").format(layer.crs().userFriendlyIdentifier()))
        if dataset.GetGeoTransform(can_return_null=True) is None and not dataset.GetGCPCount():
            extent = layer.extent()
            changes["outputBounds"] = [extent.xMinimum(), extent.yMaximum(), extent.xMaximum(), extent.yMinimum()]
    hidden = [_single_nodata(provider, band) for band in range(1, provider.bandCount() + 1)]
    if hidden[0] is not None and len(set(hidden)) == 1:
        changes["noData"] = hidden[0]
        notes.append(tr("pixels of value {:g} hold no data, as set in QGIS").format(hidden[0]))
    return changes


def _single_nodata(provider, band: int) -> float | None:
    """The one value that the user declared to be no data; None where there is none, or where the file says one too."""
    ranges = provider.userNoDataValues(band)
    if len(ranges) != 1 or ranges[0].min() != ranges[0].max():
        return None
    if provider.sourceHasNoDataValue(band) and provider.useSourceNoDataValue(band):
        return None
    return ranges[0].min()


def _placed_by_points(dataset: gdal.Dataset) -> bool:
    """Whether its place follows from ground control points, beyond an affine map, or a camera model."""
    if dataset.GetGeoTransform(can_return_null=True) is not None:
        return False
    if dataset.GetGCPCount() > 2:
        return gdal.GCPsToGeoTransform(dataset.GetGCPs(), False) is None
    return bool(dataset.GetMetadata("RPC"))


def _srs(crs: QgsCoordinateReferenceSystem) -> str:
    srs = osr.SpatialReference()
    srs.SetFromUserInput(crs.toWkt(QgsCoordinateReferenceSystem.WKT_PREFERRED))
    return srs.ExportToWkt(["FORMAT=WKT2_2018"])


def ground_resolution_m(
    layer: QgsRasterLayer, extent: QgsRectangle | None = None, extent_crs: QgsCoordinateReferenceSystem | None = None
) -> float | None:
    """Metres in a pixel, on the ellipsoid, in the middle of `extent` (by default the layer's).

    None where the layer has no resolution of its own, as web services, or no CRS.
    """
    across, down = layer.rasterUnitsPerPixelX(), layer.rasterUnitsPerPixelY()
    if is_web_picture(layer) or not layer.crs().isValid() or not across or not down:
        return None
    middle = _middle(layer, extent, extent_crs)
    size = pixel_size_m(layer.crs(), middle, across, down)
    return None if size is None else math.sqrt(size[0] * size[1])


def pixel_size_m(
    crs: QgsCoordinateReferenceSystem, middle: QgsPointXY, across: float, down: float
) -> tuple[float, float] | None:
    """Width and height in metres, on the ellipsoid, of a pixel of `across` x `down` units of `crs` around `middle`."""
    measure = QgsDistanceArea()
    measure.setSourceCrs(crs, QgsProject.instance().transformContext())
    if not measure.setEllipsoid(crs.ellipsoidAcronym()):
        return None
    x, y = middle.x(), middle.y()
    try:
        width = measure.measureLine(QgsPointXY(x - across / 2, y), QgsPointXY(x + across / 2, y))
        height = measure.measureLine(QgsPointXY(x, y - down / 2), QgsPointXY(x, y + down / 2))
    except QgsCsException:
        return None
    # Beyond where a CRS is defined, and in engineering CRSs, nothing is known of the ground.
    return (width, height) if all(math.isfinite(side) and side > 0 for side in (width, height)) else None


def _middle(
    layer: QgsRasterLayer, extent: QgsRectangle | None, extent_crs: QgsCoordinateReferenceSystem | None
) -> QgsPointXY:
    whole = layer.extent()
    if extent is None:
        return whole.center()
    if extent_crs is not None and extent_crs.isValid():
        extent = bounds_in(layer.crs(), extent, extent_crs)
        if extent is None:
            return whole.center()
    return whole.intersect(extent).center() if whole.intersects(extent) else whole.center()
