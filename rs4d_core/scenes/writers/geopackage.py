"""The result layer in a GeoPackage: `instances`, and the table `runs` beside it."""

import hashlib
import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyogrio
import shapely
from pyogrio import raw
from pyogrio.errors import DataSourceError
from pyproj import CRS

from rs4d_core.errors import OutputError
from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER, crs_name
from rs4d_core.scenes.writers.records import Feature, RunRecord

FIELDS = ("class", "score", "status", "edited", "area_m2", "run")
RUNS_TABLE = "runs"
NOT_READ_LAYER = "not_read"
RUN_FIELDS = ("run", "time", "model", "model_sha256", "parameters", "scene", "device", "seconds")

_DELETE_RUN = {
    RESULT_LAYER: "DELETE FROM instances WHERE run = ?",
    RUNS_TABLE: "DELETE FROM runs WHERE run = ?",
    NOT_READ_LAYER: "DELETE FROM not_read WHERE run = ?",
}

# QGIS before 3.26 reads no newer version without a warning.
GEOPACKAGE_VERSION = "1.2"

BATCH = 2000


def create_layer(path: Path, crs_wkt: str | None) -> None:
    """A GeoPackage with an empty result layer, spatially indexed."""
    _write_features(path, crs_wkt, [], run="", append=False)


def append_features(path: Path, crs_wkt: str | None, features: Sequence[Feature], run: str) -> None:
    """Add instances, all pending and not edited, to the result layer."""
    _write_features(path, crs_wkt, features, run, append=True)


def add_run(path: Path, record: RunRecord, seconds: float) -> None:
    """Add a run to the table `runs`, which has no geometry, and is made where it is missing."""
    values = (
        record.run,
        record.time,
        record.model,
        record.model_sha256,
        json.dumps(record.parameters),
        record.scene,
        record.device,
    )
    raw.write(
        path,
        geometry=None,
        field_data=[*(np.array([value], dtype=object) for value in values), np.array([seconds])],
        fields=RUN_FIELDS,
        layer=RUNS_TABLE,
        driver="GPKG",
        geometry_type=None,
        crs=None,
        append=RUNS_TABLE in _layers(path),
    )


def add_not_read(path: Path, crs_wkt: str | None, polygons: Sequence[shapely.Polygon], run: str) -> None:
    """Add the parts of the scene that a run could not read to the layer `not_read`, which is made where missing."""
    raw.write(
        path,
        geometry=shapely.to_wkb(np.array(polygons, dtype=object)),
        field_data=[np.full(len(polygons), run, dtype=object)],
        fields=("run",),
        layer=NOT_READ_LAYER,
        driver="GPKG",
        geometry_type="Polygon",
        crs=crs_wkt,
        append=NOT_READ_LAYER in _layers(path),
    )


def run_digest(path: Path, run: str) -> str | None:
    """SHA-256 of all instances of a run as they are in the file; None where it has no such run.

    Whoever has reviewed, changed, added or deleted one of them has changed it.
    """
    with closing(sqlite3.connect(path)) as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {RESULT_LAYER, RUNS_TABLE} <= tables:
            return None
        if not database.execute("SELECT COUNT(*) FROM runs WHERE run = ?", (run,)).fetchone()[0]:
            return None
        digest = hashlib.sha256()
        # All columns, whatever they are called: their names are the file's, and no part of a query.
        for values in database.execute("SELECT * FROM instances WHERE run = ? ORDER BY rowid", (run,)):
            digest.update(repr(values).encode())
        return digest.hexdigest()


def remove_run(path: Path, run: str) -> None:
    """Take out a run, with its instances."""
    with closing(sqlite3.connect(path)) as database, database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        for table, query in _DELETE_RUN.items():
            if table in tables:
                database.execute(query, (run,))


def check_can_append(existing: Path, staged: Path) -> None:
    """See that the staged result layer can be added to an existing file.

    Both have been through GDAL, so equal CRSs are spelled alike even where they have no code.

    Raises:
        OutputError: the file is no GeoPackage, or has a layer of another CRS or with other fields under our name.
    """
    try:
        layers = _layers(existing)
        driver = pyogrio.read_info(existing, layer=next(iter(layers)))["driver"] if layers else "GPKG"
    except DataSourceError as error:
        if _is_raster_only(existing):
            return
        raise OutputError(f"{existing} is there already and is no GeoPackage: choose another name") from error
    if driver != "GPKG":
        raise OutputError(f"{existing} is there already and is no GeoPackage but {driver}: choose another name")
    for layer, needed in ((RESULT_LAYER, FIELDS), (RUNS_TABLE, RUN_FIELDS), (NOT_READ_LAYER, ("run",))):
        if layer not in layers:
            continue
        info = pyogrio.read_info(existing, layer=layer)
        missing = [field for field in needed if field not in info["fields"]]
        if missing:
            raise OutputError(
                f"{existing} has a layer {layer!r} that was not made by this program (it lacks {', '.join(missing)}): "
                "choose another file"
            )
        if layer == RESULT_LAYER:
            there, here = info["crs"], pyogrio.read_info(staged, layer=RESULT_LAYER)["crs"]
            if not _same_crs(there, here):
                raise OutputError(
                    f"{existing} holds instances in {_crs_name(there)}, and these are in {_crs_name(here)}: "
                    "write them to another file"
                )


