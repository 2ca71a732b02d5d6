"""Files that come with the plugin."""

from __future__ import annotations

import configparser
import functools
from pathlib import Path

from qgis.PyQt.QtGui import QIcon

PLUGIN_FOLDER = Path(__file__).resolve().parent


def resource(name: str) -> Path:
    """A file of `resources/`, such as "icons/rs4d.svg". An installed plugin has it inside, a checkout beside."""
    inside = PLUGIN_FOLDER / "resources"
    return (inside if inside.is_dir() else PLUGIN_FOLDER.parent / "resources") / name


def icon(name: str = "rs4d") -> QIcon:
    """An icon of `resources/icons/`, without its suffix."""
    return QIcon(str(resource(f"icons/{name}.svg")))


@functools.cache
def plugin_version() -> str:
    """The plugin's version, as its metadata has it."""
    metadata = configparser.ConfigParser(interpolation=None)
    inside = PLUGIN_FOLDER / "metadata.txt"
    metadata.read(inside if inside.is_file() else PLUGIN_FOLDER.parent / "metadata.txt", encoding="utf-8")
    return metadata.get("general", "version")
