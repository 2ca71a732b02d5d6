"""The files that a scene is read from: which they are, and whether they still are what they were."""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from rs4d_core.errors import SceneChangedError, SceneError
from rs4d_core.scenes.reading.addresses import shown
from rs4d_core.scenes.reading.scene import Scene

# Looking costs a system call a file, which may be thousands, on a network: it takes a hundredth of the time at most.
CHECK_S = 2.0
_SHARE = 0.01
_SAMPLE_BYTES = 4096
_SAMPLES = 16
_ENDS_BYTES = 1 << 16


class SceneFiles:
    """Stamps of a scene's files (size and time of change), taken when this is made.

    Files that are not on this machine (addresses) have none: only their sampled content tells them apart.
    """

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._stamps = stamps(scene.files)
        self._next = 0.0

    def identity(self) -> dict:
        """What tells this scene from all others, and from itself after a change; plain values that JSON can hold."""
        scene = self._scene
        return {
            "path": os.path.realpath(scene.path) if os.path.exists(scene.path) else shown(str(scene.path)),
            "files": {name: list(stamp) for name, stamp in self._stamps.items()},
            "sample": _sample(next(iter(self._stamps))) if self._stamps else scene.signature(),
            "size": [scene.source_width, scene.source_height],
            "transform": list(scene.source_transform[:6]),
            "crs": scene.crs_wkt,
        }

    def check(self) -> None:
        """See that the files are as they were.

        Raises:
            SceneChangedError: one of them was changed or replaced.
            SceneError: one of them is not there any more.
        """
        started = time.monotonic()
        for name, stamp in self._stamps.items():
            try:
                now = _stamp(name)
            except OSError as error:
                raise SceneError(
                    f"{name} cannot be reached any more ({error.strerror}): bring it back, and run the same again"
                ) from error
            if now != stamp:
                raise SceneChangedError(
                    f"{name} was changed while it was being read, so nothing was written: wait until it is complete, "
                    "then run the same again"
                )
        ended = time.monotonic()
        self._next = ended + max(CHECK_S, (ended - started) / _SHARE)

    def check_now_and_then(self) -> None:
        """`check`, unless the last time was a moment ago."""
        if time.monotonic() >= self._next:
            self.check()


def stamps(names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Size and time of change of those that are files on this machine."""
    return {name: _stamp(name) for name in names if os.path.isfile(name)}


def _stamp(name: str) -> tuple[int, int]:
    # Not the inode, which changes by itself on some network drives.
    status = os.stat(name)
    return status.st_size, status.st_mtime_ns


def _sample(name: str) -> str:
    """SHA-256 of both ends of a file and of places spread over it: for clocks that cannot be trusted."""
    digest = hashlib.sha256()
    size = os.path.getsize(name)
    with Path(name).open("rb") as file:
        digest.update(file.read(_ENDS_BYTES))
        for number in range(1, _SAMPLES):
            file.seek(size * number // _SAMPLES)
            digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(size - _ENDS_BYTES, 0))
        digest.update(file.read(_ENDS_BYTES))
    return digest.hexdigest()
