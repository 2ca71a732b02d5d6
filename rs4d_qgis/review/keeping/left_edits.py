"""Edits that are in QGIS's edit buffer still when their layer leaves the desk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qgis.core import QgsVectorLayer
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QIODevice, QLockFile, QObject, QSaveFile

from rs4d_qgis.review.keeping.unsaved import unsaved_work


class LeftEdits(QObject):
    """Keeps the layer's file of unsaved work true until the user saves or discards the edits: a crash would take them,
    and only a crash is told of as one.

    Attributes:
        kept: what is to be in the file, but for the edits.
        lock: of the file; unlocked once the edits are saved or discarded.
    """

    def __init__(self, layer: QgsVectorLayer, path: Path, lock: QLockFile, kept: dict[str, Any]):
        super().__init__()
        self.kept = kept
        self.lock = lock
        self._layer = layer
        self._path = path
        layer.afterCommitChanges.connect(self._ended)
        layer.afterRollBack.connect(self._ended)

    def let_go(self) -> None:
        """Somebody else has the file."""
        if not sip.isdeleted(self._layer):
            self._layer.afterCommitChanges.disconnect(self._ended)
            self._layer.afterRollBack.disconnect(self._ended)

    def hand_over(self) -> None:
        """Nobody looks at the layer any more: the file does not tell of edits that may well be saved by then."""
        if not sip.isdeleted(self._layer):
            write_kept(self._path, self.kept)
            self.let_go()
        self.lock.unlock()

    def is_over(self) -> bool:
        """The edits are saved or discarded, or their layer is gone."""
        return sip.isdeleted(self._layer) or not unsaved_work(self._layer, {})

    def _ended(self) -> None:
        if self.is_over():
            write_kept(self._path, self.kept)
            self.let_go()
            self.lock.unlock()


def write_kept(path: Path, kept: dict[str, Any]) -> None:
    """Write a layer's file of unsaved work."""
    file = QSaveFile(str(path))  # the old one stays until the new one is whole
    if file.open(QIODevice.OpenModeFlag.WriteOnly):
        file.write(json.dumps(kept).encode())
        file.commit()
