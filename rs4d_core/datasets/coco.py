"""Read instance annotations in COCO's JSON format, and say clearly where a file breaks it."""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pycocotools import mask as mask_utils

from rs4d_core.datasets.run_lengths import checked_rle
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.errors import DatasetError

# An outline may reach over the image's edge. One this many times as far is a mistake, and would cost the rasteriser
# memory in proportion.
_FAR_OUTSIDE = 10


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
    content = load_content(annotations)
    labels = _category_labels(annotations, content["categories"], tuple(classes), class_map or {})
    annotated = tuple(label in labels.values() for label in range(len(classes)))
    entries = _images(annotations, content["images"], images)
    by_image: dict[int, list[Annotation]] = {image_id: [] for image_id in entries}
    seen = set()
    for record in content["annotations"]:
        check_id(annotations, "annotation", record, seen)
        where = f"{annotations}: annotation {record['id']}"
        image = entries.get(required(where, record, "image_id", int))
        if image is None:
            raise DatasetError(
                f"{where} is for image {record['image_id']}, which the file does not list; add the image or remove "
                "the annotation"
            )
        label = labels.get(required(where, record, "category_id", int))
        if label is None:
            raise DatasetError(
                f"{where} is of category {record['category_id']}, which the file does not list; its categories are "
                f"{sorted(labels)}"
            )
        try:
            annotation = annotation_of(record, label, image.width, image.height)
        except ValueError as error:
            raise DatasetError(f"{where}: {error}; correct or remove it") from None
        if annotation is not None:
            by_image[record["image_id"]].append(annotation)
    return [
        Sample(entry.path, entry.width, entry.height, image_id, tuple(by_image[image_id]), annotated)
        for image_id, entry in entries.items()
    ]


@dataclass(frozen=True)
class _Image:
    path: Path
    width: int
    height: int


def load_content(path: Path) -> dict:
    """The content of a COCO file: an object with the lists images, annotations and categories. Raises DatasetError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file; give the path of a COCO annotation file") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror}); give a COCO annotation file") from None
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise DatasetError(f"{path}: not JSON ({error}); export the annotations as COCO JSON again") from None
    except RecursionError:
        raise DatasetError(f"{path}: JSON nested too deeply to be COCO; export the annotations again") from None
    if not isinstance(content, dict):
        raise DatasetError(
            f"{path}: holds a {type(content).__name__}, not an object with images, annotations and categories; "
            "is it an instance annotation file of COCO?"
        )
    for key in ("images", "annotations", "categories"):
        if key not in content:
            raise DatasetError(f"{path}: has no '{key}'; is it an instance annotation file of COCO?")
        if not isinstance(content[key], list):
            raise DatasetError(
                f"{path}: '{key}' is a {type(content[key]).__name__}, not a list; export the annotations again"
            )
    return content


def required(where: str, record: dict, key: str, kind: type):
    """The value of a record's required key; `where` names the record. Raises DatasetError."""
    if key not in record:
        raise DatasetError(f"{where} has no '{key}'; add it")
    if type(record[key]) is not kind:  # not isinstance, as JSON's true is a Python int
        wanted = {int: "a whole number", str: "text"}[kind]
        raise DatasetError(f"{where}: '{key}' is {record[key]!r}, not {wanted}; correct it")
    return record[key]


def check_id(path: Path, what: str, record: object, seen: set[int]) -> None:
    """Add the record's id to those `seen`. Raises DatasetError where it has none, or it is taken."""
    if not isinstance(record, dict):
        raise DatasetError(f"{path}: {what} number {len(seen) + 1} is {record!r:.60}, not an object; correct it")
    identity = required(f"{path}: {what} number {len(seen) + 1}", record, "id", int)
    if identity in seen:
        raise DatasetError(f"{path}: the {what} id {identity} is used twice; give each {what} its own id")
    seen.add(identity)


def _category_labels(
    path: Path, categories: list, classes: tuple[str, ...], class_map: dict[str, str]
) -> dict[int, int]:
    """Category id -> label."""
    labels, seen = {}, set()
    for record in categories:
        check_id(path, "category", record, seen)
        name = required(f"{path}: category {record['id']}", record, "name", str)
        known = class_map.get(name, name)
        if known not in classes:
            mapped = f" (mapped to '{known}')" if known != name else ""
            raise DatasetError(
                f"{path}: category '{name}'{mapped} is not a known class; map it to one of {', '.join(classes)}"
            )
        labels[record["id"]] = classes.index(known)
    return labels


def _images(path: Path, records: list, folder: Path) -> dict[int, _Image]:
    """Image id -> image, in the file's order."""
    entries, seen = {}, set()
    for record in records:
        check_id(path, "image", record, seen)
        where = f"{path}: image {record['id']}"
        width, height = required(where, record, "width", int), required(where, record, "height", int)
        if width <= 0 or height <= 0:
            raise DatasetError(f"{where} is {width} x {height} pixels; give its true width and height")
        file = folder / required(where, record, "file_name", str)
        if not os.path.isfile(file):  # Path.is_file raises where a name is too long or a folder closed
            raise DatasetError(f"{where}: there is no file {file}; give the folder that holds the images")
        entries[record["id"]] = _Image(file, width, height)
    return entries


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
    if not all(map(_is_finite_number, ring)):
        raise ValueError("a polygon holds something that is not a finite number")
    return np.array(ring, np.float64).reshape(-1, 2)
