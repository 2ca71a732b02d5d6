"""Where the file of a result goes."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rs4d_qgis.translation import tr

# Folders of programs that copy a file while it is written, lock it, or bring back an older one: a GeoPackage in there
# is damaged sooner or later. They are known by their names, and by what some leave in their top folder.
_SYNCED_NAMES = re.compile(
    r"onedrive( - .*)?|dropbox( \(.*\))?|google ?drive|my drive|googledrive-.*|icloud ?drive|mobile documents|"
    r"com~apple~clouddocs|nextcloud|owncloud|pclouddrive|pcloud drive|box( sync)?|seafile|syncthing",
    re.IGNORECASE,
)
_SYNCED_MARKS = (".dropbox", ".stfolder", ".owncloudsync.log", ".nextcloudsync.log", ".seafile-data", ".sync_*.db")


@dataclass(frozen=True)
class Place:
    """A file that does not exist yet, in a folder that does.

    Attributes:
        path: of the file.
        aloud: why it is not beside the project, for the user; empty where it is.
    """

    path: Path
    aloud: str


def choose_place(project_folder: str, documents: str, layer_name: str) -> Place:
    """A new GeoPackage for a result: beside the project, or else where files are safe.

    Args:
        project_folder: of the saved project; empty where it is not saved, or not in a file.
        documents: the user's folder for documents.
        layer_name: of the raster; gives the file its name.

    Raises:
        OSError: there is no folder at all that can be written.
    """
    candidates = [Path(documents) / "RS4D", Path.home() / "RS4D", Path(tempfile.gettempdir()) / "RS4D"]
    why = tr("The project has not been saved")
    if project_folder:
        beside = Path(project_folder)
        if not _writable(beside):
            why = tr("The project's folder cannot be written")
        elif is_synced(beside):
            why = tr("The project's folder is synchronised by another program, which damages such files")
        else:
            return Place(_new_file(beside, layer_name), "")
    for folder in candidates:
        if is_synced(folder):
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if _writable(folder):
            return Place(_new_file(folder, layer_name), tr("{}: the result is in {}").format(why, folder))
    raise OSError(tr("No folder for the result can be written: save the project in one that can"))


def is_synced(folder: Path) -> bool:
    """Does a cloud client copy what is in this folder?"""
    return any(
        _SYNCED_NAMES.fullmatch(part.name) or any(next(part.glob(mark), None) for mark in _SYNCED_MARKS)
        for part in (folder, *folder.parents)
    )


def _writable(folder: Path) -> bool:
    # Trying is the only way to know: permission bits say little on network drives, and nothing on Windows.
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _new_file(folder: Path, layer_name: str) -> Path:
    # Without dots: QGIS would take what follows the first one for the format of the file.
    stem = re.sub(r"[^\w-]+", "_", layer_name).strip("_")[:60] or "scene"
    name, number = f"{stem}-instances.gpkg", 1
    while (folder / name).exists():
        number += 1
        name = f"{stem}-instances-{number}.gpkg"
    return folder / name
