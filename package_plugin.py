"""Put the plugin into the one zip that QGIS installs: `dist/rs4d-<version>.zip`.

    python package_plugin.py [FOLDER]

What the checkout has beside `rs4d_qgis/` goes into it: metadata, licence, the pinned versions for the set-up of the
engine, and icons. The same sources always give the same bytes.
"""

from __future__ import annotations

import configparser
import re
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PLUGIN = "rs4d_qgis"
# What stands beside the plugin in a checkout and inside it in the zip.
BESIDE = ("metadata.txt", "LICENSE", "constraints.txt", "resources/icons")
SUFFIXES = {".py", ".svg"}

_NO_DATE = (1980, 1, 1, 0, 0, 0)
_PLAIN_FILE = 0o100644 << 16


class PackageError(Exception):
    """The sources are not fit to be packed."""


def build(folder: Path) -> Path:
    """Write the zip into `folder`, and return its path.

    Raises:
        PackageError: the versions differ, or a file does not belong into the plugin.
    """
    files = plugin_files()
    path = folder / f"rs4d-{_version()}.zip"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(f"{PLUGIN}/{name}", _NO_DATE)
            entry.external_attr = _PLAIN_FILE
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, files[name].read_bytes())
    return path


def plugin_files() -> dict[str, Path]:
    """The files of the plugin: their names in its folder, and where they are."""
    files = {name: ROOT / name for name in BESIDE if (ROOT / name).is_file()}
    for base in (ROOT / PLUGIN, *(ROOT / name for name in BESIDE if (ROOT / name).is_dir())):
        start = ROOT / PLUGIN if base.name == PLUGIN else ROOT
        for path in base.rglob("*"):
            # The link to metadata.txt lets QGIS load the plugin from a checkout.
            if path.is_dir() or path.is_symlink() or "__pycache__" in path.parts:
                continue
            if path.suffix not in SUFFIXES:
                raise PackageError(
                    f"{path} does not belong into the plugin: only {', '.join(sorted(SUFFIXES))} files do"
                )
            files[path.relative_to(start).as_posix()] = path
    return files


def _version() -> str:
    metadata = configparser.ConfigParser(interpolation=None)
    metadata.read(ROOT / "metadata.txt", encoding="utf-8")
    version = metadata["general"]["version"]
    # Not by a TOML reader: Python has one only from 3.11 on.
    engine = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    if engine is None or engine[1] != version:
        raise PackageError(
            f"metadata.txt is of version {version}, pyproject.toml of {engine and engine[1]}: make them one"
        )
    return version


def main(arguments: list[str]) -> int:
    """Build, and say where the zip is."""
    try:
        path = build(Path(arguments[0]) if arguments else ROOT / "dist")
    except PackageError as error:
        print(f"package_plugin: {error}", file=sys.stderr)
        return 2
    print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
