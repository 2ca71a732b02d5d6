"""What the command line shows to a person: progress on stderr, results as text."""

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from rs4d_core.wording import visible

if TYPE_CHECKING:
    from rs4d_core.scenes.pipeline import Progress

_QUIET_INTERVAL_S = 15.0


class ProgressReport:
    """How far a run is, on stderr: a bar on a terminal; elsewhere a line at first, and now and again."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._task: Any = None
        self._last_line: float | None = None

    def __enter__(self) -> "ProgressReport":
        if sys.stderr.isatty():
            self._bar = Bar(
                TextColumn("{task.description}"),
                BarColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self._bar.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, progress: "Progress") -> None:
        """Report how far the run is."""
        if self._bar is None:
            now = time.monotonic()
            if self._last_line is None or now - self._last_line >= _QUIET_INTERVAL_S:
                self._last_line = now
                known = progress.seconds_left is not None and progress.fraction < 1
                left = f", {_duration(progress.seconds_left)} left" if known else ""
                print(f"rs4d: {progress.message}{left}", file=sys.stderr)
        elif self._task is None:
            self._task = self._bar.add_task(progress.message, completed=progress.windows_done, total=progress.windows)
        else:
            self._bar.update(
                self._task,
                completed=progress.windows_done,
                total=progress.windows,  # of the scene in hand, where there are several
                description=progress.message,
            )


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes else "less than a minute"


def print_pairs(rows: list[tuple[str, str]]) -> None:
    """Names and values, aligned, on stdout."""
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(visible(f"{name:<{width}}  {value}".rstrip()))


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A table on stdout, its first column to the left and all others to the right."""
    table = Table(box=None, pad_edge=False, header_style="")
    for index, name in enumerate(header):
        table.add_column(Text(visible(name)), justify="left" if index == 0 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    Console(file=sys.stdout, highlight=False, width=200).print(table)


def share(value: float | None) -> str:
    """A figure of 0..1, or a dash where it is not defined."""
    return "-" if value is None else f"{value:.3f}"
