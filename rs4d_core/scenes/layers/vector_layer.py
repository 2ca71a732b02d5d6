"""Read a layer of polygons from any vector file."""

import os
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyogrio.errors
import pyproj
import shapely
from pyarrow import ArrowException
from pyproj.exceptions import CRSError
from shapely.errors import ShapelyError

from rs4d_core.errors import LayerError
from rs4d_core.scenes.polygons.areal import repair
from rs4d_core.wording import counted

RESULT_LAYER = "instances"
# Fields of a result layer, and what a review may have said.
CLASS_FIELD = "class"
SCORE_FIELD = "score"
STATUS_FIELD = "status"
AREA_FIELD = "area_m2"
RUN_FIELD = "run"
EDITED_FIELD = "edited"
# Each has one value.
_SINGLE = {CLASS_FIELD, SCORE_FIELD, STATUS_FIELD, AREA_FIELD, RUN_FIELD, EDITED_FIELD}
REJECTED = "rejected"
_LAYER_NAME_MARK = "|layername="
_PYOGRIO_ERRORS = (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError)


@dataclass(frozen=True)
class VectorLayer:
    """Polygons with their attributes.

    Attributes:
        source: as the user gave it.
        path: of the file.
        frame: geometry Polygon or MultiPolygon, two-dimensional, valid, not empty; index 0..N-1; with the file's CRS,
            or None.
        notes: what was repaired or left out, one sentence each.
    """

    source: str
    path: Path
    frame: gpd.GeoDataFrame
    notes: tuple[str, ...]


def read_vector_layer(source: str | Path) -> VectorLayer:
    """Read the polygons of `source`: a file, or `FILE|layername=NAME` as QGIS writes it.

    Of a file with several layers and no name given, the result layer `instances` is taken.

    Raises:
        LayerError: there is no such file or layer, it is not a vector file, or it holds geometry but no polygon.
    """
    path, layer = _split_source(str(source))
    if not os.path.exists(path):  # Path.exists raises for names that are too long, and in closed folders
        raise LayerError(f"{path}: no such file; give the path of a vector layer")
    frame = _read_parquet(path) if path.suffix.lower() in (".parquet", ".geoparquet") else _read_ogr(path, layer)
    return _polygons_only(str(source), path, frame)


def as_text(values: pd.Series) -> pd.Series:
    """A field's values as text. Whole numbers are read as fractions where one of them is missing: 1, and not 1.0."""
    if values.dtype.kind == "f":
        there = values.dropna()
        if ((there % 1 == 0) & (there.abs() < 2.0**53)).all():  # beyond, not all whole numbers are floats
            values = values.astype("Int64")
    return values.astype(object).astype(str)


def _split_source(source: str) -> tuple[Path, str | None]:
    path, mark, layer = source.partition(_LAYER_NAME_MARK)
    return Path(path), layer if mark else None


def _read_parquet(path: Path) -> gpd.GeoDataFrame:
    # The wheels of pyogrio come without GDAL's Parquet driver.
    try:
        return gpd.read_parquet(path)
    except (OSError, ValueError, TypeError, LookupError, ShapelyError, CRSError, ArrowException) as error:
        raise LayerError(f"{path}: cannot be read as GeoParquet ({_one_line(error)})") from error


def _read_ogr(path: Path, layer: str | None) -> gpd.GeoDataFrame:
    try:
        layers = dict(pyogrio.list_layers(path))
    except (*_PYOGRIO_ERRORS, RuntimeError, ValueError) as error:
        raise LayerError(
            f"{path}: not a vector layer; give a GeoPackage, GeoJSON, FlatGeobuf, Shapefile or GeoParquet"
        ) from error
    name = _choose_layer(path, layers, layer)
    try:
        # Geometries that are none, such as rings without an end, are read as missing.
        frame = pyogrio.read_dataframe(path, layer=name, on_invalid="ignore")
    except (*_PYOGRIO_ERRORS, RuntimeError, ValueError, ShapelyError, CRSError) as error:
        raise LayerError(f"{path}: layer {name!r} cannot be read ({_one_line(error)})") from error
    if not isinstance(frame, gpd.GeoDataFrame):
        raise LayerError(f"{path}: layer {name!r} has no geometry; give a layer of polygons")
    return frame


def _choose_layer(path: Path, layers: dict[str, str | None], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in layers:
            raise LayerError(f"{path}: no layer {wanted!r}; it has {', '.join(layers) or 'none'}")
        return wanted
    spatial = [name for name, kind in layers.items() if kind is not None]
    if RESULT_LAYER in spatial:
        return RESULT_LAYER
    if not spatial:
        raise LayerError(f"{path}: no layer with geometry in it; give a layer of polygons")
    if len(spatial) > 1:
        raise LayerError(
            f"{path}: {len(spatial)} layers ({', '.join(spatial)}); name one: '{path}{_LAYER_NAME_MARK}{spatial[0]}'"
        )
    return spatial[0]


def _polygons_only(source: str, path: Path, frame: gpd.GeoDataFrame) -> VectorLayer:
    notes = []
    if frame.active_geometry_name != "geometry":
        frame = frame.rename_geometry("geometry")
    for name in _SINGLE.intersection(frame.columns):
        # Some formats have lists.
        if not all(pd.api.types.is_scalar(value) for value in frame[name]):
            frame[name] = [value if pd.api.types.is_scalar(value) else str(value) for value in frame[name]]
    geometries = shapely.force_2d(frame.geometry.to_numpy())
    kinds = shapely.get_type_id(geometries)
    polygonal = np.isin(kinds, (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON))
    present = ~(shapely.is_missing(geometries) | shapely.is_empty(geometries))
    if present.any() and not (polygonal & present).any():
        raise LayerError(f"{source}: no polygon in it; give a layer of polygons")
    _note(notes, (~present).sum(), "{} without geometry left out")
    _note(notes, (present & ~polygonal).sum(), "{} that are not polygons left out")
    finite = np.isfinite(shapely.bounds(geometries)).all(axis=1)
    _note(notes, (present & polygonal & ~finite).sum(), "{} with infinite coordinates left out")
    keep = present & polygonal & finite
    geometries = geometries[keep]
    _note(notes, repair(geometries), "{} with invalid geometry repaired")
    kept = gpd.GeoDataFrame(
        pd.DataFrame(frame.drop(columns="geometry"))[keep].reset_index(drop=True), geometry=geometries, crs=frame.crs
    )
    collapsed = kept.geometry.is_empty.to_numpy()
    _note(notes, collapsed.sum(), "{} left out: nothing remained after the repair")
    return VectorLayer(
        source, path, kept[~collapsed].reset_index(drop=True), tuple(f"{source}: {note}" for note in notes)
    )


def _note(notes: list[str], count: int, text: str) -> None:
    if count:
        notes.append(text.format(counted(count, "feature")))


def crs_name(crs: pyproj.CRS | None) -> str:
    """A CRS as a person calls it."""
    if crs is None:
        return "no CRS"
    authority = crs.to_authority()
    return ":".join(authority) if authority else crs.name


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
