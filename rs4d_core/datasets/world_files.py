"""Files that lie beside an image and tell its place: world files, projections, GDAL's own."""

import os
from pathlib import Path

_BESIDE = (".wld", ".prj", ".aux.xml")


def files_beside(image: Path) -> dict[str, bytes]:
    """Their contents, by what follows the image's name without its ending: {".tfw": b"..."}.

    Raises:
        OSError: one of them cannot be read.
    """
    letters = image.suffix[1:]
    # By custom: the first and the last letter of the ending with a w, or the whole of it.
    world = [f".{letters[0]}{letters[-1]}w", f".{letters}w"] if letters else []
    found = {}
    for ending in [*world, *_BESIDE]:
        for rest in dict.fromkeys((ending, ending.upper(), f"{image.suffix}{ending}")):
            file = image.with_name(f"{image.stem}{rest}")
            if os.path.isfile(file):
                found[rest] = file.read_bytes()
    return found
