"""Which rasters are meant by what a user names: files, folders, lists of names, addresses."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rs4d_core.errors import SceneError
from rs4d_core.scenes.reading.addresses import is_remote
from rs4d_core.wording import counted

LIST_MARK = "@"
# Of an image, as they are delivered. Everything else in a folder lies beside images, or names them, as a VRT does.
IMAGE_SUFFIXES = (
    *(".tif", ".tiff", ".gtiff", ".jp2", ".j2k", ".png", ".jpg", ".jpeg", ".webp", ".img", ".ntf", ".nitf"),
    *(".ecw", ".sid", ".pix", ".mrf", ".bil", ".asc"),
)
INDEX_SUFFIXES = (".vrt", ".gti")
# A list of a hundred thousand names has ten million bytes: beyond this it is something else.
MOST_LIST_BYTES = 64 << 20


@dataclass(frozen=True)
class SceneList:
    """Names of rasters.

    Attributes:
        names: each once, in the order in which they were given; those of a folder by name.
        found: those of them that nobody has named, but that lie in a folder which was.
        notes: what was not taken, one sentence each.
    """

    names: tuple[str, ...]
    found: frozenset[str]
    notes: tuple[str, ...]


def list_scenes(given: Sequence[str]) -> SceneList:
    """The rasters behind names: a folder stands for the images in it, and `@FILE` for the names in that file.

    Folders in a folder are not looked into. A list has a name a line, relative to its own folder, and may name folders;
    empty lines and those that begin with # are passed over.

    Raises:
        SceneError: a folder or list cannot be read, or there is no raster in it.
    """
    names: dict[str, str] = {}
    found: set[str] = set()
    notes: list[str] = []
    for name in _named(given):
        if is_remote(name) or not os.path.isdir(name):
            names.setdefault(_identity(name), name)
            continue
        for image in _images_in(name, notes):
            if names.setdefault(_identity(image), image) == image:
                found.add(image)
    return SceneList(tuple(names.values()), frozenset(found), tuple(notes))


def _named(given: Sequence[str]) -> Iterator[str]:
    for name in given:
        if not name.startswith(LIST_MARK):
            yield name
            continue
        path = Path(name.removeprefix(LIST_MARK))
        if name == LIST_MARK:
            raise SceneError(f"{LIST_MARK} alone names no list: give {LIST_MARK}FILE, a text file with one name a line")
        lines = [line.strip() for line in _read_list(path).splitlines()]
        named = [line for line in lines if line and not line.startswith("#")]
        if not named:
            raise SceneError(f"the list {path} names no scene: write one name a line")
        for line in named:
            # Names of GDAL's own, such as /vsizip/..., are absolute already.
            yield line if is_remote(line) or "://" in line else os.path.join(os.path.dirname(path), line)


def _read_list(path: Path) -> str:
    try:
        # Of a pipe, as a shell makes for @<(...), or of a device nobody knows beforehand how much comes.
        with path.open("rb") as file:
            content = file.read(MOST_LIST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SceneError(f"the list {path} cannot be read ({error.strerror}): check its path") from error
    except ValueError:  # not UTF-8, or no name of a file
        raise SceneError(f"{path} is no list of names: give a text file (UTF-8) with one name a line") from None
    if len(content) > MOST_LIST_BYTES or "\0" in text:
        raise SceneError(f"{path} is no list of names: give a text file (UTF-8) with one name a line")
    return text


def _images_in(folder: str, notes: list[str]) -> list[str]:
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise SceneError(f"the folder {folder} cannot be read ({error.strerror}): ask for read permission") from error
    images = [entry.path for entry in entries if _is_a(entry, IMAGE_SUFFIXES)]
    indices = [entry.name for entry in entries if _is_a(entry, INDEX_SUFFIXES)]
    folders = sum(entry.is_dir() for entry in entries)
    if not images:
        inside = f", only {counted(folders, 'folder')}: name what holds the images" if folders else ": name another"
        if indices:
            inside = f", but {indices[0]}: name that file itself"
        raise SceneError(f"there is no image in the folder {folder}{inside}")
    if folders:
        notes.append(f"{folder} has {counted(folders, 'folder')} in it, not looked into")
    if indices:
        notes.append(
            f"{', '.join(indices[:3])}{' and others' if len(indices) > 3 else ''} in {folder} left out, as it names "
            "other rasters: give it by itself to have it read"
        )
    return images


def _is_a(entry: os.DirEntry, suffixes: tuple[str, ...]) -> bool:
    return entry.is_file() and entry.name.lower().endswith(suffixes)


def _identity(name: str) -> str:
    """The same for two names of one file."""
    return os.path.realpath(name) if not is_remote(name) and os.path.exists(name) else name
