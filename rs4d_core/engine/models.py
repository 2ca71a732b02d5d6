"""The models that the engine holds ready, and what it knows of model files."""

import dataclasses
import os
import threading
from collections import OrderedDict
from pathlib import Path

from rs4d_core.device import choose_device
from rs4d_core.models.card import ModelCard, read_card
from rs4d_core.models.checkpoint import LoadedModel, file_sha256, load_model
from rs4d_core.scenes.outline import Outliner

MOST_LOADED = 2

_Stamp = tuple[int, int, int]


class ModelCache:
    """Loaded models by the checksum of their file and their device, the least recently used ones dropped.

    A file is read for its checksum only when size, time or inode have changed, so that a file that was replaced is
    noticed, and one that was not costs nothing. May be used by several threads.

    Attributes:
        outliner: proposes outlines with these models, and holds the windows that they have encoded. For one thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[str, tuple[_Stamp, str, ModelCard]] = {}
        self._loaded: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()
        self.outliner = Outliner()

    def identify(self, path: Path) -> tuple[str, ModelCard]:
        """The checksum and the card of a model file.

        Raises:
            ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
            OSError: it cannot be read.
        """
        key = os.path.abspath(path)
        with self._lock:
            known = self._known.get(key)
        if known is not None and os.path.exists(path) and known[0] == _stamp(path):
            return known[1:]
        card = read_card(path)
        before = _stamp(path)
        sha256 = file_sha256(path)
        with self._lock:
            self._known[key] = (before, sha256, card)
        return sha256, card

    def get(self, path: Path, device: str) -> LoadedModel:
        """The model of a file, ready on `device` ("auto", "cpu", "cuda", "cuda:N").

        Raises:
            ModelFileError: as `identify`, or its weights do not fit its card.
            OptionError: there is no such device.
        """
        chosen = choose_device(device)
        sha256, _ = self.identify(path)
        with self._lock:
            model = self._loaded.get((sha256, chosen.name))
        if model is None:
            model = load_model(path, chosen.name)
        with self._lock:
            # Under the checksum of what was loaded: the file may have been replaced a moment ago.
            self._loaded[model.sha256, chosen.name] = model
            self._loaded.move_to_end((model.sha256, chosen.name))
            while len(self._loaded) > MOST_LOADED:
                self._loaded.popitem(last=False)
        return dataclasses.replace(model, device_reason=chosen.reason)


def _stamp(path: Path) -> _Stamp:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino
