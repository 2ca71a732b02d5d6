"""Which Pythons of this machine can make the engine's environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rs4d_qgis.engine.environment import clean_environment, quiet_start

LEAST_VERSION = (3, 10)

_PROBE_S = 20
_PROBE = """
import json, struct, sys
missing = []
for name in ("venv", "ensurepip"):
    try:
        __import__(name)
    except ImportError:
        missing.append(name)
print(json.dumps([sys.executable, sys.version_info[:3], struct.calcsize("P") * 8, missing]))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter that was looked at.

    Attributes:
        path: the program itself, where a link or a launcher led to it.
        version: such as "3.11.2", "" where it did not answer.
        problem: why it cannot make the environment, and what mends that; None where it can.
    """

    path: str
    version: str
    problem: str | None


def find_pythons(cancelled: Callable[[], bool] = lambda: False) -> list[Python]:
    """All that are found, usable ones first, else in the order in which to take them. Runs each of them once.

    Args:
        cancelled: asked before each; once it says True, no more are looked at.
    """
    found: dict[str, Python] = {}
    for candidate in _candidates():
        if cancelled():
            break
        python = probe(candidate)
        # What does not even answer is no Python: the alias of the Windows store, a launcher without versions.
        if python.version:
            found.setdefault(os.path.realpath(python.path), python)
    return sorted(found.values(), key=lambda python: python.problem is not None)


def probe(path: str) -> Python:
    """Look at one interpreter, by running it."""
    try:
        done = subprocess.run(
            [path, "-I", "-c", _PROBE],
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_S,
            check=True,
            **quiet_start(),
        )
        executable, version, bits, missing = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return Python(path, "", "it does not run as a Python: choose another")
    words = ".".join(map(str, version))
    if tuple(version[:2]) < LEAST_VERSION:
        return Python(executable, words, f"it is older than {'.'.join(map(str, LEAST_VERSION))}: choose a newer one")
    if bits != 64:
        return Python(executable, words, "it is a 32-bit program, for which there is no PyTorch: choose a 64-bit one")
    if missing:
        mend = f"sudo apt install python{version[0]}.{version[1]}-venv"
        return Python(executable, words, f"it lacks the module {missing[0]}; on Debian and Ubuntu: {mend}")
    return Python(executable, words, None)


def _candidates() -> Iterator[str]:
    names = ["python3", *(f"python3.{minor}" for minor in (13, 12, 11, 10)), "python"]
    for name in names:
        path = shutil.which(name)
        if path is not None:
            yield path
    if os.name == "nt":
        yield from _installed_on_windows()
        # QGIS's own, as a program to make an environment with; its packages stay out of that.
        yield str(Path(sys.base_exec_prefix) / "python.exe")
    else:
        for folder in ("/usr/bin", "/opt/homebrew/bin", "/usr/local/bin", f"{sys.base_exec_prefix}/bin"):
            path = Path(folder) / "python3"
            if path.is_file():
                yield str(path)


def _installed_on_windows() -> Iterator[str]:
    """Where the installers of python.org put it, for one user and for all."""
    for variable, below in (("LOCALAPPDATA", "Programs/Python"), ("PROGRAMFILES", "")):
        root = os.environ.get(variable)
        if root:
            yield from sorted(map(str, (Path(root) / below).glob("Python3*/python.exe")), reverse=True)
