"""What a set-up of the engine runs, command by command, told before any of it starts.

The engine lives in a virtual environment of its own: QGIS's Python gives at most the program that makes it, and gets
nothing. Planning touches no network and starts no process, so the user sees the whole plan first.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

from rs4d_qgis.engine.environment import UNFINISHED, environment_python

# Of the environment on disk: with a PyTorch for processors, and with one that brings CUDA.
LEAST_GB, MOST_GB = 2, 7

# Stands in the mark of an environment that is whole by pip's account but does not work: it is made afresh.
BROKEN = "broken"


@dataclass(frozen=True)
class SetupOptions:
    """What the user chose.

    Attributes:
        folder: of the environment.
        python: the program that makes it, 3.10 or newer.
        package: what pip installs: the folder with the source, a wheel, or "rs4d==0.1.0" out of `wheels`. Never the
            latter without them: what an index has under that name need not be this project.
        wheels: a folder with all wheels, for machines without internet; None to download.
        constraints: a file that pins the versions; not used with a folder of wheels, which is its own choice.
        torch_index: address of a package index that PyTorch comes from; "" for pip's own, which on Linux has the large
            build with CUDA. PyTorch's site names one for each build.
        system: as `platform.system()` has it: "Linux", "Windows" or "Darwin".
    """

    folder: Path
    python: str
    package: str
    wheels: Path | None = None
    constraints: Path | None = None
    torch_index: str = ""
    system: str = "Linux"


@dataclass(frozen=True)
class Step:
    """One command of a plan, with what it does in words."""

    title: str
    command: tuple[str, ...]

    def text(self, system: str) -> str:
        """The command as one would type it."""
        return subprocess.list2cmdline(self.command) if system == "Windows" else shlex.join(self.command)


def plan(options: SetupOptions) -> tuple[Step, ...]:
    """The commands that make the environment, or bring a half-made one to its end."""
    python = str(environment_python(options.folder))
    # On top of an environment that is there, venv mends the interpreter and pip, and leaves the packages.
    afresh = ("--clear",) if _broken(options.folder) else ()
    install = (
        python,
        "-I",
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    )
    return (
        Step("Make the environment", (options.python, "-I", "-m", "venv", *afresh, str(options.folder))),
        *(Step("Install PyTorch", (*install, *arguments)) for arguments in _torch(options)),
        Step("Install the engine", (*install, *_engine(options))),
        Step("Check it", (python, "-I", "-m", "rs4d_core.cli", "doctor")),
    )


def _torch(options: SetupOptions) -> tuple[tuple[str, ...], ...]:
    """What to give to pip for PyTorch; nothing where it needs no command of its own."""
    if options.wheels is not None or not options.torch_index:
        return ()
    version = _pinned_version(options.constraints, "torch")
    # Only this one package comes from there; what it depends on, and all else, from pip's own index.
    return (("--no-deps", "--index-url", options.torch_index, f"torch=={version}" if version else "torch"),)


def _engine(options: SetupOptions) -> tuple[str, ...]:
    if options.wheels is not None:
        return ("--no-index", "--find-links", str(options.wheels), options.package)
    pins = () if options.constraints is None else ("--constraint", str(options.constraints))
    return (*pins, options.package)


def _pinned_version(constraints: Path | None, package: str) -> str | None:
    if constraints is None:
        return None
    found = re.search(rf"^{re.escape(package)}==(\S+)\s*$", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    return found and found.group(1)


def _broken(folder: Path) -> bool:
    try:
        return (folder / UNFINISHED).read_text(encoding="utf-8").strip() == BROKEN
    except OSError:
        return False
