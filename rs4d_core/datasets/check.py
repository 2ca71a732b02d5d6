"""Check a prepared data set: all that training and measuring will rely on."""

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import shapely

from rs4d_core.datasets.coco import read_sample
from rs4d_core.datasets.coco_records import read_content, read_records
from rs4d_core.datasets.pictures import read_picture
from rs4d_core.datasets.preparation import DATASET, FORMAT, IMAGES, SPLITS
from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DatasetError
from rs4d_core.wording import counted


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        folder: of the data set.
        splits: images and objects of each.
        faults: one line each; empty where all is well.
    """

    folder: Path
    splits: dict[str, dict[str, int]]
    faults: tuple[str, ...]

    @property
    def summary(self) -> str:
        """All in one line."""
        parts = [
            f"{split} {counted(part['images'], 'image')} with {counted(part['objects'], 'object')}"
            for split, part in self.splits.items()
        ]
        found = counted(len(self.faults), "fault") if self.faults else "no fault found"
        return f"{self.folder}: {', '.join(parts)}; {found}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "folder": str(self.folder), "summary": self.summary}


def check_dataset(folder: Path, progress: Callable[[list], Iterable] = iter) -> Checked:
    """Check a folder of the prepared layout: the classes are known, every image opens and is of the size its row says,
    every outline is valid, and no image is in two splits.

    Args:
        progress: goes over the images, to show how far the work is.

    Raises:
        DatasetError: the folder is no prepared data set, or one of its files as a whole cannot be read.
    """
    folder = Path(folder)
    classes = _classes(folder)
    faults: list[str] = []
    samples: list[tuple[str, Sample]] = []
    found: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        path = folder / f"{split}.json"
        if not path.is_file():
            continue
        records, annotated = read_records(path, read_content(path), classes, {})
        if records:
            found[split] = {"images": 0, "objects": 0}
        for record in records:
            try:
                samples.append((split, read_sample(path, folder / IMAGES, record, annotated)))
            except DatasetError as error:
                faults.append(str(error))
    if "train" not in found:
        raise DatasetError(f"{folder}: has no train.json with images in it; prepare the data set again")
    contents: dict[bytes, tuple[str, Sample]] = {}
    for split, sample in progress(samples):
        found[split]["images"] += 1
        found[split]["objects"] += sum(not annotation.crowd for annotation in sample.annotations)
        try:
            read_picture(sample)
            digest = hashlib.sha256(Path(sample.image).read_bytes()).digest()
        except (DatasetError, OSError) as error:
            faults.append(str(error))
            continue
        other, same = contents.setdefault(digest, (split, sample))
        if other != split:
            faults.append(f"{sample.name}: is the same image as {same.name} of another split; take one of them out")
        faults += _outline_faults(folder / f"{split}.json", sample)
    return Checked(folder, found, tuple(faults))


def _classes(folder: Path) -> tuple[str, ...]:
    try:
        about = json.loads((folder / DATASET).read_text(encoding="utf-8"))
        version, classes = about["format"], tuple(about["classes"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DatasetError(
            f"{folder}: has no readable {DATASET}, so it is no prepared data set; prepare it with training/prepare.py"
        ) from None
    if version != FORMAT:
        raise DatasetError(f"{folder}: is of format {version}, known is {FORMAT}; prepare it again")
    return classes


def _outline_faults(path: Path, sample: Sample) -> Iterable[str]:
    box = shapely.box(0, 0, sample.width, sample.height).buffer(0.01)  # the files hold hundredths
    for number, annotation in enumerate(sample.annotations, 1):
        if annotation.polygons is None:
            continue
        polygons = shapely.polygons([shapely.linearrings(ring) for ring in annotation.polygons])
        place = f"{path}: outline {number} of {Path(sample.image).name}"
        if not shapely.is_valid(polygons).all():
            yield f"{place} crosses itself; prepare the data set again"
        if not shapely.covered_by(polygons, box).all():
            yield f"{place} reaches over the edge of the image; prepare the data set again"
