"""A whole layer of polygons as a GeoPackage, with the records of the runs that it comes from."""

import json
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pyogrio
import pyogrio.errors

from rs4d_core.errors import LayerError
from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER, RUN_FIELD
from rs4d_core.scenes.writers import geopackage


@dataclass(frozen=True)
class WrittenLayer:
    """What reached a file.

    Attributes:
        output: the file.
        instances: how many are in it, counted in the file itself.
        by_class: how many of each class; those without one are not among them.
        notes: what was repaired, left out or assumed, one sentence each.
    """

    output: Path
    instances: int
    by_class: dict[str, int]
    notes: tuple[str, ...]


def read_runs(path: Path, frame: gpd.GeoDataFrame) -> pd.DataFrame:
    """The records of the runs that the features come from, oldest first; of all runs, where there are no features.

    Raises LayerError for records that rs4d has not written.
    """
    try:
        runs = pyogrio.read_dataframe(path, layer=geopackage.RUNS_TABLE)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError):
        # No other format than GeoPackage holds this table.
        runs = None
    if runs is None or RUN_FIELD not in frame or not set(geopackage.RUN_FIELDS) <= set(runs.columns):
        return pd.DataFrame(columns=list(geopackage.RUN_FIELDS))
    if len(frame):
        runs = runs[runs["run"].isin(frame[RUN_FIELD].dropna())]
    for run, parameters, scene in zip(runs["run"], runs["parameters"], runs["scene"], strict=True):
        if not (_are_parameters(parameters) and isinstance(scene, str)):
            raise LayerError(
                f"{path}: the record of run {run} is damaged: delete it from the table {geopackage.RUNS_TABLE}"
            )
    return runs.sort_values("time").reset_index(drop=True)


def _are_parameters(text: object) -> bool:
    try:
        read = json.loads(text)
        kinds = {"least_scores": dict, "bands": list, "resolution_m": int | float}
        return all(read.get(name) is None or isinstance(read[name], kind) for name, kind in kinds.items())
    except (TypeError, ValueError, AttributeError, RecursionError):
        return False


def write_layer(path: Path, frame: gpd.GeoDataFrame, runs: pd.DataFrame) -> None:
    """A new GeoPackage with the result layer and, where there are any, the table of runs."""
    pyogrio.write_dataframe(
        frame,
        path,
        layer=RESULT_LAYER,
        driver="GPKG",
        geometry_type="MultiPolygon",
        promote_to_multi=True,
        dataset_options={"VERSION": geopackage.GEOPACKAGE_VERSION},
        layer_options={"FID": _unused("fid", frame), "GEOMETRY_NAME": _unused("geom", frame)},
    )
    if len(runs):
        pyogrio.write_dataframe(runs, path, layer=geopackage.RUNS_TABLE, driver="GPKG")


def count_layer(path: Path) -> int:
    """Features that really are in the result layer of a GeoPackage."""
    return pyogrio.read_info(path, layer=RESULT_LAYER, force_feature_count=True)["features"]


def _unused(name: str, frame: gpd.GeoDataFrame) -> str:
    """A name for a column of the format's own, which the layer has no field of."""
    taken = {str(column).lower() for column in frame.columns}
    while name in taken:
        name += "_"
    return name
