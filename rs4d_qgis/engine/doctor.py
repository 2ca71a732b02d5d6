"""Ask an engine's Python what works in it, and put the answer in words."""

from __future__ import annotations

import json
import queue
import shlex
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass

from rs4d_qgis.engine.environment import clean_environment, quiet_start
from rs4d_qgis.engine.errors import Cancelled
from rs4d_qgis.engine.locate import EngineLocation, checkout_folder

_POLL_S = 0.1


@dataclass(frozen=True)
class Finding:
    """One line of a report.

    Attributes:
        name: what was looked at.
        ok: whether it works.
        value: what was found, or what went wrong.
        mend: the command or step that mends it, or adds what is absent; None where there is nothing to do.
        absent: whether it is optional and not there, or not usable.
    """

    name: str
    ok: bool
    value: str
    mend: str | None = None
    absent: bool = False


@dataclass(frozen=True)
class Report:
    """What is known of one engine."""

    location: EngineLocation
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether all that is needed works."""
        return all(finding.ok for finding in self.findings)

    def text(self, heading: str) -> str:
        """For a message to somebody who helps."""
        lines = [heading, f"interpreter: {self.location.python} ({self.location.words})"]
        for finding in self.findings:
            mark = "-     " if finding.absent else "ok    " if finding.ok else "FAILED"
            lines.append(f"{mark} {finding.name}: {finding.value}")
            if finding.mend and not finding.ok:
                lines.append(f"       to mend: {finding.mend}")
        return "\n".join(lines) + "\n"


def examine(location: EngineLocation, cancelled: Callable[[], bool]) -> Report:
    """Run `rs4d doctor` in a process of its own: it finds out even where the engine cannot start. Some seconds.

    Raises:
        Cancelled: by `cancelled`, and the process is ended.
    """
    command = [location.python, "-I", "-m", "rs4d_core.cli", "doctor", "--json"]
    try:
        process = subprocess.Popen(  # the interpreter that the user chose, and no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            **quiet_start(),
        )
    except OSError as error:
        return Report(location, (Finding("interpreter", False, f"cannot be started: {error.strerror}", _CHOOSE),))
    said: queue.Queue = queue.Queue()
    threading.Thread(target=lambda: said.put(process.communicate()), name="rs4d-doctor", daemon=True).start()
    while True:
        if cancelled():
            process.kill()
            raise Cancelled("the check was cancelled")
        try:
            output, errors = said.get(timeout=_POLL_S)
            break
        except queue.Empty:
            continue
    try:
        checks = json.loads(output)["checks"]
    except (ValueError, KeyError, TypeError):
        return Report(location, (_no_doctor(location, errors.decode("utf-8", "replace")),))
    return Report(location, tuple(_finding(check, location) for check in checks))


def _finding(check: dict, location: EngineLocation) -> Finding:
    mend = check["mend"]
    # The engine knows the command for a new installation, but not that the plugin made this one.
    if check.get("reinstall") and location.source == "managed":
        mend = "; or ".join(step for step in (_repair(location), check.get("hint")) if step)
    return Finding(check["name"], check["ok"], check["value"], mend, check.get("absent", False))


_CHOOSE = "choose another interpreter above, or let Set up engine... make one"


def _no_doctor(location: EngineLocation, errors: str) -> Finding:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1] if lines else "it said nothing"
    if "No module named" in last and "rs4d_core" in last:
        return Finding("engine", False, "this Python runs, but has no engine in it", _CHOOSE)
    return Finding("engine", False, f"it does not start: {last}", _repair(location))


def describe_models(hello: dict) -> tuple[Finding, ...]:
    """The model files that the engine answered `hello` with, one line each."""
    findings = []
    for model in hello.get("models", ()):
        if "error" in model:
            error, path = model["error"], model["path"]
            findings.append(Finding("model", True, error if path in error else f"{path}: {error}", absent=True))
            continue
        card = model["card"]
        low, high = card["resolution_m"]
        default = ", the default" if model["path"] == hello.get("default_model") else ""
        what = f"{len(card['classes'])} classes, {low:g} to {high:g} m a pixel"
        findings.append(Finding("model", True, f"{model['name']}{default}: {what} ({model['path']})"))
    return tuple(findings)


def _repair(location: EngineLocation) -> str:
    """What makes an engine anew that cannot say so itself."""
    if location.source == "managed":
        return "Raster > RS4D > Set up engine..., which repairs it"
    checkout = checkout_folder()
    if location.source == "checkout" and checkout is not None:
        return f"rm -r {shlex.quote(str(checkout / '.venv'))} && {shlex.quote(str(checkout / 'run.sh'))}"
    return f"{shlex.quote(location.python)} -m pip install --force-reinstall {source_words()}"


def source_words() -> str:
    """What to give to pip for the engine: the folder that the plugin runs from, else words in its place."""
    checkout = checkout_folder()
    return "FOLDER-WITH-THE-SOURCE-OF-RS4D" if checkout is None else shlex.quote(str(checkout))
