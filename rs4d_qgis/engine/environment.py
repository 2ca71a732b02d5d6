"""A virtual environment on disk, and the variables that its processes are started with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Lies in an environment whose set-up did not come to its end.
UNFINISHED = "rs4d-unfinished"

# What QGIS, its launcher or the user set for QGIS's own Python, GDAL and PROJ would mislead the engine's.
_FOREIGN = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONEXECUTABLE",
    "__PYVENV_LAUNCHER__",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "PROJ_LIB",
    "PROJ_DATA",
    "GDAL_DATA",
    "GDAL_DRIVER_PATH",
)


def environment_python(folder: Path) -> Path:
    """The interpreter of a virtual environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def clean_environment() -> dict[str, str]:
    """The variables for a Python that is not QGIS's."""
    kept = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
    return {**kept, "PYTHONNOUSERSITE": "1"}


def quiet_start() -> dict:
    """Arguments of Popen for a child that opens no console window and does not get the Ctrl-C meant for QGIS."""
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}
