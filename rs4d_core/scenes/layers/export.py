"""Write a result layer, as reviewed and edited, in another format."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import shapely
from affine import Affine
from pyproj import CRS

from rs4d_core.errors import LayerError, OptionError, OutputError
from rs4d_core.interruption import stop_if
from rs4d_core.scenes.layers.layer_file import WrittenLayer, count_layer, read_runs, write_layer
from rs4d_core.scenes.layers.vector_layer import VectorLayer, read_vector_layer
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.writers import RunRecord, coco, formats, geopackage
from rs4d_core.scenes.writers.replacement import Replacement, output_errors
from rs4d_core.scenes.writers.shapefile import existing_parts, move_shapefile, write_shapefile
from rs4d_core.wording import counted

PENDING = "pending"
ACCEPTED = "accepted"
SHAPEFILE = ".shp"


def export_layer(
    source: str | Path,
    output: Path,
    accepted: bool = False,
    scene: Path | str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> WrittenLayer:
    """Write the instances of a result layer to `output`, whose suffix picks the format, with all their fields.

    GeoJSON comes in longitude and latitude, COCO in pixels of the scene, all else in the layer's CRS. An existing file
    is replaced, save a GeoPackage, which may hold other results, and a Shapefile, which is several files: these are
    refused. What a Shapefile cannot hold is cut, and told in the notes.

    Args:
        source: a result layer (see `read_vector_layer`).
        accepted: leave out what a review has not accepted.
        scene: for COCO, the scene whose pixels count. By default the one that the layer's runs name; a layer without a
            record of its runs needs one.
        cancelled: asked between the steps of the work.

    Raises:
        OptionError: there is no such format.
        LayerError: the layer cannot be read, is no result layer, or lacks what the format needs.
        SceneError: COCO was asked for, and the scene cannot be read.
        OutputError: the file cannot be written. Nothing is left behind, and an existing file is intact.
        CancelledError: `cancelled` said so, and as for OutputError.
    """
    suffix = output.suffix.lower()
    if suffix not in _COUNTERS:
        raise OptionError(f"{output}: no format is known by the ending {suffix!r}: use one of {', '.join(_COUNTERS)}")
    if suffix == ".gpkg" and output.exists():
        raise OutputError(f"{output} is there already, and may hold other results: choose another name")
    if suffix == SHAPEFILE and (there := existing_parts(output)):
        raise OutputError(
            f"{there[0]} is there already, and a Shapefile's files cannot be replaced: choose another name"
        )
    layer = read_vector_layer(source)
    frame = result_frame(layer)
    if accepted:
        frame = frame[frame["status"] == ACCEPTED].reset_index(drop=True)
    runs = read_runs(layer.path, frame)
    image = None
    if suffix == ".json":
        image = _image(layer.source, frame, runs, scene)
        frame = _in_image(layer.source, frame, image)
    notes = list(layer.notes)
    replacement = Replacement(output)
    try:
        with output_errors(output):
            staged, target = replacement.part(".gpkg"), replacement.part(suffix)
            stop_if(cancelled)
            write_layer(staged, frame, runs)
            stop_if(cancelled)
            if image is not None:
                coco.write_coco(staged, target, looked_for(runs, frame), None, image.record)
            elif suffix == SHAPEFILE:
                notes += write_shapefile(staged, target)
            elif suffix in _CONVERTERS:
                _CONVERTERS[suffix](staged, target)
            found = _COUNTERS[suffix](target)
            if found != len(frame):
                raise OSError(f"{found} of {counted(len(frame), 'instance')} reached the file")
            stop_if(cancelled)
            if suffix == SHAPEFILE:
                move_shapefile(target, replacement.path)
            else:
                replacement.take_place(target)
    finally:
        replacement.clear()
    return WrittenLayer(output, found, dict(Counter(frame["class"].dropna()).most_common()), tuple(notes))


@dataclass(frozen=True)
class _Image:
    """A scene as COCO's one image: the record with its pixels, and its CRS."""

    record: RunRecord
    crs: CRS | None


