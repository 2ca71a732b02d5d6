"""What the engine is installed from. Never from an index by its name: what stands there need not be this project."""

from __future__ import annotations

import enum
from pathlib import Path

from rs4d_qgis.bundled import plugin_version
from rs4d_qgis.engine.locate import is_source
from rs4d_qgis.translation import tr


class Source(enum.Enum):
    """Kinds of sources that the user names."""

    FOLDER = enum.auto()
    WHEEL = enum.auto()
    WHEELS = enum.auto()


def package(source: Source, path: str) -> str:
    """What pip is given. `path`, of a folder or wheel, comes out absolute: pip takes a bare word for a name."""
    return f"rs4d=={plugin_version()}" if source is Source.WHEELS else str(Path(path).absolute())


def problem(source: Source, path: str, wheels: str) -> str | None:
    """What is still missing, as a sentence for users; None where pip can begin.

    Args:
        source: the kind that was chosen.
        path: of the folder or the wheel, "" where none is named. Not looked at for `WHEELS`.
        wheels: the folder with all wheels, "" to download what the engine needs.
    """
    if source is Source.FOLDER:
        if not path:
            return tr("Choose the folder with the source of RS4D: the one that has pyproject.toml in it.")
        if not is_source(Path(path)):
            return tr("{} is not the source of RS4D: choose the folder that has pyproject.toml in it.").format(path)
    elif source is Source.WHEEL:
        if not path:
            return tr("Choose the wheel file of RS4D.")
        if not (path.endswith(".whl") and Path(path).is_file()):
            return tr("{} is not a wheel: choose a file that ends with .whl.").format(path)
    elif not wheels:
        return tr("Choose the folder with all wheels, at “Without internet”.")
    elif not any(Path(wheels).glob(f"rs4d-{plugin_version()}-*.whl")):
        return tr("{} has no wheel of RS4D {}: choose the folder that has one.").format(wheels, plugin_version())
    return problem_of_wheels(wheels)


def problem_of_wheels(folder: str) -> str | None:
    """As `problem`, of the folder with all wheels alone."""
    if folder and not any(Path(folder).glob("*.whl")):
        return tr("{} has no wheels in it: choose another folder, or none to download them.").format(folder)
    return None
