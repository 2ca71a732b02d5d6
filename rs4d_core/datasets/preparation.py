"""Writing a data set in the one layout that recipes read: see docs/data.md.

    FOLDER/dataset.json     name, classes, splits with their counts, resolution, licence, citation
           train.json ...   COCO, one file a split: train, val, test
           images/train/    the images, as the files name them: "train/0001.jpg" ...
           report.json      what was left out or changed, and why

All is written into a folder beside it, `.FOLDER.part`, which gets the right name when it is whole: there is never half
a data set. A preparation that was interrupted goes on where it was, if it is asked for the very same again. One process
at a time prepares a folder.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.findings import DROPPED, IMAGE, Finding, dropped_line, tally
from rs4d_core.datasets.outlines import annotation_record
from rs4d_core.datasets.sample import Annotation
from rs4d_core.errors import DatasetError, OutputError
from rs4d_core.sole_use import sole_use
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import counted

SPLITS = ("train", "val", "test")
DATASET, REPORT, IMAGES = "dataset.json", "report.json", "images"
FORMAT = 1
_PLAN, _JOURNAL = "plan.json", "journal.jsonl"


@dataclass(frozen=True)
class Description:
    """What a prepared data set is.

    Attributes:
        name: of the data set.
        classes: in the order of the labels.
        licence, citation: as the source states them.
        resolution_m: metres a pixel, smallest and largest; None where it is unknown.
        notes: what the user should know of it, one sentence each.
    """

    name: str
    classes: tuple[str, ...]
    licence: str
    citation: str = ""
    resolution_m: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Labelled:
    """One image on its way into the data set.

    Attributes:
        content: of the image file.
        width, height: pixels.
        annotations: their labels are places in the data set's classes.
        source: where the image comes from, as plain values; goes into its row.
        beside: files that belong to it, such as a world file, by the ending that takes the place of the image's.
    """

    content: bytes
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    source: dict[str, Any]
    beside: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Prepared:
    """A data set as it was prepared.

    Attributes:
        folder: where it is.
        splits: counts of each split: images, objects, regions to ignore ("ignored"), images without an object
            ("empty"), objects by class ("by_class").
        counts: of what was left out or changed, see `findings.tally`.
        notes: of the description.
    """

    folder: Path
    splits: dict[str, dict[str, Any]]
    counts: dict[str, dict[str, int]]
    notes: tuple[str, ...]

    @property
    def summary(self) -> str:
        """All in one line."""
        parts = [
            f"{split} {counted(part['images'], 'image')} with {counted(part['objects'], 'object')}"
            for split, part in self.splits.items()
        ]
        return f"{self.folder}: {', '.join(parts)}; {dropped_line(self.counts)}"

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "folder": str(self.folder), "summary": self.summary}


class Preparation:
    """A data set that is being prepared. A context manager: what is not finished stays for the next try, unless
    nothing of it was written yet.

    Args:
        folder: where the data set is to be.
        plan: all that decides what it will hold, as plain values: inputs and options. What an earlier preparation with
            another plan left unfinished is removed.
    """

    def __init__(self, folder: Path, plan: dict[str, Any]):
        self.folder = Path(folder)
        whole = Path(os.path.abspath(self.folder))
        self._part = whole.with_name(f".{whole.name}.part")
        self._images = self._part / IMAGES
        self._plan = json.dumps({"format": FORMAT, **plan}, sort_keys=True, default=str)
        self._taken: dict[str, bool] = {}

    def __enter__(self) -> "Preparation":
        """Begin, or go on.

        Raises:
            BusyError: another process prepares the same folder.
            OutputError: the folder is there already, or nothing can be written beside it.
        """
        with ExitStack() as held:
            try:
                self._part.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise self._unwritable(error) from error
            held.enter_context(self._alone())
            if os.path.lexists(self.folder) and not _is_empty_folder(self.folder):
                raise OutputError(f"{self.folder} is there already: choose another folder, or move it away first")
            try:
                if _read_text(self._part / _PLAN) != self._plan:
                    shutil.rmtree(self._part, ignore_errors=True)
                    self._part.mkdir()
                    write_whole(self._part / _PLAN, self._plan.encode())
                self._taken = self._read_journal()
                self._journal = held.enter_context((self._part / _JOURNAL).open("a", encoding="utf-8"))
            except OSError as error:
                raise self._unwritable(error) from error
            self._held = held.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        with self._held:
            self._journal.close()
            if self._part.exists() and not self._taken:
                shutil.rmtree(self._part, ignore_errors=True)

    def take(self, split: str, name: str, make: Callable[[], tuple[Labelled | None, list[Finding]]]) -> bool:
        """Add an image, unless an earlier try has done so.

        Args:
            split: of SPLITS.
            name: of its file; unique in its split.
            make: gives the image, or None where it is to be left out, and what was found about it.

        Returns:
            Whether it is in the data set.

        Raises:
            OutputError: it cannot be written.
        """
        key = f"{split}/{name}"
        if key not in self._taken:
            labelled, findings = make()
            entry: dict[str, Any] = {"key": key, "findings": [asdict(finding) for finding in findings]}
            try:
                if labelled is not None:
                    self._write_image(key, labelled)
                    entry |= {"sha256": sha256(labelled.content).hexdigest(), **_rows(key, labelled)}
                self._journal.write(json.dumps(entry) + "\n")
                self._journal.flush()
            except OSError as error:
                raise OutputError(f"{self.folder} cannot be written ({error.strerror}): free some space") from error
            self._taken[key] = "image" in entry
        return self._taken[key]

    def finish(self, description: Description, findings: list[Finding]) -> Prepared:
        """Write the files that list the images, check all, and give the folder its name.

        Args:
            findings: about what never came to be an image of the data set.

        Raises:
            DatasetError: nothing is left to train on.
            OutputError: it cannot be written.
        """
        self._journal.close()
        entries = list(self._entries())
        found = [*findings, *(Finding(**finding) for entry in entries for finding in entry["findings"])]
        by_split: dict[str, list[dict]] = {split: [] for split in SPLITS}
        for entry in entries:
            if "image" in entry:
                by_split[entry["key"].partition("/")[0]].append(entry)
        found += self._drop_copies(by_split)
        counts = tally(found)
        if not by_split["train"]:
            self._taken.clear()  # nothing that a next try could go on from
            # No report is left to look at: the first case stands for all.
            example = next((f"; {finding.where}: {finding.detail}" for finding in found if finding.detail), "")
            raise DatasetError(f"{self.folder}: no image is left to train on; {dropped_line(counts)}{example}")
        splits = {split: _counts(rows, description.classes) for split, rows in by_split.items() if rows}
        try:
            for split in splits:
                content = _coco(sorted(by_split[split], key=lambda entry: entry["key"]), description)
                write_whole(self._part / f"{split}.json", json.dumps(content).encode())
                read_coco(self._part / f"{split}.json", self._images, description.classes)
            about = {"format": FORMAT, **asdict(description), "splits": splits}
            write_whole(self._part / DATASET, json.dumps(about, indent=1, ensure_ascii=False).encode())
            prepared = Prepared(self.folder, splits, counts, description.notes)
            report = {"summary": prepared.summary, **counts, "findings": [asdict(finding) for finding in found]}
            write_whole(self._part / REPORT, json.dumps(report, indent=1, ensure_ascii=False).encode())
            for name in (_JOURNAL, _PLAN):
                (self._part / name).unlink()
            if _is_empty_folder(self.folder):
                self.folder.rmdir()
            self._part.rename(self.folder)
        except OSError as error:
            raise self._unwritable(error) from error
        return prepared

    @contextmanager
    def _alone(self) -> Iterator[None]:
        lock = self._part.with_name(f"{self._part.name}.lock")
        with sole_use(lock, f"another process is preparing {self.folder}: wait for its end, or choose another folder"):
            try:
                yield
            finally:
                # Of a data set that is whole, nothing stays beside it. Windows keeps a file that is open.
                with suppress(OSError):
                    lock.unlink()

    def _unwritable(self, error: OSError) -> OutputError:
        return OutputError(f"{self.folder} cannot be written ({error.strerror}): choose another place")

    def _drop_copies(self, by_split: dict[str, list[dict]]) -> list[Finding]:
        """Take out, with their files, the images to train on that are copies of ones that are held back."""
        held = {entry["sha256"]: entry["key"] for split in SPLITS[1:] for entry in by_split[split]}
        copies = [entry for entry in by_split["train"] if entry["sha256"] in held]
        by_split["train"] = [entry for entry in by_split["train"] if entry["sha256"] not in held]
        for entry in copies:
            file = self._images / entry["key"]
            for ending in (file.suffix, *entry.get("beside", ())):  # an older journal tells of none
                file.with_name(f"{file.stem}{ending}").unlink(missing_ok=True)
        return [
            Finding(IMAGE, DROPPED, "copy of one held back", entry["key"], held[entry["sha256"]]) for entry in copies
        ]

    def _write_image(self, key: str, labelled: Labelled) -> None:
        file = self._images / key
        file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(file, labelled.content)
        for ending, content in labelled.beside.items():
            write_whole(file.with_name(f"{file.stem}{ending}"), content)

    def _entries(self) -> Iterator[dict[str, Any]]:
        """The journal's entries; a line that a crash cut off or garbled, and all after it, are none."""
        try:
            text = (self._part / _JOURNAL).read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines(keepends=True):
            if not line.endswith("\n"):
                return
            try:
                entry = json.loads(line)
            except ValueError:
                return
            yield entry

    def _read_journal(self) -> dict[str, bool]:
        entries = [
            entry for entry in self._entries() if "image" not in entry or (self._images / entry["key"]).is_file()
        ]
        if entries or (self._part / _JOURNAL).exists():
            write_whole(self._part / _JOURNAL, "".join(json.dumps(entry) + "\n" for entry in entries).encode())
        return {entry["key"]: "image" in entry for entry in entries}