def snapshot(existing: Path, copy: Path) -> None:
    """A copy of a GeoPackage that another program may have open, with what it has not yet written to the main file."""
    with closing(sqlite3.connect(f"{existing.as_uri()}?mode=rw", uri=True)) as source:
        source.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with closing(sqlite3.connect(copy)) as target:
            source.backup(target)
            # One file from here on, without a journal beside it.
            target.execute("PRAGMA journal_mode=DELETE")


def state(path: Path) -> tuple:
    """What changes when anyone writes to a GeoPackage: of the file and its write-ahead log, place, size and time."""
    found = []
    for file in (path, Path(f"{path}-wal"), Path(f"{path}-journal")):
        with suppress(FileNotFoundError):
            status = os.stat(file)
            if status.st_size:
                found.append((file.name, status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def drop_log(path: Path) -> None:
    """Remove the write-ahead log of the file that `path` has just replaced: SQLite would play it into the new one."""
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError, PermissionError):
            os.unlink(f"{path}{suffix}")


def merge(staged: Path, target: Path, run: str) -> None:
    """Add the staged instances to the result layer of `target`, which is made where missing, as those of `run`."""
    with pyogrio.open_arrow(staged, layer=RESULT_LAYER, use_pyarrow=True, batch_size=BATCH) as (meta, batches):
        batches = pa.RecordBatchReader.from_batches(batches.schema, (_of_run(batch, run) for batch in batches))
        pyogrio.write_arrow(
            batches,
            target,
            layer=RESULT_LAYER,
            driver="GPKG",
            geometry_name=meta["geometry_name"],
            geometry_type="MultiPolygon",
            crs=meta["crs"],
            append=target.exists(),
        )


def count_features(path: Path, run: str) -> int:
    """Instances of a run that really are in the file, which is checked for damage."""
    with closing(sqlite3.connect(path)) as database:
        (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)
        return database.execute("SELECT COUNT(*) FROM instances WHERE run = ?", (run,)).fetchone()[0]


def count_all(path: Path) -> tuple[int, int]:
    """Runs and instances in a result file, those of all runs together."""
    with closing(sqlite3.connect(path)) as database:
        queries = ("SELECT COUNT(*) FROM runs", "SELECT COUNT(*) FROM instances")
        return tuple(database.execute(query).fetchone()[0] for query in queries)


def _of_run(batch: pa.RecordBatch, run: str) -> pa.RecordBatch:
    place = batch.schema.get_field_index("run")
    field = batch.schema.field(place)
    return batch.set_column(place, field, pa.array([run] * len(batch), field.type))


def _write_features(path: Path, crs_wkt: str | None, features: Sequence[Feature], run: str, append: bool) -> None:
    count = len(features)
    geometry = np.empty(count, dtype=object)
    geometry[:] = [shapely.to_wkb(feature.geometry) for feature in features]
    raw.write(
        path,
        geometry=geometry,
        field_data=[
            np.array([feature.class_name for feature in features], dtype=object),
            np.array([feature.score for feature in features], dtype=float),
            np.full(count, "pending", dtype=object),
            np.zeros(count, dtype=bool),
            np.array([feature.area_m2 for feature in features], dtype=float),
            np.full(count, run, dtype=object),
        ],
        fields=FIELDS,
        layer=RESULT_LAYER,
        driver="GPKG",
        geometry_type="MultiPolygon",
        crs=crs_wkt,
        append=append,
        dataset_options=None if append else {"VERSION": GEOPACKAGE_VERSION},
    )


def _layers(path: Path) -> list[str]:
    return [name for name, _ in pyogrio.list_layers(path)]


def _is_raster_only(path: Path) -> bool:
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
        return database.execute("SELECT COUNT(*) FROM gpkg_contents").fetchone()[0] > 0
    return False


def _same_crs(there: str | None, here: str | None) -> bool:
    if there is None or here is None or there == here:
        return there == here
    return CRS.from_user_input(there).equals(CRS.from_user_input(here), ignore_axis_order=True)


def _crs_name(crs: str | None) -> str:
    return crs_name(None if crs is None else CRS.from_user_input(crs))
