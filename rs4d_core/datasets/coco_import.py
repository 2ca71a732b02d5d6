"""Bring data sets in COCO form into the layout of prepared ones.

What makes a file as a whole doubtful is an error: cut-off JSON, ids used twice, unknown classes, annotations of images
that it does not list. What is amiss with one image or one object costs that image or object, and is counted.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from rs4d_core.datasets.coco import annotation_of
from rs4d_core.datasets.coco_records import ImageRecord, check_class_map, class_names, read_content, read_records
from rs4d_core.datasets.findings import CUT, DROPPED, IMAGE, OBJECT, REPAIRED, Finding
from rs4d_core.datasets.outlines import box_of, clean_rings
from rs4d_core.datasets.pictures import read_picture
from rs4d_core.datasets.places import Split, places_in_names, split_images, split_tiles
from rs4d_core.datasets.preparation import Description, Labelled, Preparation, Prepared, file_stamp
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.datasets.world_files import files_beside
from rs4d_core.errors import DatasetError
from rs4d_core.wording import counted


@dataclass(frozen=True)
class CocoPart:
    """A COCO file and the folder of its images. `split`: where they go; None is to be split."""

    annotations: Path
    images: Path
    split: str | None = None


@dataclass(frozen=True)
class CocoSource:
    """A data set in COCO form.

    Attributes:
        parts: its files.
        classes: the known classes, in the wanted order; empty takes those of the files, in their order.
        class_map: names in the files -> names to use.
        place: a regular expression for the place x, y in file names, in pixels: what is to be split is split by place.
            None splits by image.
    """

    parts: tuple[CocoPart, ...]
    classes: tuple[str, ...] = ()
    class_map: dict[str, str] = field(default_factory=dict)
    place: str | None = None


@dataclass(frozen=True, eq=False)
class _Entry:
    """One image of one part, and its name in the data set."""

    part: CocoPart
    record: ImageRecord
    name: str

    @property
    def file(self) -> Path:
        return self.part.images / self.record.file_name


def prepare_coco(
    source: CocoSource,
    split: Split,
    folder: Path,
    describe: Callable[[tuple[str, ...]], Description],
    progress: Callable[[list], Iterable] = iter,
) -> Prepared:
    """Prepare a data set in COCO form.

    Args:
        split: of the parts that do not say theirs.
        folder: where the data set is to be.
        describe: gives the description, from the classes.
        progress: goes over the images, to show how far the work is.

    Raises:
        DatasetError: a file is broken or of unknown classes, `class_map` names a category that no file has, or no image
            is there.
        OptionError: `place` is no expression for places.
        OutputError: the data set cannot be written.
    """
    contents = [read_content(part.annotations) for part in source.parts]
    check_class_map({part.annotations: c for part, c in zip(source.parts, contents, strict=True)}, source.class_map)
    classes = source.classes or _classes(source, contents)
    entries = [
        entry
        for part, content in zip(source.parts, contents, strict=True)
        for entry in _entries(part, read_records(part.annotations, content, classes, source.class_map)[0])
    ]
    if not entries:
        raise DatasetError(f"{source.parts[0].annotations} lists no image: there is nothing to prepare")
    present = [entry for entry in entries if os.path.isfile(entry.file)]
    if not present:
        raise DatasetError(
            f"{source.parts[0].annotations}: none of its {counted(len(entries), 'image')} is in "
            f"{source.parts[0].images}; give the folder that holds them"
        )
    here = set(present)
    findings = [
        Finding(IMAGE, DROPPED, "no such file", entry.record.where, str(entry.file))
        for entry in entries
        if entry not in here
    ]
    splits = _splits(source, present, len(classes), split)
    description = describe(classes)
    if source.place is None and any(entry.part.split is None for entry in present):
        note = "split by image, as nothing tells where the images lie"
        description = replace(description, notes=(*description.notes, note))
    files = [file_stamp(part.annotations) for part in source.parts]
    plan = {"kind": "coco", "files": files, "source": asdict(source), "split": asdict(split), "classes": classes}
    with Preparation(folder, plan) as preparation:
        for entry, chosen in progress(list(zip(present, splits, strict=True))):
            if chosen is None:
                findings.append(Finding(IMAGE, DROPPED, "too near to what is held back", entry.record.where))
            else:
                preparation.take(chosen, entry.name, lambda entry=entry: _labelled(entry))
        return preparation.finish(description, findings)


def _classes(source: CocoSource, contents: list[dict[str, list]]) -> tuple[str, ...]:
    """The classes of the files, in their order."""
    names = dict.fromkeys(
        name
        for part, content in zip(source.parts, contents, strict=True)
        for name in class_names(part.annotations, content, source.class_map)
    )
    if not names:
        raise DatasetError(f"{source.parts[0].annotations}: lists no category; export the annotations again")
    return tuple(names)


def _entries(part: CocoPart, records: list[ImageRecord]) -> Iterable[_Entry]:
    names: dict[str, int] = {}
    for record in records:
        # One folder holds them all, and no name leads out of it.
        parts = record.file_name.replace("\\", "/").split("/")
        name = "__".join(part for part in parts if part not in ("", ".", ".."))
        if not name:
            raise DatasetError(f"{record.where} has the file name '{record.file_name}'; correct it")
        if name in names:
            raise DatasetError(
                f"{record.where} is the file '{record.file_name}', as image {names[name]} is; list each file once"
            )
        names[name] = record.image_id
        yield _Entry(part, record, name)


def _splits(source: CocoSource, entries: list[_Entry], classes: int, split: Split) -> list[str | None]:
    """The split of each image; None for those left out."""
    free = [entry for entry in entries if entry.part.split is None]
    if not free:
        return [entry.part.split for entry in entries]
    chosen: list[str | None]
    if source.place is None:
        chosen = list(split_images(len(free), split))
    else:
        corners = places_in_names([entry.record.file_name for entry in free], source.place)
        sizes = np.array([(entry.record.width, entry.record.height) for entry in free], np.float64)
        counts = np.zeros((len(free), classes), int)
        for row, entry in zip(counts, free, strict=True):
            for label, number in Counter(label for label, _ in entry.record.annotations).items():
                row[label] = number
        chosen = split_tiles(np.hstack([corners, corners + sizes]), counts, float(np.median(sizes)), split)
    found = dict(zip(free, chosen, strict=True))
    return [found.get(entry, entry.part.split) for entry in entries]


def _labelled(entry: _Entry) -> tuple[Labelled | None, list[Finding]]:
    record, file = entry.record, entry.file
    try:
        read_picture(Sample(file, record.width, record.height, record.image_id, (), ()))
        content, beside = file.read_bytes(), files_beside(file)
    except (DatasetError, OSError) as error:
        return None, [Finding(IMAGE, DROPPED, "not to be read as annotated", record.where, str(error))]
    findings: list[Finding] = []
    annotations = []
    for label, raw in record.annotations:
        annotation = _annotation(raw, label, record, f"{entry.part.annotations}: annotation {raw['id']}", findings)
        if annotation is not None:
            annotations.append(annotation)
    source: dict[str, Any] = {"file": str(file), "image_id": record.image_id}
    return Labelled(content, record.width, record.height, tuple(annotations), source, beside), findings


def _annotation(
    raw: dict[str, Any], label: int, image: ImageRecord, where: str, findings: list[Finding]
) -> Annotation | None:
    try:
        annotation = annotation_of(raw, label, image.width, image.height)
    except ValueError as error:
        findings.append(Finding(OBJECT, DROPPED, "broken", where, str(error)))
        return None
    if annotation is None:
        findings.append(Finding(OBJECT, DROPPED, "outside of the image or without area", where))
        return None
    if annotation.polygons is None:
        return annotation
    rings, repaired, cut = clean_rings(annotation.polygons, image.width, image.height)
    if not rings:
        findings.append(Finding(OBJECT, DROPPED, "outside of the image or without area", where))
        return None
    if repaired:
        findings.append(Finding(OBJECT, REPAIRED, "invalid outline", where))
    if cut:
        findings.append(Finding(OBJECT, CUT, "over the edge of the image", where))
    return replace(annotation, polygons=rings, box_xyxy=box_of(rings))
