"""Teacher maps on disk, for several students to learn from one pass of the teacher."""

import functools
import hashlib
import json
import os
import uuid
from contextlib import suppress
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rs4d_core.errors import OutputError
from rs4d_core.whole_file import write_whole

SHARD_BYTES = 64 << 20
_OPEN_SHARDS = 64


def map_key(rgb: bytes) -> str:
    """What a view's map is found by: its very pixels, so that moved, renamed or changed images need no care."""
    return hashlib.blake2b(rgb, digest_size=16).hexdigest()


class MapCache:
    """Maps of one teacher, in float16, in shards of some 64 MB that are written whole.

    A shard's metadata holds the keys of its maps and the SHA-256 of their bytes, which is checked when a process first
    reads from it: a damaged shard is removed, and its maps are computed again. Several processes, and several runs,
    may write and read one folder at a time: a shard is written once, by one of them, and never changed.

    Attributes:
        damaged: shards that were found damaged and removed, by name.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        """In a folder of its own inside `folder`, for the teacher of that identity."""
        self._folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self._where: dict[str, tuple[str, int]] = {}
        self._pending: dict[str, Tensor] = {}
        self._known: set[str] = set()
        self._checked: set[str] = set()
        self._changed = -1
        self._open = functools.lru_cache(_OPEN_SHARDS)(self._open_shard)
        self.damaged: list[str] = []

    def prepare(self) -> None:
        """Make the folder: a run shall not find out at its first full shard that it cannot.

        Raises:
            OutputError: it cannot be made.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(self._folder, error) from error

    def get(self, key: str) -> Tensor | None:
        """The map `(C, h, w)` float16 of a key, if it is there."""
        if key in self._pending:
            return self._pending[key]
        if key not in self._where:
            self._look()
        if key not in self._where:
            return None
        name, row = self._where[key]
        if name not in self._checked and not self._check(name):
            return None
        return self._open(name).get_slice("maps")[row]

    def put(self, key: str, teacher_map: Tensor) -> None:
        """Keep a map `(C, h, w)` float16. It is on the disk once its shard is full, or after `flush`.

        Raises:
            OutputError: the shard cannot be written.
        """
        self._pending[key] = teacher_map.contiguous()
        if len(self._pending) * teacher_map.nbytes >= SHARD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the maps that are not on the disk yet.

        Raises:
            OutputError: they cannot be written.
        """
        if not self._pending:
            return
        self.prepare()
        keys, maps = list(self._pending), torch.stack(list(self._pending.values()))
        metadata = {"keys": json.dumps(keys), "sha256": _sha256(maps)}
        path = self._folder / f"{uuid.uuid4().hex}.safetensors"
        try:
            write_whole(path, safetensors.torch.save({"maps": maps}, metadata))
        except OSError as error:
            raise self._unwritable(path, error) from error
        self._pending = {}
        self._enter(path.name, keys)
        self._checked.add(path.name)

    def _unwritable(self, path: Path, error: OSError) -> OutputError:
        return OutputError(f"cannot write teacher maps to {path} ({error}): make room, or cache elsewhere")

    def _look(self) -> None:
        """Find shards that others have written since the last time."""
        try:
            changed = os.stat(self._folder).st_mtime_ns
        except OSError:
            return
        if changed == self._changed:
            return
        self._changed = changed
        for path in sorted(self._folder.glob("*.safetensors")):
            if path.name.startswith(".") or path.name in self._known:
                continue
            try:
                with safe_open(path, framework="pt") as file:
                    self._enter(path.name, json.loads(file.metadata()["keys"]))
            except (OSError, SafetensorError, KeyError, TypeError, ValueError):
                self._remove(path.name)

    def _enter(self, name: str, keys: list[str]) -> None:
        self._known.add(name)
        self._where |= {key: (name, row) for row, key in enumerate(keys)}

    def _check(self, name: str) -> bool:
        try:
            with safe_open(self._folder / name, framework="pt") as file:
                sound = _sha256(file.get_tensor("maps")) == file.metadata()["sha256"]
        except (OSError, SafetensorError, KeyError, TypeError):
            sound = False
        if sound:
            self._checked.add(name)
        else:
            self._remove(name)
        return sound

    def _remove(self, name: str) -> None:
        self.damaged.append(name)
        self._where = {key: place for key, place in self._where.items() if place[0] != name}
        with suppress(OSError):
            (self._folder / name).unlink()

    def _open_shard(self, name: str) -> safe_open:
        return safe_open(self._folder / name, framework="pt")


def _sha256(maps: Tensor) -> str:
    return hashlib.sha256(maps.numpy().tobytes()).hexdigest()
