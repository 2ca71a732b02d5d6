"""What unfinished runs have found, kept beside their output, so that the same command goes on where it stopped.

One SQLite file for an output: `.NAME.unfinished`. It is locked for as long as a run is on, by the operating system,
which takes the lock back however the process ends: a second run on the output is turned away. Runs with other settings
each keep their own windows.

Nothing is lost to a power cut either, by the order of things. A commit is on the disk when it returns (synchronous =
FULL). The finished output is on the disk, name and all, before the run's windows are forgotten; cut off in between, the
run is there twice, as windows and as output. So what is about to be put into the output is noted first, and is then
recognised, and replaced by the same.
"""

import json
import math
import os
import re
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import shapely

from rs4d_core.errors import BusyError, OutputError
from rs4d_core.scenes.windows.detections import WindowDetections
from rs4d_core.scenes.windows.polygonize import Detection

# The most that a crash can cost, of the time that a run takes. A commit takes some milliseconds.
COMMIT_S = 2.0

_VERSION = 1
_TABLES = (
    """CREATE TABLE runs (
        id INTEGER PRIMARY KEY, scene TEXT NOT NULL, settings TEXT NOT NULL, run TEXT NOT NULL, time TEXT NOT NULL,
        window_px INTEGER NOT NULL, overlap_px INTEGER NOT NULL, seconds REAL NOT NULL, part TEXT)""",
    """CREATE TABLE windows (
        run INTEGER NOT NULL, window INTEGER NOT NULL, content BLOB NOT NULL, UNIQUE (run, window))""",
    "CREATE TABLE written (run INTEGER NOT NULL, digest TEXT NOT NULL)",
)


class JournalUnavailable(Exception):
    """No journal can be kept beside this output; why, in a few words."""


@dataclass(frozen=True)
class Unfinished:
    """A run in a journal.

    Attributes:
        id: in the journal.
        scene, settings: all that its windows depend on.
        run, time: its id and its start, as in its record.
        window_px, overlap_px: how the scene is cut.
        seconds: that it has taken so far.
    """

    id: int
    scene: dict
    settings: dict
    run: str
    time: str
    window_px: int
    overlap_px: int
    seconds: float


