"""The records of a COCO file: what it lists and how that hangs together, not yet what each annotation holds."""

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from rs4d_core.errors import DatasetError

# GDAL and every reader of pictures end here.
_LARGEST_PX = 2**31 - 1


@dataclass(frozen=True, eq=False)
class ImageRecord:
    """One image of a file.

    Attributes:
        where: the record, for messages.
        image_id: as the file has it.
        file_name: as the file has it, relative to the folder of the images.
        width, height: pixels, as the file has them.
        annotations: label and record of each.
    """

    where: str
    image_id: int
    file_name: str
    width: int
    height: int
    annotations: list[tuple[int, dict[str, Any]]]


def read_content(path: Path) -> dict[str, list]:
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


def class_names(path: Path, content: dict[str, list], class_map: dict[str, str]) -> tuple[str, ...]:
    """The classes that a file's categories are mapped to, in its order. Raises DatasetError."""
    return tuple(dict.fromkeys(name for _, _, name in _categories(path, content["categories"], class_map)))


def check_class_map(contents: Mapping[Path, dict[str, list]], class_map: Mapping[str, str]) -> None:
    """See that each name that a class map renames is a category of at least one of the files of a data set.

    A misspelt one would rename nothing, without a word.

    Args:
        contents: of the files, see `read_content`.
        class_map: names in the files -> names to use.

    Raises:
        DatasetError: a name is in none of the files, or a file's categories are broken.
    """
    there = dict.fromkeys(name for path, content in contents.items() for name in class_names(path, content, {}))
    for name, target in class_map.items():
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1)
            hint = f"did you mean '{close[0]}'? " if close else ""
            raise DatasetError(
                f"{' and '.join(map(str, contents))}: no category '{name}' to call '{target}'; {hint}"
                f"there are: {', '.join(there)}"
            )


def read_records(
    path: Path, content: dict[str, list], classes: tuple[str, ...], class_map: dict[str, str]
) -> tuple[list[ImageRecord], tuple[bool, ...]]:
    """The images of a file with their annotations, in the file's order.

    Args:
        path: of the file, for messages.
        content: see `read_content`.
        classes: the known ones; labels are places in them.
        class_map: names in the file -> names in `classes`, where they differ.

    Returns:
        The images, and for each class whether the file has a category for it.

    Raises:
        DatasetError: ids are missing or used twice, a class is not known, or an annotation is of an image or category
            that the file does not list.
    """
    labels = {}
    for identity, given, name in _categories(path, content["categories"], class_map):
        if name not in classes:
            mapped = f" (mapped to '{name}')" if name != given else ""
            raise DatasetError(
                f"{path}: category '{given}'{mapped} is not a known class; map it to one of: {', '.join(classes)}"
            )
        labels[identity] = classes.index(name)
    images = {record.image_id: record for record in _images(path, content["images"])}
    seen: set[int] = set()
    for record in content["annotations"]:
        _check_id(path, "annotation", record, seen)
        where = f"{path}: annotation {record['id']}"
        image = images.get(_required(where, record, "image_id", int))
        if image is None:
            raise DatasetError(
                f"{where} is for image {record['image_id']}, which the file does not list; add the image or remove "
                "the annotation"
            )
        label = labels.get(_required(where, record, "category_id", int))
        if label is None:
            raise DatasetError(
                f"{where} is of category {record['category_id']}, which the file does not list; its categories are "
                f"{sorted(labels)}"
            )
        image.annotations.append((label, record))
    return list(images.values()), tuple(label in labels.values() for label in range(len(classes)))


def _categories(path: Path, records: list, class_map: dict[str, str]) -> Iterable[tuple[int, str, str]]:
    """Id, name in the file, and name it is mapped to."""
    seen: set[int] = set()
    for record in records:
        _check_id(path, "category", record, seen)
        name = _required(f"{path}: category {record['id']}", record, "name", str)
        yield record["id"], name, class_map.get(name, name)


def _images(path: Path, records: list) -> Iterable[ImageRecord]:
    seen: set[int] = set()
    for record in records:
        _check_id(path, "image", record, seen)
        where = f"{path}: image {record['id']}"
        width, height = _required(where, record, "width", int), _required(where, record, "height", int)
        if not (0 < width <= _LARGEST_PX and 0 < height <= _LARGEST_PX):
            raise DatasetError(f"{where} is {width!s:.20} x {height!s:.20} pixels; give its true width and height")
        name = _required(where, record, "file_name", str)
        if not _stays_inside(name):
            raise DatasetError(
                f"{where}: the file name {name!r:.100} leads out of the folder of the images; make it relative to that"
            )
        yield ImageRecord(where, record["id"], name, width, height, [])


def _stays_inside(name: str) -> bool:
    """Whether a path is one below the folder that it starts from, on any system. A file of others may name any."""
    paths = (PurePosixPath(name), PureWindowsPath(name))
    return "\0" not in name and not any(path.anchor or ".." in path.parts for path in paths)


def _required(where: str, record: dict, key: str, kind: type):
    """The value of a record's required key; `where` names the record. Raises DatasetError."""
    if key not in record:
        raise DatasetError(f"{where} has no '{key}'; add it")
    if type(record[key]) is not kind:  # not isinstance, as JSON's true is a Python int
        wanted = {int: "a whole number", str: "text"}[kind]
        raise DatasetError(f"{where}: '{key}' is {record[key]!r}, not {wanted}; correct it")
    return record[key]


def _check_id(path: Path, what: str, record: object, seen: set[int]) -> None:
    """Add the record's id to those `seen`. Raises DatasetError where it has none, or it is taken."""
    if not isinstance(record, dict):
        raise DatasetError(f"{path}: {what} number {len(seen) + 1} is {record!r:.60}, not an object; correct it")
    identity = _required(f"{path}: {what} number {len(seen) + 1}", record, "id", int)
    if identity in seen:
        raise DatasetError(f"{path}: the {what} id {identity} is used twice; give each {what} its own id")
    seen.add(identity)
