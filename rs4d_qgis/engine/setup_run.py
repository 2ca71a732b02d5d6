"""Run a set-up: one command after the other, each line told as it comes, to be stopped at any time."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping

from rs4d_qgis.engine.environment import UNFINISHED, clean_environment, quiet_start
from rs4d_qgis.engine.errors import Cancelled, EngineError
from rs4d_qgis.engine.setup_plan import BROKEN, SetupOptions, plan

# Of the user's pip settings, these would put packages elsewhere than into the environment.
_MISLEADING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_REQUIRE_VIRTUALENV")
_POLL_S = 0.1
_POLITE_S = 3.0


class SetupFailed(EngineError):
    """A command of the set-up failed. What was made stays, and the next set-up goes on from there."""


def set_up(
    options: SetupOptions,
    say: Callable[[str], None],
    cancelled: Callable[[], bool],
    variables: Mapping[str, str] | None = None,
) -> None:
    """Make the engine's environment, or bring a half-made one to its end.

    Args:
        options: what to make, and where.
        say: told the commands and each line of what they print, from this thread.
        cancelled: polled 10 times a second.
        variables: further variables for the commands, such as a proxy.

    Raises:
        SetupFailed: a command failed.
        Cancelled: by `cancelled`. Nothing runs any more.
    """
    steps = plan(options)
    environment = {name: value for name, value in clean_environment().items() if name not in _MISLEADING}
    environment.update({"PYTHONUNBUFFERED": "1", "PYTHONIOENCODING": "utf-8", **(variables or {})})
    mark = options.folder / UNFINISHED
    try:
        options.folder.mkdir(parents=True, exist_ok=True)
        for number, step in enumerate(steps, 1):
            # `venv --clear` empties the folder, and so takes the mark of the last set-up with it, but not before.
            if not mark.exists():
                mark.touch()
            say(f"[{number}/{len(steps)}] {step.title}")
            say(f"$ {step.text(options.system)}")
            try:
                _run(step.title, step.command, environment, say, cancelled)
            except SetupFailed:
                if step is steps[-1]:
                    mark.write_text(BROKEN, encoding="utf-8")
                raise
        mark.unlink()
    except OSError as error:
        raise SetupFailed(f"{options.folder} cannot be written ({error.strerror}): choose another folder.") from error


def _run(
    title: str,
    command: tuple[str, ...],
    environment: dict[str, str],
    say: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> None:
    try:
        process = subprocess.Popen(  # the commands that the user saw, and no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            **quiet_start(),
        )
    except OSError as error:
        raise SetupFailed(f"{command[0]} cannot be started ({error.strerror}).") from error
    lines: queue.Queue[str | None] = queue.Queue()
    threading.Thread(target=_read, args=(process, lines), name="rs4d-setup", daemon=True).start()
    last = ""
    try:
        while True:
            if cancelled():
                raise Cancelled("The set-up was stopped. Start it again to go on from here.")
            try:
                line = lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if line is None:
                break
            say(line)
            last = line.strip() or last
        code = process.wait()
    finally:
        _stop(process)
    if code != 0:
        raise SetupFailed(f"“{title}” failed with exit code {code}: {last}")


def _read(process: subprocess.Popen, lines: queue.Queue) -> None:
    with process.stdout as stream:
        for line in stream:
            lines.put(line.decode("utf-8", "replace").rstrip())
    lines.put(None)


def _stop(process: subprocess.Popen) -> None:
    """End the command and all that it started: pip runs compilers and other pips."""
    if process.poll() is not None:
        return
    if os.name == "nt":
        subprocess.run(  # part of Windows, which has no process groups to signal
            [os.path.join(os.environ["SYSTEMROOT"], "System32", "taskkill.exe"), "/T", "/F", "/PID", str(process.pid)],
            capture_output=True,
            check=False,
            **quiet_start(),
        )
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLITE_S)
            return
