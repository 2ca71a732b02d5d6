"""What a run tells: a progress bar or lines for people, JSON lines for programs, and a log file."""

import json
import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from rs4d_core.errors import OutputError
from rs4d_core.whole_file import write_whole


class Journal:
    """Writes `metrics.jsonl` and `log.txt` of a run folder, and shows progress on stderr.

    On a terminal there is a bar; elsewhere each logged step is a line. Of several processes only one speaks. All of
    its methods raise OutputError where the run folder can no longer be written.
    """

    def __init__(self, folder: Path, steps: int, step: int, speaks: bool = True) -> None:
        self._steps = steps
        self._speaks = speaks
        self._metrics = folder / "metrics.jsonl"
        self._log = folder / "log.txt"
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            BarColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not (speaks and self._console.is_terminal),
        )
        self._task = self._bar.add_task("starting", total=steps, completed=step)
        if speaks:
            self._forget_after(step)

    def __enter__(self) -> "Journal":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, message: str, echo: bool = True) -> None:
        """A line for people, in the log and (`echo`) on stderr."""
        if not self._speaks:
            return
        _append(self._log, f"{datetime.now().astimezone().isoformat(timespec='seconds')} {message}")
        if echo:
            self._console.print(message, markup=False)

    def record(self, entry: dict[str, Any]) -> None:
        """A line of `metrics.jsonl`; `entry` has a `step`."""
        if not self._speaks:
            return
        _append(self._metrics, json.dumps(entry))

    def steps_done(self, entry: dict[str, Any], pace: "Pace") -> None:
        """Record the steps since the last such call, and show them."""
        rate = pace.images_per_second
        self.record({**entry, "images_per_second": round(rate, 3)})
        left = timedelta(seconds=round(pace.seconds_left(self._steps - entry["step"])))
        loss = entry.get("loss", math.nan)
        message = f"loss {loss:.3f}, {rate:.2f} images/s, {left} left"
        self._bar.update(self._task, completed=entry["step"], description=message)
        self.say(f"step {entry['step']}/{self._steps}: {message}", echo=not self._console.is_terminal)

    def _forget_after(self, step: int) -> None:
        """Drop the lines of steps that a resumed run will do again."""
        if self._metrics.exists():
            lines = self._metrics.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
            write_whole(self._metrics, "".join(line for line in lines if _is_of_step(line, step)).encode())


def _is_of_step(line: str, last: int) -> bool:
    """Whether a whole line is of a step up to the last; a crash can leave half a line at the end, or a garbled one."""
    try:
        return line.endswith("\n") and json.loads(line)["step"] <= last
    except (ValueError, TypeError, KeyError):  # no JSON, or not of ours
        return False


def _append(file: Path, line: str) -> None:
    try:
        with file.open("a", encoding="utf-8") as text:
            text.write(line + "\n")
    except OSError as error:
        raise OutputError(f"cannot write {file} ({error}); make room, then start again") from error


class Pace:
    """Images a second of the training steps alone, and what that means for the time left."""

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._seconds = self._steps = 0.0

    def add(self, seconds: float) -> None:
        """One step's time. Older steps count less and less: half after some 70 steps."""
        self._seconds = 0.99 * self._seconds + seconds
        self._steps = 0.99 * self._steps + 1

    @property
    def images_per_second(self) -> float:
        return self._batch * self._steps / self._seconds if self._seconds else 0.0

    def seconds_left(self, steps: int) -> float:
        return steps * self._seconds / self._steps if self._steps else 0.0