def result_frame(layer: VectorLayer) -> gpd.GeoDataFrame:
    """The features with the fields of a result layer. What was drawn by hand may lack values.

    Raises:
        LayerError: it is no result layer.
    """
    frame = layer.frame
    missing = [field for field in geopackage.FIELDS if field not in frame]
    if missing:
        raise LayerError(
            f"{layer.source}: not a result layer (it lacks {', '.join(missing)}); name a file that `rs4d segment` wrote"
        )
    return frame.assign(status=frame["status"].fillna(PENDING), edited=frame["edited"].eq(True))


def looked_for(runs: pd.DataFrame, frame: gpd.GeoDataFrame) -> list[str]:
    """The classes that the runs looked for, in the model's order, then those that were given by hand."""
    found = [name for text in runs["parameters"] for name in json.loads(text).get("least_scores", ())]
    return list(dict.fromkeys([*found, *sorted(frame["class"])]))


def _image(source: str, frame: gpd.GeoDataFrame, runs: pd.DataFrame, scene: Path | str | None) -> _Image:
    """The image of the newest run, which its record describes best."""
    nameless = int(frame["class"].isna().sum())
    if nameless:
        raise LayerError(
            f"{source}: {counted(nameless, 'instance')} without a class, and COCO needs one: set it in the layer"
        )
    if scene is None and runs.empty:
        raise LayerError(f"{source}: it holds no record of its runs, and COCO counts the pixels of a scene: name it")
    scenes = list(runs["scene"].unique())
    if scene is None and len(scenes) > 1:
        raise LayerError(f"{source}: instances of {len(scenes)} scenes, and COCO counts the pixels of one: name it")
    told = ("run", "time", "model", "model_sha256", "device")
    # Nobody knows what found the objects of a layer without runs.
    newest = {**dict.fromkeys(told, ""), "parameters": "{}"} if runs.empty else runs.iloc[-1]
    with Scene.open(scene or scenes[0]) as opened:
        record = RunRecord(
            **{name: newest[name] for name in told},
            parameters=json.loads(newest["parameters"]),
            scene=str(opened.path),
            scene_width=opened.source_width,
            scene_height=opened.source_height,
            scene_transform=tuple(opened.source_transform)[:6],
        )
        return _Image(record, None if opened.crs_wkt is None else CRS.from_wkt(opened.crs_wkt))


def _in_image(source: str, frame: gpd.GeoDataFrame, image: _Image) -> gpd.GeoDataFrame:
    """The features in the scene's CRS, all of which must lie in the scene."""
    if (frame.crs is None) != (image.crs is None):
        raise LayerError(
            f"{source}: only one of the layer and the scene {image.record.scene} has a CRS: name its scene"
        )
    if frame.crs is not None:
        frame = frame.to_crs(image.crs)
    pixels = shapely.transform(
        frame.geometry.to_numpy(), lambda x, y: ~Affine(*image.record.scene_transform) @ (x, y), interleaved=False
    )
    within = shapely.intersects(pixels, shapely.box(0, 0, image.record.scene_width, image.record.scene_height))
    if not within.all():
        raise LayerError(
            f"{source}: {(~within).sum()} of {counted(len(frame), 'instance')} outside of the scene "
            f"{image.record.scene}: name the scene that the layer was made from"
        )
    return frame


_CONVERTERS = {
    ".geojson": formats.write_geojson,
    ".fgb": formats.write_flatgeobuf,
    ".parquet": formats.write_geoparquet,
}
_COUNTERS = {
    ".gpkg": count_layer,
    ".geojson": formats.count_ogr,
    ".fgb": formats.count_ogr,
    ".parquet": formats.count_geoparquet,
    ".json": coco.count_coco,
    SHAPEFILE: formats.count_ogr,
}
