"""A finished result layer as COCO JSON, in the pixels of the scene itself (not of the grid that the model saw)."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyogrio
import shapely
from affine import Affine

from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER
from rs4d_core.scenes.writers.geopackage import BATCH
from rs4d_core.scenes.writers.records import RunRecord


def write_coco(
    staged: Path, target: Path, classes: Sequence[str], colors: Sequence[str] | None, record: RunRecord
) -> None:
    """One image, the scene; categories numbered from 1 in the order of `classes`; the run under `info`.

    `colors`: of the categories, where they are known.
    """
    image = {
        "id": 1,
        "file_name": Path(record.scene).name,
        "width": record.scene_width,
        "height": record.scene_height,
    }
    categories = [
        {"id": number, "name": name, "supercategory": "", **({"color": colors[number - 1]} if colors else {})}
        for number, name in enumerate(classes, 1)
    ]
    head = {"info": {"run": asdict(record)}, "licenses": [], "images": [image], "categories": categories}
    with target.open("w", encoding="utf-8") as file:
        file.write(json.dumps(head)[:-1] + ', "annotations": [')
        for number, annotation in enumerate(_annotations(staged, classes, record), 1):
            file.write((",\n" if number > 1 else "\n") + json.dumps({"id": number, **annotation}))
        file.write("\n]}\n")


def count_coco(path: Path) -> int:
    """Annotations in the file: it was closed without an error, so each line that was written is there."""
    with path.open("rb") as file:
        return sum(line.startswith(b'{"id"') for line in file)


def rings(shape: shapely.MultiPolygon) -> list[list[float]]:
    """A shape in pixels as COCO's flat lists of x and y, to a hundredth of a pixel."""
    return [
        np.round(shapely.get_coordinates(piece.exterior)[:-1].ravel(), 2).tolist()
        for polygon in shape.geoms
        for piece in without_holes(polygon)
    ]


def without_holes(polygon: shapely.Polygon) -> list[shapely.Polygon]:
    """The same area as polygons without holes: COCO's polygons cannot have any. Cut through the middle of each hole."""
    if not polygon.interiors:
        return [polygon]
    left, bottom, right, top = polygon.bounds
    middle = polygon.interiors[0].centroid.x
    halves = (shapely.box(left, bottom, middle, top), shapely.box(middle, bottom, right, top))
    parts = shapely.get_parts([polygon.intersection(half) for half in halves])
    return [piece for part in parts if part.geom_type == "Polygon" for piece in without_holes(part)]


def _annotations(staged: Path, classes: Sequence[str], record: RunRecord) -> Iterator[dict]:
    to_pixels = ~Affine(*record.scene_transform)
    numbers = {name: number for number, name in enumerate(classes, 1)}
    with pyogrio.open_arrow(staged, layer=RESULT_LAYER, use_pyarrow=True, batch_size=BATCH) as (meta, batches):
        for batch in batches:
            geometries = shapely.from_wkb(batch[meta["geometry_name"]].to_numpy(zero_copy_only=False))
            shapes = shapely.transform(geometries, lambda x, y: to_pixels @ (x, y), interleaved=False)
            rows = (batch[field].to_pylist() for field in ("class", "score", "area_m2", "status", "edited"))
            for shape, name, score, area_m2, status, edited in zip(shapes, *rows, strict=True):
                left, top, right, bottom = shape.bounds
                yield {
                    "image_id": 1,
                    "category_id": numbers[name],
                    "segmentation": rings(shape),
                    "bbox": [round(value, 2) for value in (left, top, right - left, bottom - top)],
                    "area": round(shape.area, 2),
                    "iscrowd": 0,
                    "score": score,
                    "area_m2": area_m2,
                    "status": status,
                    "edited": edited,
                }
