"""Outlines between shapely's geometry and COCO's forms."""

from typing import Any

import numpy as np
import shapely
from pycocotools import mask as mask_utils
from shapely import MultiPolygon

from rs4d_core.datasets.sample import Annotation
from rs4d_core.scenes.polygons.areal import multipolygons, repair
from rs4d_core.scenes.writers.coco import without_holes

# COCO files hold hundredths of a pixel.
STEP_PX = 0.01
DECIMALS = 2


def rings_of(outline: MultiPolygon) -> tuple[np.ndarray, ...]:
    """Rings `(K, 2)` of hundredths of pixels whose union is the outline; holes are cut open, as COCO's polygons have
    none. None where nothing of that size is left."""
    pieces = [piece for polygon in outline.geoms for piece in without_holes(polygon)]
    # Rounded so that what is valid stays so.
    rounded = shapely.get_parts(shapely.get_parts(shapely.set_precision(pieces, STEP_PX)))
    return tuple(shapely.get_coordinates(piece.exterior)[:-1] for piece in rounded if piece.area > 0)


def clean_rings(rings: tuple[np.ndarray, ...], width: int, height: int) -> tuple[tuple[np.ndarray, ...], bool, bool]:
    """The union of rings `(K, 2)` as valid rings inside an image of `width` x `height` pixels.

    Returns:
        The rings, none where no area is left; whether something was repaired; whether something was cut off at the
        image's edge.
    """
    polygons = np.array(shapely.polygons([shapely.linearrings(np.round(ring / STEP_PX) * STEP_PX) for ring in rings]))
    box = shapely.box(0, 0, width, height)
    repaired = bool(repair(polygons))
    cut = not bool(shapely.covered_by(polygons, box).all())
    if repaired or cut:
        return rings_of(multipolygons([shapely.union_all(shapely.intersection(polygons, box))])[0]), repaired, cut
    return (rings if shapely.area(polygons).sum() > 0 else ()), False, False


def annotation_record(annotation: Annotation, width: int, height: int) -> dict[str, Any]:
    """An annotation of an image of `width` x `height` pixels as COCO has it, less ids: segmentation, bbox, area,
    iscrowd, and `label`."""
    left, top, right, bottom = annotation.box_xyxy
    if annotation.polygons is not None:
        segmentation: Any = [np.round(ring.ravel(), DECIMALS).tolist() for ring in annotation.polygons]
        runs = mask_utils.merge(mask_utils.frPyObjects(segmentation, height, width))
        area = float(mask_utils.area(runs))
    elif annotation.rle is not None:
        segmentation = {"size": list(annotation.rle["size"]), "counts": annotation.rle["counts"].decode("ascii")}
        area = float(mask_utils.area(annotation.rle))
    else:
        segmentation, area = [], (right - left) * (bottom - top)
    return {
        "label": annotation.label,
        "segmentation": segmentation,
        "bbox": [round(value, DECIMALS) for value in (left, top, right - left, bottom - top)],
        "area": round(area, DECIMALS),
        "iscrowd": int(annotation.crowd),
    }


def box_of(rings: tuple[np.ndarray, ...]) -> tuple[float, float, float, float]:
    """The tight box x0, y0, x1, y1 of rings `(K, 2)`."""
    points = np.concatenate(rings)
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
