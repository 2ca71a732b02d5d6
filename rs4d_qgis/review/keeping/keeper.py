"""Keeps what a crash would take: the place in the queue, and work that is not in the layer's file yet.

A small file for each layer, in the user's profile: it can be written even where the layer's folder cannot.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import QLockFile, QObject, QTimer, pyqtSignal

from rs4d_qgis.review.keeping.left_edits import LeftEdits, write_kept
from rs4d_qgis.review.keeping.unsaved import redo_edits, unsaved_work
from rs4d_qgis.review.logic.place import Place
from rs4d_qgis.review.logic.session import Session
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer
from rs4d_qgis.translation import tr

# A crash loses what came after the last writing; writing takes a few ms, with very many edits some tenths of a second.
_MS_UNTIL_WRITTEN = 2000
# By the file that they are kept in: whichever desk takes the layer next.
_left: dict[Path, LeftEdits] = {}


def kept_file(source: str) -> Path:
    """The file of a layer, by its source."""
    source = hashlib.sha256(source.encode()).hexdigest()[:24]
    return Path(QgsApplication.qgisSettingsDirPath()) / "rs4d" / "review" / f"{source}.json"


def let_go_of_left_edits() -> None:
    """The plugin is turned off: edits that are not saved are in QGIS's hands alone from here on."""
    for left in _left.values():
        left.hand_over()
    _left.clear()


class Keeper(QObject):
    """For one layer at a time.

    Attributes:
        found: work of an earlier session that never got into the layer's file, oldest first; kept until the analyst has
            it restored or discarded.
        alone: no other QGIS has this layer on its desk. Otherwise the file is left to that one.

    Signals:
        changed(): `found` is another one.
    """

    changed = pyqtSignal()

    def __init__(self, session: Callable[[], Session], parent: QObject | None = None):
        super().__init__(parent)
        self.found: list[dict[str, Any]] = []
        self.alone = True
        self._session = session
        self._reviewed: ReviewedLayer | None = None
        self._source = ""
        self._lock: QLockFile | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_MS_UNTIL_WRITTEN)
        self._timer.timeout.connect(self.write)

    def open(self, reviewed: ReviewedLayer) -> Place:
        """Begin to keep for this layer; gives where the analyst was in its queue the last time."""
        self._reviewed = reviewed
        self._source = reviewed.layer.source()  # it may get another one under review
        path = kept_file(self._source)
        path.parent.mkdir(parents=True, exist_ok=True)
        left = _left.pop(path, None)
        if left is not None and not left.is_over():  # the edits are in QGIS still: they are not lost
            left.let_go()
            self._lock, self.alone, kept = left.lock, True, left.kept
        else:
            self._lock = QLockFile(str(path.with_suffix(".lock")))
            self._lock.setStaleLockTime(0)  # of a process that lives it is never stale
            self.alone = self._lock.tryLock(0)
            kept = _read(path) if self.alone else {}
        self.found = [work for work in kept.get("unsaved", []) if isinstance(work, dict) and work]
        return Place.from_json(kept.get("place"))

    def close(self) -> None:
        """The layer leaves the desk."""
        if self._reviewed is not None:
            if not self._reviewed.is_outdated:  # else what was written down last is all that is known
                self.write()
            if self.alone and self._reviewed.unsaved_edits():
                for done in [path for path, left in _left.items() if left.is_over()]:
                    del _left[done]
                layer, path = self._reviewed.layer, kept_file(self._source)
                _left[path] = LeftEdits(layer, path, self._lock, self._kept(edits=False))
                self._lock = None
        self._timer.stop()
        self._reviewed = None
        self.found = []
        if self._lock is not None:
            self._lock.unlock()
            self._lock = None

    def write_soon(self) -> None:
        """Something has changed."""
        if self._reviewed is not None and not self._timer.isActive():
            self._timer.start()

    def write(self) -> None:
        """Write it all down now."""
        self._timer.stop()
        if not self.alone:
            return
        write_kept(kept_file(self._source), self._kept())

    def restore(self) -> str:
        """Do again what was found: edits as one undo step. Gives what to tell the analyst.

        Raises:
            ReviewRefused: the layer cannot be edited. What was found is kept.
        """
        lost = 0
        if any(work.keys() - {"decisions"} for work in self.found):
            with self._reviewed.edit(tr("Restore unsaved edits")) as layer:
                lost = sum(redo_edits(layer, work) for work in self.found)
        for work in self.found:
            self._reviewed.redo_decisions(work.get("decisions", {}))
        self.found = []
        self.write()
        self.changed.emit()
        if lost:
            return tr("Restored, but for {} objects that the layer does not have any more.").format(lost)
        return tr("The unsaved work is restored.")

    def discard(self) -> None:
        """Forget what was found."""
        self.found = []
        self.write()
        self.changed.emit()

    def found_count(self) -> int:
        """On how many objects was worked in what was found."""
        return sum(len(what) for work in self.found for what in work.values())

    def _kept(self, edits: bool = True) -> dict[str, Any]:
        """What is to be in the file, with or without what is in QGIS's edit buffer."""
        work = unsaved_work(self._reviewed.layer, self._reviewed.waiting)
        if not edits:
            work = {kind: what for kind, what in work.items() if kind == "decisions"}
        return {
            "source": self._source,
            "place": Place.of(self._session()).to_json(),
            "unsaved": [*self.found, *([work] if work else [])],
        }


def _read(path: Path) -> dict[str, Any]:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) and isinstance(kept.get("unsaved"), list) else {}
