"""A finished result layer in other formats. Instances pass through in batches, whatever their number."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
import pyogrio
from pyproj import CRS

from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER
from rs4d_core.scenes.writers.geopackage import BATCH

# To seven decimals, as RFC 7946 advises, GDAL repairs what is no longer valid. That takes a tenth of a second for an
# outline of 4000 points that rounding has cross itself throughout, and minutes for one of 20 000.
MOST_POINTS_ROUNDED = 5000
_POINT_BYTES = 16


def write_flatgeobuf(staged: Path, target: Path) -> None:
    """FlatGeobuf with a spatial index, in the scene's CRS."""
    _write_ogr(staged, target, "FlatGeobuf", {})


def write_geojson(staged: Path, target: Path) -> None:
    """GeoJSON as RFC 7946 wants it: longitude and latitude on WGS 84, to a centimetre, or exactly where an outline has
    very many points. Without a CRS, or in one that has no place on the Earth, coordinates stay as they are."""
    options = {}
    crs = pyogrio.read_info(staged, layer=RESULT_LAYER)["crs"]
    if crs is not None and CRS.from_user_input(crs).geodetic_crs is not None:
        options["RFC7946"] = "YES"
        if _largest_bytes(staged) > MOST_POINTS_ROUNDED * _POINT_BYTES:
            options["COORDINATE_PRECISION"] = "15"  # all that a number holds
    _write_ogr(staged, target, "GeoJSON", options)


def write_geoparquet(staged: Path, target: Path) -> None:
    """GeoParquet 1.1 in the scene's CRS. Written with pyarrow: the wheels of pyogrio come without GDAL's driver."""
    with pyogrio.open_arrow(staged, layer=RESULT_LAYER, use_pyarrow=True, batch_size=BATCH) as (meta, batches):
        crs = None if meta["crs"] is None else CRS.from_user_input(meta["crs"]).to_json_dict()
        column = {"encoding": "WKB", "geometry_types": ["MultiPolygon"], "crs": crs}
        geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
        names = ["geometry" if name == meta["geometry_name"] else name for name in batches.schema.names]
        fields = [pa.field(name, field.type) for name, field in zip(names, batches.schema, strict=True)]
        schema = pa.schema(fields, metadata={"geo": json.dumps(geo)})
        with pa.parquet.ParquetWriter(target, schema) as file:
            for batch in batches:
                file.write_batch(pa.RecordBatch.from_arrays(batch.columns, schema=schema))


def count_ogr(path: Path) -> int:
    """Features in a file that GDAL reads. Its drivers do not report every failed write; a short file shows here."""
    return pyogrio.read_info(path, force_feature_count=True)["features"]


def count_geoparquet(path: Path) -> int:
    """Rows of a Parquet file, from its end: a cut file has none."""
    return pa.parquet.read_metadata(path).num_rows


def _largest_bytes(staged: Path) -> int:
    """Of the instances' geometries, as WKB."""
    with pyogrio.open_arrow(staged, layer=RESULT_LAYER, columns=[], use_pyarrow=True, batch_size=BATCH) as (
        meta,
        found,
    ):
        sizes = (pa.compute.max(pa.compute.binary_length(batch[meta["geometry_name"]])).as_py() for batch in found)
        return max((size for size in sizes if size is not None), default=0)


def _write_ogr(staged: Path, target: Path, driver: str, layer_options: dict[str, str]) -> None:
    with pyogrio.open_arrow(staged, layer=RESULT_LAYER, use_pyarrow=True, batch_size=BATCH) as (meta, batches):
        pyogrio.write_arrow(
            batches,
            target,
            layer=RESULT_LAYER,
            driver=driver,
            geometry_name=meta["geometry_name"],
            geometry_type="MultiPolygon",
            crs=meta["crs"],
            layer_options=layer_options,
        )
