"""Bring data sets of image tiles with mask tiles, as WHU's, into the layout of prepared ones.

Each region of connected mask pixels becomes an object. Pixels that touch by a corner only are not connected: two houses
that stand corner to corner are two.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import shapely
from PIL import Image
from pycocotools import mask as mask_utils
from rasterio.features import rasterize, shapes
from shapely.geometry import shape

from rs4d_core.datasets.findings import DROPPED, IMAGE, OBJECT, Finding
from rs4d_core.datasets.pictures import read_picture
from rs4d_core.datasets.preparation import Description, Labelled, Preparation, Prepared, file_stamp
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.datasets.world_files import files_beside
from rs4d_core.errors import DatasetError

# Smaller regions, in pixels, are specks of the mask's making and slivers at a tile's edge.
SMALLEST_PX = 10
_ENDINGS = (".tif", ".tiff", ".png", ".jpg", ".jpeg", ".bmp")


@dataclass(frozen=True)
class MaskPart:
    """Two folders whose files of one name, but for the ending, are an image and its mask; and where they go."""

    images: Path
    masks: Path
    split: str


def prepare_masks(
    parts: tuple[MaskPart, ...],
    folder: Path,
    description: Description,
    progress: Callable[[list], Iterable] = iter,
) -> Prepared:
    """Prepare a data set of one class from image and mask tiles.

    Args:
        folder: where the data set is to be.
        progress: goes over the images, to show how far the work is.

    Raises:
        DatasetError: there are no tiles, or none is left to train on.
        OutputError: the data set cannot be written.
    """
    pairs: list[tuple[MaskPart, Path, Path | None]] = []
    findings: list[Finding] = []
    for part in parts:
        images, masks = _tiles(part.images, findings), _tiles(part.masks, findings)
        pairs += [(part, file, masks.get(stem)) for stem, file in images.items()]
        lone = sorted(masks.keys() - images.keys())
        findings += [Finding(IMAGE, DROPPED, "mask without an image", str(masks[stem])) for stem in lone]
    stamps = [file_stamp(file) for part in parts for file in (part.images, part.masks)]
    plan = {"kind": "masks", "folders": stamps, "description": asdict(description)}
    with Preparation(folder, plan) as preparation:
        for part, file, mask in progress(pairs):
            if mask is None:
                findings.append(Finding(IMAGE, DROPPED, "no mask", str(file)))
            else:
                preparation.take(part.split, file.name, lambda file=file, mask=mask: _labelled(file, mask))
        return preparation.finish(description, findings)


def _tiles(folder: Path, findings: list[Finding]) -> dict[str, Path]:
    """Image files by their names without endings, sorted: numbers by their value. Of two with one name, the first."""
    try:
        names = [name for name in os.listdir(folder) if name.lower().endswith(_ENDINGS) and not name.startswith(".")]
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read ({error.strerror}); give a folder of tiles") from None
    if not names:
        raise DatasetError(f"{folder}: no tile in it ({', '.join(_ENDINGS)}); give the folder that holds them")
    names.sort(key=lambda name: (len(name), name))
    tiles: dict[str, Path] = {}
    for name in names:
        file = folder / name
        first = tiles.setdefault(file.stem, file)
        if first is not file:
            findings.append(Finding(IMAGE, DROPPED, "named as another, but for the ending", str(file), str(first)))
    return tiles


def _labelled(file: Path, mask_file: Path) -> tuple[Labelled | None, list[Finding]]:
    try:
        with Image.open(file) as image:
            width, height = image.size
        read_picture(Sample(file, width, height, 0, (), ()))
        content, beside = file.read_bytes(), files_beside(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return None, [Finding(IMAGE, DROPPED, "not to be read", str(file), " ".join(str(error).split()))]
    try:
        mask = read_mask(mask_file)
        if mask.shape != (height, width):
            raise DatasetError(f"is {mask.shape[1]} x {mask.shape[0]} pixels, its image is {width} x {height}")
    except DatasetError as error:
        return None, [Finding(IMAGE, DROPPED, "mask not to be used", str(mask_file), str(error))]
    annotations, findings = [], []
    for annotation, pixels in instances(mask):
        if pixels < SMALLEST_PX:
            findings.append(Finding(OBJECT, DROPPED, f"smaller than {SMALLEST_PX} pixels", str(mask_file)))
        else:
            annotations.append(annotation)
    source = {"file": str(file), "mask": str(mask_file)}
    return Labelled(content, width, height, tuple(annotations), source, beside), findings


def read_mask(file: Path) -> np.ndarray:
    """`(h, w)` bool of an image of two values, of which the brighter one marks objects.

    Brightness is what a viewer would show: a file may store white as 0 (a TIFF's WhiteIsZero) or through a palette. A
    mask of one value is all background if that is black, else all object.

    Raises:
        DatasetError: it cannot be read, or has more than two values.
    """
    try:
        with Image.open(file) as image:
            values = np.asarray(image.convert("L"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"not an image that Pillow can read ({' '.join(str(error).split())})") from None
    found = np.unique(values)
    if len(found) > 2:
        raise DatasetError(f"has {len(found)} values, where background and object are two")
    return values > (found[0] if len(found) == 2 else 0)


def instances(mask: np.ndarray) -> Iterator[tuple[Annotation, float]]:
    """The connected regions of a mask `(h, w)` bool, of label 0, and how many pixels each has.

    Outlines run along the pixels' edges; one with holes comes as run lengths.
    """
    for geometry, _ in shapes(mask.astype(np.uint8), mask=mask, connectivity=4):
        region = shape(geometry)
        left, top, right, bottom = region.bounds
        if region.interiors:
            pixels = rasterize([region], out_shape=mask.shape, dtype=np.uint8)
            rle = mask_utils.encode(np.asfortranarray(pixels))
            yield Annotation(0, (left, top, right, bottom), rle=rle), region.area
        else:
            ring = shapely.get_coordinates(region.exterior)[:-1]
            yield Annotation(0, (left, top, right, bottom), (ring,)), region.area
