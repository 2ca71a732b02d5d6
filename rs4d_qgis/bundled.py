"""Files that come with the plugin: an installed one has them inside, a checkout beside, at its top level."""

from __future__ import annotations

import configparser
import functools
from pathlib import Path

from qgis.PyQt.QtGui import QIcon

_PLUGIN_FOLDER = Path(__file__).resolve().parent


def bundled(name: str) -> Path:
    """A file or folder, such as "constraints.txt"."""
    inside = _PLUGIN_FOLDER / name
    return inside if inside.exists() else _PLUGIN_FOLDER.parent / name


def resource(name: str) -> Path:
    """A file of `resources/`, such as "icons/rs4d.svg"."""
    return bundled(f"resources/{name}")


def icon(name: str = "rs4d") -> QIcon:
    """An icon of `resources/icons/`, without its suffix."""
    return QIcon(str(resource(f"icons/{name}.svg")))


@functools.cache
def plugin_version() -> str:
    """The plugin's version, as its metadata has it."""
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(bundled("metadata.txt"), encoding="utf-8")
    return metadata.get("general", "version")
