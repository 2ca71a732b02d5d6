"""Read instance annotations in COCO's JSON format, and say clearly where a file breaks it."""

import os
import sys
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from rs4d_core.datasets.coco_records import ImageRecord, read_content, read_records
from rs4d_core.datasets.run_lengths import checked_rle
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.errors import DatasetError

# An outline may reach over the image's edge. One this many times as far is a mistake, and would cost the rasteriser
# memory in proportion.
_FAR_OUTSIDE = 10
# Points of an outline: a hundred times what the longest have, and what takes seconds to be looked at.
_MOST_POINTS = 1_000_000


def read_coco(
    annotations: Path, images: Path, classes: tuple[str, ...], class_map: dict[str, str] | None = None
) -> list[Sample]:
    """Read a COCO instance file.

    Outlines may be polygons or run lengths, compressed or not. An annotation with a box but no outline (`segmentation`
    absent or empty) is kept with its box only. `iscrowd: 1` marks a region to ignore. What lies outside the image is
    cut off; an annotation of which nothing is left, and one whose box has no area, is dropped.

    Args:
        annotations: the JSON file.
        images: the folder that the file's `file_name`s are relative to.
        classes: the classes to read for; an annotation's label is its class's place in them.
        class_map: names in the file to names in `classes`, where they differ.

    Returns:
        One sample for each image of the file, in the file's order, also for images without annotations.

    Raises:
        DatasetError: the file is missing, is not COCO, contradicts itself, names a class that is not in `classes`, or
            lists an image that is not there. The message names the file and the annotation or image.
    """
    annotations, images = Path(annotations), Path(images)
    records, annotated = read_records(annotations, read_content(annotations), tuple(classes), class_map or {})
    return [read_sample(annotations, images, record, annotated) for record in records]


def read_sample(path: Path, folder: Path, image: ImageRecord, annotated: tuple[bool, ...]) -> Sample:
    """One image of `read_coco`.

    Args:
        path: of the file that lists it, for messages.
        folder: of the images.
        annotated: for each class whether the file has a category for it.

    Raises:
        DatasetError: the image is not there, or one of its annotations is broken.
    """
    file = folder / image.file_name
    if not os.path.isfile(file):  # Path.is_file raises where a name is too long or a folder closed
        raise DatasetError(f"{image.where}: there is no file {file}; give the folder that holds the images")
    found = []
    for label, record in image.annotations:
        try:
            annotation = annotation_of(record, label, image.width, image.height)
        except ValueError as error:
            raise DatasetError(f"{path}: annotation {record['id']}: {error}; correct or remove it") from None
        if annotation is not None:
            found.append(annotation)
    return Sample(file, image.width, image.height, image.image_id, tuple(found), annotated)


def annotation_of(record: dict, label: int, width: int, height: int) -> Annotation | None:
    """An annotation of an image of `width` x `height` pixels, or None where nothing of it lies inside the image.

    Raises:
        ValueError: with what is wrong.
    """
    crowd = record.get("iscrowd", 0)
    if crowd not in (0, 1):
        raise ValueError(f"'iscrowd' is {crowd!r}, neither 0 nor 1")
    given_box = _box(record["bbox"]) if "bbox" in record else None
    segmentation = record.get("segmentation") or None
    polygons = rle = None
    if segmentation is None:
        if given_box is None:
            raise ValueError("it has neither 'bbox' nor 'segmentation'")
        box = given_box
    elif isinstance(segmentation, list):
        polygons = tuple(_polygon(ring) for ring in segmentation)
        points = np.concatenate(polygons)
        if np.abs(points).max() > _FAR_OUTSIDE * max(width, height):
            raise ValueError(
                f"a polygon reaches {np.abs(points).max():.3g} pixels far, the image is {width} x {height}"
            )
        box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
    elif isinstance(segmentation, dict):
        rle = checked_rle(segmentation, width, height)
        left, top, box_width, box_height = mask_utils.toBbox(rle).tolist()
        box = (left, top, left + box_width, top + box_height)
    else:
        raise ValueError(f"'segmentation' is a {type(segmentation).__name__}, not a list or an object")
    x0, y0, x1, y1 = max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height))
    if x1 <= x0 or y1 <= y0:
        return None
    return Annotation(label, (x0, y0, x1, y1), polygons, rle, bool(crowd))


def _is_finite_number(value: object) -> bool:
    # Compared, not converted: an integer of JSON may be too large for a float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _box(bbox: object) -> tuple[float, float, float, float]:
    """Corners x0, y0, x1, y1 from COCO's x, y, width, height."""
    if not (isinstance(bbox, list) and len(bbox) == 4 and all(map(_is_finite_number, bbox))):
        raise ValueError(f"'bbox' is {bbox!r:.80}, not four finite numbers x, y, width, height")
    x, y, width, height = map(float, bbox)
    if width < 0 or height < 0:
        raise ValueError(f"'bbox' has a negative width or height ({width:g} x {height:g})")
    return x, y, x + width, y + height


def _polygon(ring: object) -> np.ndarray:
    """`(K, 2)` float64 from COCO's flat x, y list."""
    if not isinstance(ring, list):
        raise ValueError(f"a polygon is a {type(ring).__name__}, not a list of numbers x1, y1, x2, y2, ...")
    if len(ring) % 2 or len(ring) < 6:
        raise ValueError(f"a polygon has {len(ring)} numbers; it needs an even count of 6 or more")
    if len(ring) > 2 * _MOST_POINTS:
        raise ValueError(f"a polygon has {len(ring) // 2} points, more than any outline needs")
    if not all(map(_is_finite_number, ring)):
        raise ValueError("a polygon holds something that is not a finite number")
    return np.array(ring, np.float64).reshape(-1, 2)
