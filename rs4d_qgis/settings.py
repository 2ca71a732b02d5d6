"""What the plugin remembers, in QGIS's settings under `rs4d/`."""

from __future__ import annotations

import json

from qgis.core import QgsSettings

_PREFIX = "rs4d/"


def _read(key: str, default: str = "") -> str:
    value = QgsSettings().value(_PREFIX + key, default)
    return default if value is None else str(value)


def _write(key: str, value: str) -> None:
    if value:
        QgsSettings().setValue(_PREFIX + key, value)
    else:
        QgsSettings().remove(_PREFIX + key)


def interpreter() -> str:
    """Path of the engine's Python that the user chose, "" to find one."""
    return _read("engine/interpreter")


def set_interpreter(path: str) -> None:
    """Choose the engine's Python; "" to find one."""
    _write("engine/interpreter", path)


def model_folders() -> list[str]:
    """Folders with the user's own model files."""
    try:
        folders = json.loads(_read("models/folders", "[]"))
    except ValueError:
        return []
    return [str(folder) for folder in folders] if isinstance(folders, list) else []


def set_model_folders(folders: list[str]) -> None:
    """Choose the folders with the user's own model files."""
    _write("models/folders", json.dumps(list(folders)))


def last(name: str, default: object = None) -> object:
    """What was used the last time under this name: anything that JSON can tell, else `default`."""
    try:
        return json.loads(_read(f"last/{name}", "null")) if _read(f"last/{name}") else default
    except ValueError:
        return default


def set_last(name: str, value: object) -> None:
    """Remember a value of JSON's kinds under this name."""
    _write(f"last/{name}", json.dumps(value))