class Journal:
    """The journal of one output, held by this process alone. Made by `Journal.open`; a context manager.

    Attributes:
        folder: where it lies, with its output.
    """

    def __init__(self, path: Path, database: sqlite3.Connection) -> None:
        self.folder = path.parent
        self._spent = False
        self._path = path
        self._database = database

    @classmethod
    def open(cls, output: Path) -> "Journal":
        """Take hold of the journal of an output, which is made where it is missing.

        Raises:
            BusyError: another run writes to this output.
            JournalUnavailable: the folder does not allow one.
        """
        target = Path(os.path.realpath(output))
        path = target.with_name(f".{target.name}.unfinished")
        if not os.path.isdir(path.parent):
            raise JournalUnavailable("there is no such folder")
        with suppress(OSError):  # there is none, or the folder may not be entered
            if not stat.S_ISREG(os.lstat(path).st_mode):
                raise JournalUnavailable(f"{path.name} is no file of rs4d: remove it")
        try:
            while True:
                database = sqlite3.connect(path, timeout=0, isolation_level=None)
                try:
                    if cls._held(path, database):
                        return cls(path, database)
                except BaseException:
                    database.close()
                    raise
                database.close()
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise BusyError(
                    f"another run is writing to {output}: wait until it has ended, or choose another name"
                ) from error
            raise JournalUnavailable(str(error)) from error

    @staticmethod
    def _held(path: Path, database: sqlite3.Connection) -> bool:
        """Whether the file that was locked is the one of that name: a run that ends takes its journal away."""
        try:
            # The lock is taken with the first transaction, and kept until the connection is closed.
            database.execute("PRAGMA locking_mode = EXCLUSIVE")
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN EXCLUSIVE")
            found = database.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, _VERSION):
                raise JournalUnavailable(f"{path.name} is of another version of rs4d")
            # Before a table is looked into: a view or a trigger that somebody else has put there runs as it is read.
            there = {sql for (sql,) in database.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")}
            if there not in (set(), set(_TABLES)):
                raise JournalUnavailable(f"{path.name} holds something else than runs: remove it")
            for statement in (*(() if there else _TABLES), f"PRAGMA user_version = {_VERSION}", "COMMIT"):
                database.execute(statement)
            _unfinished(database)
        except (sqlite3.DatabaseError, ValueError, TypeError, LookupError, RecursionError) as error:
            is_damage = ("not a database", "malformed", "decode")
            if not isinstance(error, sqlite3.Error) or any(word in str(error) for word in is_damage):
                raise JournalUnavailable(f"{path.name} is damaged: remove it") from error
            raise
        return os.path.exists(path)

    def runs(self) -> list[Unfinished]:
        """The unfinished runs, the latest first."""
        return _unfinished(self._database)

    def begin(self, scene: dict, settings: dict, run: str, time: str, window_px: int, overlap_px: int) -> Unfinished:
        """A new run. Raises OutputError where it cannot be noted."""
        values = (json.dumps(scene), json.dumps(settings), run, time, window_px, overlap_px)
        with _errors(self._path):
            cursor = self._database.execute(
                "INSERT INTO runs (scene, settings, run, time, window_px, overlap_px, seconds) VALUES (?,?,?,?,?,?,0)",
                values,
            )
        return Unfinished(cursor.lastrowid, json.loads(values[0]), json.loads(values[1]), *values[2:], 0.0)

    def drop(self, run: Unfinished) -> None:
        """Forget a run: it is finished, or its windows are of no use any more."""
        with _errors(self._path):
            self._database.execute("BEGIN")
            self._database.execute("DELETE FROM windows WHERE run = ?", (run.id,))
            self._database.execute("DELETE FROM written WHERE run = ?", (run.id,))
            self._database.execute("DELETE FROM runs WHERE id = ?", (run.id,))
            self._database.execute("COMMIT")

    def parts(self) -> list[str]:
        """Names of the temporary files that runs which were killed have left beside the output.

        Only such as a `Replacement` of the output makes: what is named here gets removed.
        """
        output = self._path.name.removeprefix(".").removesuffix(".unfinished")
        ours = re.compile(rf"\.{re.escape(Path(output).stem)}\.[a-z0-9_]+\.part")
        rows = self._database.execute("SELECT part FROM runs WHERE typeof(part) = 'text'")
        return [name for (name,) in rows if ours.fullmatch(name)]

    def windows(self, run: Unfinished) -> "WindowStore":
        """The windows of a run."""
        return WindowStore(self._path, self._database, run)

    def finish(self, run: Unfinished) -> None:
        """Forget a run whose output is written. With the whole file, on closing, where it holds no other."""
        if len(self.runs()) > 1:
            self.drop(run)
        else:
            self._spent = True

    def close(self) -> None:
        """Let go of it. It goes altogether where it holds no windows."""
        database = self._database
        with suppress(sqlite3.Error):
            if database.in_transaction:
                database.execute("ROLLBACK")
            if not self._spent:
                database.execute("BEGIN")
                database.execute("DELETE FROM runs WHERE NOT EXISTS (SELECT 1 FROM windows WHERE run = runs.id)")
                database.execute("DELETE FROM written WHERE run NOT IN (SELECT id FROM runs)")
                database.execute("UPDATE runs SET part = NULL")
                database.execute("COMMIT")
            if self._spent or not self.runs():
                # While it is locked, so that nobody else can have begun to use it. Windows removes no open file.
                with suppress(PermissionError):
                    os.unlink(self._path)
                    database.close()
                    return
                database.close()
                with suppress(OSError):
                    os.unlink(self._path)
        database.close()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()


class WindowStore:
    """The windows of one run in its journal. Made by `Journal.windows`."""

    def __init__(self, path: Path, database: sqlite3.Connection, run: Unfinished) -> None:
        self._path = path
        self._database = database
        self._run = run
        self._began = time.monotonic()
        self._committed = -math.inf

    def __len__(self) -> int:
        """How many it holds."""
        return self._rows("SELECT COUNT(*) FROM windows WHERE run = ?")[0][0]

    def holds(self, index: int) -> bool:
        """Whether a window is here."""
        return bool(self._rows("SELECT 1 FROM windows WHERE run = ? AND window = ?", index))

    def load(self, index: int, classes: int) -> WindowDetections:
        """What a window that is here shows, by a model of so many classes.

        Raises OutputError where the journal is damaged.
        """
        ((content,),) = self._rows("SELECT content FROM windows WHERE run = ? AND window = ?", index)
        try:
            window = WindowDetections.from_bytes(content)
            if window.index != index or not all(_may_be(found, classes) for found in window.detections):
                raise ValueError("this was not found by the model in this window")
        except (ValueError, TypeError) as error:
            raise OutputError(f"{self._path}, which keeps what is finished, is damaged: remove it") from error
        return window

    def keep(self, window: WindowDetections) -> None:
        """Take a window. It is safe after the next `commit`. Raises OutputError where it cannot be kept."""
        with _errors(self._path):
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            self._database.execute(
                "INSERT INTO windows VALUES (?, ?, ?)", (self._run.id, window.index, window.to_bytes())
            )

    @property
    def due(self) -> bool:
        """Whether the last commit was so long ago that the next should come."""
        return time.monotonic() - self._committed >= COMMIT_S

    @property
    def seconds(self) -> float:
        """That the run has taken until now, all attempts together."""
        return self._run.seconds + time.monotonic() - self._began

    def commit(self) -> None:
        """See that all that was taken is safe on the disk. Raises OutputError where it is not."""
        with _errors(self._path):
            if not self._database.in_transaction:
                self._database.execute("BEGIN")
            self._database.execute("UPDATE runs SET seconds = ? WHERE id = ?", (self.seconds, self._run.id))
            self._database.execute("COMMIT")
        self._committed = time.monotonic()

    def give_up(self) -> None:
        """Forget what was taken since the last commit."""
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")

    def note_part(self, name: str) -> None:
        """The name of the run's temporary files, to be cleared away should it be killed."""
        with _errors(self._path):
            self._database.execute("UPDATE runs SET part = ? WHERE id = ?", (name, self._run.id))

    @property
    def written(self) -> tuple[str, ...]:
        """Digests of what this run has put into its output, or was about to."""
        return tuple(digest for (digest,) in self._rows("SELECT digest FROM written WHERE run = ?"))

    def note_written(self, digest: str) -> None:
        """What is about to be put into the output. Safe on the disk before it is."""
        with _errors(self._path):
            self._database.execute("INSERT INTO written VALUES (?, ?)", (self._run.id, digest))

    def _rows(self, query: str, *values: int) -> list[tuple]:
        with _errors(self._path):
            return self._database.execute(query, (self._run.id, *values)).fetchall()


def _unfinished(database: sqlite3.Connection) -> list[Unfinished]:
    """The runs, the latest first. Raises ValueError, TypeError or LookupError for what no run has written."""
    rows = database.execute(
        "SELECT id, scene, settings, run, time, window_px, overlap_px, seconds FROM runs ORDER BY id DESC"
    )
    return [_run(*row) for row in rows]


def _run(id: int, scene: str, settings: str, run: str, time: str, window: int, overlap: int, s: float) -> Unfinished:
    read = Unfinished(id, json.loads(scene), json.loads(settings), run, time, window, overlap, s)
    texts = (run, time, read.scene["path"])
    if not (isinstance(read.settings, dict) and all(isinstance(text, str) for text in texts)):
        raise TypeError("settings, run and time are of other kinds")
    if not (isinstance(window, int) and isinstance(overlap, int) and 0 <= s < math.inf):
        raise TypeError("windows and seconds are of other kinds")
    return read


def _may_be(found: Detection, classes: int) -> bool:
    is_shape = found.geometry is not None and found.geometry.geom_type == "MultiPolygon"
    return is_shape and shapely.is_valid(found.geometry) and 0 <= found.label < classes and math.isfinite(found.score)


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    """Failures of the journal as OutputError."""
    try:
        yield
    except sqlite3.Error as error:
        if "full" in str(error):
            raise OutputError(
                f"{path}, which keeps what is finished, could not be written (the disk is full): free some space"
            ) from error
        raise OutputError(
            f"{path}, which keeps what is finished, cannot be used ({error}): see that it can be reached, or remove it"
        ) from error