def file_stamp(path: Path | str) -> dict[str, Any]:
    """What tells a file from a later version of itself, for a plan."""
    try:
        stat = os.stat(path)
    except OSError:
        return {"path": str(path)}
    return {"path": os.path.abspath(path), "bytes": stat.st_size, "modified_ns": stat.st_mtime_ns}


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _is_empty_folder(path: Path) -> bool:
    return os.path.isdir(path) and not os.path.islink(path) and not os.listdir(path)


def _rows(key: str, labelled: Labelled) -> dict[str, Any]:
    """The image's row and those of its annotations, less ids; and the endings of the files beside it."""
    image = {"file_name": key, "width": labelled.width, "height": labelled.height, "source": labelled.source}
    annotations = [annotation_record(entry, labelled.width, labelled.height) for entry in labelled.annotations]
    return {"image": image, "annotations": annotations, "beside": list(labelled.beside)}


def _coco(entries: list[dict[str, Any]], description: Description) -> dict[str, Any]:
    images, annotations = [], []
    for number, entry in enumerate(entries, 1):
        images.append({"id": number, **entry["image"]})
        for record in entry["annotations"]:
            label = record.pop("label")
            annotations.append({"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, **record})
    return {
        "info": {"description": description.name},
        "licenses": [{"id": 1, "name": description.licence}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": name} for number, name in enumerate(description.classes, 1)],
    }


def _counts(entries: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    records = [record for entry in entries for record in entry["annotations"]]
    by_class = Counter(record["label"] for record in records if not record["iscrowd"])
    return {
        "images": len(entries),
        "objects": by_class.total(),
        "ignored": len(records) - by_class.total(),
        "empty": sum(all(record["iscrowd"] for record in entry["annotations"]) for entry in entries),
        "by_class": {name: by_class[label] for label, name in enumerate(classes)},
    }
