"""Files that appear under their name only when they are whole."""

import errno
import os
import secrets
import shutil
import sqlite3
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pyarrow import ArrowException

from rs4d_core.errors import OutputError, RS4DError

# Less than this left, and a failed write was for want of space: GDAL says only that a transaction failed, and SQLite
# has given the space of that transaction back by then.
FULL_BYTES = 16 << 20

_open: set["Replacement | NewFolder"] = set()


def check_replaceable(path: Path) -> Path:
    """Where what is written to `path` ends up: a link stays a link, and what it points to is replaced.

    Raises OutputError where nothing could be written there in the end. Whenever it is killed, it leaves nothing, on
    systems that have files without names.
    """
    path, given = Path(os.path.realpath(path)), path
    folder = path.parent
    # os.path: pathlib raises for names that are too long, and in folders that may not be entered.
    if not os.path.isdir(folder):
        raise OutputError(f"the folder {folder} does not exist: create it, or choose another place for the result")
    if os.path.isdir(path):
        raise OutputError(f"{given} is a folder: give the name of a file in it")
    if os.path.exists(path) and not os.access(path, os.W_OK):
        raise OutputError(f"{given} is read-only: make it writable, or choose another name")
    with _making_in(folder), tempfile.TemporaryFile(dir=folder):
        return path


@contextmanager
def _making_in(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write to the folder {folder} ({error.strerror}): choose another place") from error


class Replacement:
    """Temporary files beside `path`, one of which takes its place in the end.

    They lie in the same folder, since only a rename within one file system is all or nothing. Making one tells at once
    whether the folder can be written to.

    Args:
        announce: is told what the names of all temporary files begin with, before there is any: whoever clears up after
            a process that was killed then knows of each.
    """

    def __init__(self, path: Path, announce: Callable[[str], None] = lambda name: None):
        """Raises OutputError where nothing could be written to `path` in the end."""
        self.path = check_replaceable(path)
        self._reserved = self.path.with_name(f".{self.path.stem}.{secrets.token_hex(4)}.part")
        announce(self._reserved.name)
        with _making_in(self.path.parent):
            os.close(os.open(self._reserved, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        _open.add(self)

    def part(self, suffix: str) -> Path:
        """The name of a temporary file with this ending."""
        return self._reserved.with_name(self._reserved.name + suffix)

    def take_place(self, part: Path) -> None:
        """Put a finished temporary file where the result belongs, safe on disk first."""
        move_whole(part, self.path)

    def clear(self) -> None:
        """Remove all temporary files, and what libraries left beside them: journals, indexes."""
        remove_parts(self.path.parent, self._reserved.name)
        _open.discard(self)


def remove_parts(folder: Path, name: str) -> None:
    """Remove the files in a folder whose names begin with that of a `Replacement`."""
    for file in folder.iterdir():
        if file.name.startswith(name):
            with suppress(FileNotFoundError):
                file.unlink()


def move_whole(part: Path, path: Path) -> None:
    """Rename a finished file, safe on disk first, and its name after; what it replaces leaves it its permissions."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, part)
    os.replace(part, path)
    if os.name == "posix":  # elsewhere folders cannot be opened, and need not be
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            with suppress(OSError):  # some network file systems have no such thing
                os.fsync(folder)
        finally:
            os.close(folder)


class NewFolder:
    """A folder that appears under its name only when all in it is whole. One that holds anything is never touched.

    Attributes:
        part: the folder under a temporary name, to be filled.
    """

    def __init__(self, path: Path):
        """Raises OutputError where the folder could not be made in the end."""
        self.path = Path(os.path.abspath(path))
        parent = self.path.parent
        if not os.path.isdir(parent):
            raise OutputError(f"the folder {parent} does not exist: create it, or choose another place for the result")
        if os.path.lexists(self.path) and not (os.path.isdir(self.path) and not os.listdir(self.path)):
            raise OutputError(f"{path} is there already, and is no empty folder: choose another name")
        with _making_in(parent):
            self._reserved = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".part", dir=parent))
            # A folder in it, since temporary folders are closed to all others.
            self.part = self._reserved / self.path.name
            self.part.mkdir()
        _open.add(self)

    def take_place(self) -> None:
        """Give the folder its name."""
        if self.path.is_dir():
            self.path.rmdir()
        self.part.rename(self.path)

    def clear(self) -> None:
        """Remove the temporary folder."""
        shutil.rmtree(self._reserved, ignore_errors=True)
        _open.discard(self)


def clear_all() -> None:
    """Remove the temporary files of all work in this process: for one that must end now, whatever it is at."""
    for replacement in list(_open):
        with suppress(OSError):
            replacement.clear()


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Failures of the libraries that write files, as OutputError."""
    try:
        with warnings.catch_warnings():
            # A scene without a CRS says so itself, once.
            warnings.filterwarnings("ignore", message="'crs' was not provided")
            yield
    except RS4DError:  # said already
        raise
    except (OSError, RuntimeError, sqlite3.Error, ArrowException) as error:
        # RuntimeError: the base of pyogrio's errors.
        reason = " ".join(str(error).split())
        left = shutil.disk_usage(path.parent).free
        if getattr(error, "errno", None) == errno.ENOSPC or "disk is full" in reason or left < FULL_BYTES:
            reason, step = f"the disk is full, {left / 1e6:.1f} MB are left", "free some space, or choose another place"
        else:
            step = "see that no other program has it open, or choose another name"
        raise OutputError(f"{path} could not be written ({reason}): {step}") from error
