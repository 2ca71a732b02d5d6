"""What teacher and student look at: square views of the images of some folders."""

import functools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from rs4d_core.datasets.pictures import has_more_than_8_bits
from rs4d_core.errors import DatasetError, RS4DError
from rs4d_core.models.encoder import PATCH
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
RASTERS = (".tif", ".tiff", ".vrt", ".jp2", ".img")
_FIT = 1.5
"""Images up to this many views long are one view; larger ones are cut."""
_OPEN_SCENES = 8


@dataclass(frozen=True)
class ImageFile:
    """An image that can be opened: its path, and its size in pixels (of a raster in degrees: in square pixels)."""

    path: Path
    width: int
    height: int


@dataclass(frozen=True)
class View:
    """A part of an image: `window` of its pixels as they are, or all of it, scaled to the view's side."""

    image: ImageFile
    window: Window | None


@dataclass(frozen=True)
class Pixels:
    """A view's pixels.

    Attributes:
        rgb: `(3, S, S)` uint8; 0 where nothing is known.
        shown: `(S/16, S/16)` bool, the tokens at least half of whose pixels are known.
    """

    rgb: np.ndarray
    shown: np.ndarray


def find_images(
    root: Path, folders: tuple[str, ...], bands: tuple[int, ...] | None
) -> tuple[list[ImageFile], dict[str, str]]:
    """All images in the folders and theirs, by name; and why those that cannot be opened cannot.

    Raises:
        DatasetError: a folder is missing, or there is no image that can be opened.
    """
    paths = set()
    for folder in folders:
        if not (root / folder).is_dir():
            raise DatasetError(f"there is no folder {root / folder}: check images.folders and --data")
        for place, _, names in os.walk(root / folder, followlinks=True):
            paths |= {Path(place, name) for name in names if name.lower().endswith(PICTURES + RASTERS)}
    images, unreadable = [], {}
    for path in sorted(paths):
        try:
            images.append(ImageFile(path, *_size(path, bands)))
        except RS4DError as error:
            unreadable[str(path)] = str(error)
    if not images:
        raise DatasetError(f"none of the {len(paths)} images in {', '.join(folders)} under {root} can be opened")
    return images, unreadable


def images_as_json(images: list[ImageFile], unreadable: dict[str, str], root: Path) -> bytes:
    """A list of images to keep: a run goes on with the very images it began with, wherever `root` is by then."""
    entries = [[os.path.relpath(image.path, root), image.width, image.height] for image in images]
    return json.dumps({"images": entries, "unreadable": unreadable}).encode()


def saved_images(path: Path, root: Path) -> tuple[list[ImageFile], dict[str, str]]:
    """The list that `images_as_json` made.

    Raises:
        DatasetError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = [ImageFile(root / name, width, height) for name, width, height in content["images"]]
        return images, dict(content["unreadable"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"the list of images {path} is damaged ({error}): distil under another name") from error


def split(images: list[ImageFile], held_back: int, seed: int) -> tuple[list[ImageFile], list[ImageFile]]:
    """Images to train on, and images to measure on.

    Raises:
        DatasetError: none would be left to train on.
    """
    if held_back >= len(images):
        raise DatasetError(f"images.held_back is {held_back}, of {len(images)} images: hold back fewer")
    drawn = set(np.random.default_rng(seed).permutation(len(images))[:held_back].tolist())
    training = [image for index, image in enumerate(images) if index not in drawn]
    return training, [image for index, image in enumerate(images) if index in drawn]


def views_of(image: ImageFile, size: int) -> list[View]:
    """The views of `size` x `size` pixels that cover an image.

    An image up to 1.5 times as long as a view is one: scaled until its longer side fits, as SAM does. A larger one is
    cut in windows of its own pixels, so that scenes of any size are seen as they are.
    """
    if max(image.width, image.height) <= _FIT * size:
        return [View(image, None)]
    width, height = min(size, image.width), min(size, image.height)
    starts = [(col, row) for row in _starts(image.height, size) for col in _starts(image.width, size)]
    return [View(image, Window(col, row, width, height)) for col, row in starts]


def _starts(side: int, size: int) -> list[int]:
    """As few windows along a side as cover it, evenly spread."""
    return np.linspace(0, max(side - size, 0), -(-side // size)).round().astype(int).tolist()


def read_view(view: View, size: int, bands: tuple[int, ...] | None) -> Pixels:
    """The pixels of a view; what sticks out of the image, at the right and at the bottom, is unknown.

    Raises:
        DatasetError, SceneError, OptionError: the image cannot be read, or the view shows nothing but nodata.
    """
    window = view.window
    if _is_picture(view.image.path):
        with _opened(view.image.path) as file:
            part = _decoded(file, view)
        rgb, valid = np.asarray(part), np.ones((part.height, part.width), bool)
    else:
        scene = _scene(view.image.path, bands)
        image, valid = scene.read(window or Window(0, 0, scene.width, scene.height))
        rgb = np.rint(image).astype(np.uint8).transpose(1, 2, 0)
    if window is None:
        scale = size / max(rgb.shape[:2])
        fitted = (max(1, round(rgb.shape[1] * scale)), max(1, round(rgb.shape[0] * scale)))
        rgb = np.asarray(Image.fromarray(rgb).resize(fitted, Image.Resampling.BILINEAR, reducing_gap=3.0))
        valid = np.asarray(Image.fromarray(valid).resize(fitted, Image.Resampling.NEAREST))
    canvas, known = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), bool)
    height, width = rgb.shape[:2]
    canvas[:height, :width][valid] = rgb[valid]
    known[:height, :width] = valid
    tokens = size // PATCH
    shown = known.reshape(tokens, PATCH, tokens, PATCH).mean(axis=(1, 3)) >= 0.5
    if not shown.any():
        raise DatasetError(f"{view.image.path} shows nothing but nodata in {window or 'the whole of it'}")
    return Pixels(np.ascontiguousarray(canvas.transpose(2, 0, 1)), shown)


def _is_picture(path: Path) -> bool:
    """Whether Pillow reads it: faster, but it knows neither bands nor nodata, nor more than 8 bits."""
    if path.suffix.lower() not in PICTURES:
        return False
    with _opened(path) as file:
        return not has_more_than_8_bits(file)


def _size(path: Path, bands: tuple[int, ...] | None) -> tuple[int, int]:
    if _is_picture(path):
        with _opened(path) as file:
            return file.size
    with Scene.open(path, bands) as scene:
        return scene.width, scene.height


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file that Pillow has opened. Reading it raises DatasetError."""
    try:
        with Image.open(path) as file:
            yield file
    except RS4DError:
        raise
    # SyntaxError: a damaged PNG.
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read ({error}): get the file again, or take it away") from None


def _decoded(file: Image.Image, view: View) -> Image.Image:
    if file.size != (view.image.width, view.image.height):
        raise DatasetError(
            f"{view.image.path} is {file.width} x {file.height} pixels, and was {view.image.width} x "
            f"{view.image.height} when the run began: put the image back"
        )
    window = view.window
    if window is not None:
        file = file.crop((window.col, window.row, window.col + window.width, window.row + window.height))
    return file.convert("RGB")


@functools.lru_cache(_OPEN_SCENES)
def _scene(path: Path, bands: tuple[int, ...] | None) -> Scene:
    # Opening a scene of more than 8 bits measures its stretch: not again for each of its windows.
    return Scene.open(path, bands)
