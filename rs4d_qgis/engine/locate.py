"""Which Python runs the engine.

In this order: the one chosen in the settings; the variable RS4D_ENGINE_PYTHON; the environment of the checkout that the
plugin runs from; the environment that "Set up engine..." made in the QGIS profile; that of the command `rs4d` on PATH.
Whatever the user named stands: if it is wrong that is said, and no other is taken in its stead.

Only files are looked at, no process is started: this runs whenever QGIS asks whether an algorithm can be used.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from qgis.core import QgsApplication

from rs4d_qgis import settings
from rs4d_qgis.engine.environment import UNFINISHED, environment_python
from rs4d_qgis.engine.errors import EngineNotFound

VARIABLE = "RS4D_ENGINE_PYTHON"

_WORDS = {
    "setting": "chosen in the settings",
    "environment": f"named by the variable {VARIABLE}",
    "checkout": "the environment of this checkout",
    "managed": "made by Set up engine...",
    "path": "that of the command rs4d on PATH",
}


@dataclass(frozen=True)
class EngineLocation:
    """A Python that should have the engine.

    Attributes:
        python: path of the interpreter.
        source: how it was found: "setting", "environment", "checkout", "managed" or "path".
    """

    python: str
    source: str

    @property
    def words(self) -> str:
        """How it was found, for users."""
        return _WORDS[self.source]


def locate_engine() -> EngineLocation:
    """The Python that runs the engine.

    Raises:
        EngineNotFound: there is none, or the one that the user named does not exist.
    """
    chosen = settings.interpreter()
    if chosen:
        return EngineLocation(
            _existing(chosen, "chosen in the settings", "choose another in Raster > RS4D > Check engine..."), "setting"
        )
    named = os.environ.get(VARIABLE)
    if named:
        return EngineLocation(
            _existing(named, f"named by {VARIABLE}", "correct that variable and start QGIS again"), "environment"
        )
    checkout = checkout_folder()
    places = [(checkout / ".venv", "checkout")] if checkout else []
    for folder, source in (*places, (managed_folder(), "managed")):
        python = environment_python(folder)
        if python.is_file() and not (folder / UNFINISHED).exists():
            return EngineLocation(str(python), source)
    command = shutil.which("rs4d")
    python = command and _python_of_command(Path(command))
    if python:
        return EngineLocation(python, "path")
    if (managed_folder() / UNFINISHED).exists():
        raise EngineNotFound(
            "The set-up of the engine was not finished: choose Raster > RS4D > Set up engine... to go on with it."
        )
    raise EngineNotFound(
        "The engine of RS4D is not installed, or was not found: choose Raster > RS4D > Set up engine..., "
        "or name its Python in Check engine..."
    )


def missing_engine() -> str | None:
    """Why there is no engine, for algorithms that ask before they run. None where there seems to be one."""
    try:
        locate_engine()
    except EngineNotFound as error:
        return str(error)
    return None


def managed_folder() -> Path:
    """Where "Set up engine..." makes its environment: in the QGIS profile, which is the user's own."""
    return Path(QgsApplication.qgisSettingsDirPath()) / "rs4d" / "engine"


def checkout_folder() -> Path | None:
    """The folder with the source that the plugin runs from, None where it was installed from a zip."""
    root = Path(__file__).resolve().parents[2]
    return root if is_source(root) else None


def is_source(folder: Path) -> bool:
    """Whether pip can install the engine from a folder."""
    return (folder / "pyproject.toml").is_file() and (folder / "rs4d_core" / "__init__.py").is_file()


def _existing(python: str, how: str, next_step: str) -> str:
    path = Path(python).expanduser()
    if not path.is_file():
        raise EngineNotFound(f"The engine's Python {how}, {python}, does not exist: {next_step}.")
    return str(path)


def _python_of_command(command: Path) -> str | None:
    """The interpreter that an installed script belongs to."""
    command = command.resolve()  # pipx and the like put links on PATH
    if os.name == "nt":
        # Scripts\ of a virtual environment has its python.exe beside, that of an installation one folder above.
        candidates = [command.parent / "python.exe", command.parent.parent / "python.exe"]
    else:
        candidates = [*_script_python(command), command.parent / "python"]
    return next((str(path) for path in candidates if path.is_file()), None)


def _script_python(script: Path) -> list[Path]:
    try:
        with script.open("rb") as file:
            lines = file.read(4096).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    if lines and lines[0].startswith("#!") and "python" in lines[0]:
        return [Path(lines[0][2:].strip())]
    # pip's way with long paths: #!/bin/sh, then '''exec' /path/to/python "$0" "$@"
    if len(lines) > 1 and lines[1].startswith("'''exec'"):
        return [Path(lines[1][len("'''exec'") :].rpartition(' "$0"')[0].strip().strip('"'))]
    return []
