"""One raster that GDAL can open: the checks at opening, the choice of bands, and reading pixels with their validity."""

import functools
import hashlib
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.env import ensure_env
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError
from rasterio.io import DatasetReader
from rasterio.windows import Window as PixelWindow

from rs4d_core.errors import OptionError, SceneError
from rs4d_core.scenes.reading import libtiff
from rs4d_core.scenes.reading.addresses import gdal_name, is_remote, network_options, shown, without_secrets

RGB = (ColorInterp.red, ColorInterp.green, ColorInterp.blue)

# GDAL's cache of decoded blocks is 5 % of the machine's memory unless told otherwise, and fills up on large scenes
# only: memory would grow with the scene. This holds the blocks that neighbouring windows share.
CACHE_BYTES = 32 << 20
# Files stored in whole lines need a row of windows' worth of lines, or each window decodes them all again.
LINE_CACHE_BYTES = 512 << 20
LINES_CACHED = 1536

# Each read looks at all bands, which takes rasterio 16 microseconds a band. Imaging spectrometers have hundreds.
MOST_BANDS = 4096

# A block is decoded as a whole. A file that was written in one compressed piece may pass; a picture of the sky may not.
LARGEST_BLOCK_BYTES = 512 << 20
# A TIFF lists where each of its blocks begins and how long it is: this many bytes a block, at least.
TIFF_ENTRY_BYTES = 4

# Reading the place of a block costs 2 microseconds; beyond this many, every n-th is looked at.
BLOCKS_CHECKED = 50_000

# The stretch is measured on a grid of windows of this side, spread over the scene.
SAMPLE_SIDE = 256
SAMPLES_PER_AXIS = 8
WHOLE_SAMPLE_PIXELS = 4_000_000
FEW_SAMPLES = 1000

SIGNATURE_BLOCKS = 64
# A scene that is nodata nearly everywhere is searched in parts of this side, so many at most, spread over it.
SEARCHED_SIDE = 1024
MOST_SEARCHED = 4096


libtiff.silence()

# What rasterio raises when GDAL fails: its own class where it looks at the error, GDAL's where it does not.
GDAL_ERRORS = (RasterioIOError, CPLE_BaseError)


def opens_raster(function: Callable) -> Callable:
    """For class methods that open a raster, named by their first argument: what GDAL has to say of a damaged file goes
    to no stderr but into a SceneError."""

    @ensure_env
    @functools.wraps(function)
    def opening(owner: type, path: Path | str, *arguments, **named):
        try:
            return function(owner, path, *arguments, **named)
        except GDAL_ERRORS as error:
            reason = without_secrets(str(error))
            raise SceneError(f"{shown(str(path))} is damaged ({reason}): copy or download it again") from error

    return opening


class Raster:
    """An open raster and its chosen bands. Holds one GDAL handle: not to be used by two threads at the same time.

    Attributes:
        dataset: the open rasterio dataset.
        bands: the three band numbers, from 1, that make red, green and blue.
    """

    def __init__(self, dataset: DatasetReader, bands: tuple[int, int, int]):
        self.dataset = dataset
        self.bands = bands
        self._distinct = list(dict.fromkeys(bands))
        self._common_dtype = np.result_type(*(np.dtype(self._dtype(band)) for band in self._distinct))
        self._palette = _palette(dataset, bands)
        # Asked once, for all bands are asked each time.
        all_flags = dataset.mask_flag_enums
        self._flags = [all_flags[band - 1] for band in self._distinct]
        self._alpha = _alpha_bands(dataset)
        self._pixel_bytes = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
        self._network = network_options(_sources(dataset))

    @classmethod
    @opens_raster
    def open(cls, path: Path | str, bands: Sequence[int] | None) -> "Raster":
        """Raises SceneError for what is no readable raster, OptionError for bands that it does not have."""
        dataset = _open(path)
        try:
            _check(dataset, shown(str(path)))
            return cls(dataset, _choose_bands(dataset, bands, shown(str(path))))
        except BaseException:
            dataset.close()
            raise

    @property
    def planes(self) -> int:
        """How many planes `read` gives: bands that are used twice are read once, a palette becomes three colours."""
        return 3 if self._palette is not None else len(self._distinct)

    @property
    def files(self) -> list[str]:
        """The files that the pixels come from, as GDAL names them."""
        # Beside a raster, QGIS leaves statistics in such a file when it only looks at it.
        return [name for name in self.dataset.files if not name.endswith(".aux.xml")]

    @property
    def is_picture(self) -> bool:
        """Whether values are brightnesses of 0 to 255 already."""
        return self._palette is not None or all(self._dtype(band) == "uint8" for band in self._distinct)

    def spread(self, planes: np.ndarray) -> np.ndarray:
        """Planes as `read` gives them `(n, h, w)` -> red, green and blue `(3, h, w)`."""
        if self._palette is not None:
            return planes
        return planes[[self._distinct.index(band) for band in self.bands]]

    def read(self, col: int, row: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """Pixels of a window that lies inside the raster, in its own type.

        A pixel is invalid where ALL chosen bands are nodata (a dark roof may be 0 in one band), where a mask or an
        alpha band hides it, or where all bands are NaN or infinite. Single values that are not finite become NaN.

        Returns:
            Planes `(n, height, width)` and which pixels are valid `(height, width)` bool.

        Raises:
            SceneError: the file is damaged there.
        """
        window = PixelWindow(col, row, width, height)
        try:
            with rasterio.Env(**self._cache(), **self._network):
                planes = self.dataset.read(self._distinct, window=window, out_dtype=self._common_dtype)
                valid = self._valid(planes, window)
        except GDAL_ERRORS as error:
            reason = without_secrets(str(error.__cause__ or error))
            mend = "the file is damaged: copy or download it again"
            if self._network:
                mend = "check the network and the server, and start again"
            raise SceneError(
                f"{shown(self.dataset.name)} cannot be read at columns {col} to {col + width}, rows {row} to "
                f"{row + height}: {reason}; {mend}"
            ) from error
        if planes.dtype.kind == "f":
            planes[~np.isfinite(planes)] = np.nan
        if self._palette is not None:
            planes = self._palette[:, planes[0]]
        return planes, valid

    def nothing(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """What `read` would give for a part without a single valid pixel."""
        kind = np.uint8 if self._palette is not None else self._common_dtype
        return np.zeros((self.planes, height, width), kind), np.zeros((height, width), dtype=bool)

    @ensure_env
    def overview(self, step: float) -> "Raster":
        """This raster at the coarsest of its overviews that is still finer than `step` pixels; itself where none is."""
        dataset = self.dataset
        factors = set(dataset.overviews(self._distinct[0])).intersection(*map(dataset.overviews, self._distinct))
        fitting = [factor for factor in factors if factor <= step]
        if not fitting:
            return self
        level = dataset.overviews(self._distinct[0]).index(max(fitting))
        with rasterio.Env(**self._network):
            if self._has_mask() and not self._overviews_have_mask():
                return self
            return Raster(rasterio.open(dataset.name, overview_level=level), self.bands)

    def _has_mask(self) -> bool:
        """Whether invalid pixels are told by a mask, beside the file or in it."""
        return all(MaskFlags.per_dataset in flag and MaskFlags.alpha not in flag for flag in self._flags)

    def _overviews_have_mask(self) -> bool:
        """A mask need not have overviews: GDAL then reports every pixel of the raster's as valid. It does so too for a
        mask that hides nothing, where to do without them costs time alone. False, too, where they cannot be read."""
        band = self._distinct[0]
        coarsest = len(self.dataset.overviews(band)) - 1
        with suppress(*GDAL_ERRORS), rasterio.open(self.dataset.name, overview_level=coarsest) as level:
            shape = min(level.height, SAMPLE_SIDE), min(level.width, SAMPLE_SIDE)
            return not level.read_masks(band, out_shape=shape).all()
        return False

    def samples(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Planes and validity, as `read` gives them, of parts spread evenly over the raster; bounded in number.

        Damaged parts are passed over.
        """
        width, height = self.dataset.width, self.dataset.height
        if width * height <= WHOLE_SAMPLE_PIXELS:
            with suppress(SceneError):
                yield self.read(0, 0, width, height)
                return
        found = 0
        across, down = min(SAMPLE_SIDE, width), min(SAMPLE_SIDE, height)
        for row in np.linspace(0, height - down, SAMPLES_PER_AXIS, dtype=int):
            for col in np.linspace(0, width - across, SAMPLES_PER_AXIS, dtype=int):
                with suppress(SceneError):
                    planes, valid = self.read(int(col), int(row), across, down)
                    found += int(valid.sum())
                    yield planes[:, ::2, ::2], valid[::2, ::2]
        if found < FEW_SAMPLES:
            yield from self._all_parts()

    def signature(self) -> str:
        """SHA-256 of where the blocks of a TIFF lie and of some pixels: tells files apart that have no time stamp."""
        dataset = self.dataset
        digest = hashlib.sha256(repr(sorted(dataset.profile.items(), key=str)).encode())
        high, wide = dataset.block_shapes[0]
        across, down = -(-dataset.width // wide), -(-dataset.height // high)
        for block in np.linspace(0, across * down - 1, SIGNATURE_BLOCKS, dtype=int):
            for item in ("OFFSET", "SIZE"):
                name = f"BLOCK_{item}_{block % across}_{block // across}"
                digest.update(str(dataset.get_tag_item(name, "TIFF", bidx=1)).encode())
        with suppress(SceneError):
            col, row = across // 2 * wide, down // 2 * high
            planes, _ = self.read(col, row, min(wide, dataset.width - col), min(high, dataset.height - row))
            digest.update(planes.tobytes())
        return digest.hexdigest()

    def close(self) -> None:
        """Release the file."""
        self.dataset.close()

    def _all_parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Some pixels from all over: for scenes that are nodata nearly everywhere."""
        side = SEARCHED_SIDE
        parts = -(-self.dataset.width // side) * -(-self.dataset.height // side)
        stride = side * math.ceil(math.sqrt(parts / MOST_SEARCHED))
        seen = self.dataset.width * self.dataset.height / (stride / side) ** 2
        thin = max(1, int((seen / WHOLE_SAMPLE_PIXELS) ** 0.5))
        for row in range(0, self.dataset.height, stride):
            for col in range(0, self.dataset.width, stride):
                width, height = min(side, self.dataset.width - col), min(side, self.dataset.height - row)
                with suppress(SceneError):
                    planes, valid = self.read(col, row, width, height)
                    yield planes[:, ::thin, ::thin], valid[::thin, ::thin]

    def _valid(self, planes: np.ndarray, window: PixelWindow) -> np.ndarray:
        dataset = self.dataset
        valid = np.ones(planes.shape[1:], dtype=bool)
        if not any(MaskFlags.all_valid in flag for flag in self._flags):
            shared = all(MaskFlags.per_dataset in flag for flag in self._flags)
            masks = dataset.read_masks(self._distinct[:1] if shared else self._distinct, window=window)
            valid = masks.any(axis=0)
        # GDAL lets a nodata value outrank the alpha band, which then hides nothing.
        for band in self._alpha:
            valid &= dataset.read(band, window=window) > 0
        if planes.dtype.kind == "f":
            valid &= np.isfinite(planes).any(axis=0)
        return valid

    def _cache(self) -> dict[str, int]:
        if "GDAL_CACHEMAX" in os.environ:
            return {}
        dataset = self.dataset
        if dataset.block_shapes[0][1] < dataset.width:
            return {"GDAL_CACHEMAX": CACHE_BYTES}
        line_bytes = dataset.width * self._pixel_bytes
        return {"GDAL_CACHEMAX": min(max(CACHE_BYTES, LINES_CACHED * line_bytes), LINE_CACHE_BYTES)}

    def _dtype(self, band: int) -> str:
        return self.dataset.dtypes[band - 1]


def _open(path: Path | str) -> DatasetReader:
    name = str(path)
    is_local = "://" not in name and not name.startswith("/vsi") and not _names_a_part(name)
    # os.path here and below: pathlib raises for names that are too long, and in folders that may not be entered.
    if is_local and not os.path.exists(name):
        raise SceneError(f"{name} does not exist: check the path of the scene")
    if is_local and not (os.path.isfile(name) or os.path.isdir(name)):
        raise SceneError(f"{name} is a pipe or a device: give a raster file")
    if is_local and os.path.isfile(name) and os.path.getsize(name) == 0:
        raise SceneError(f"{name} is empty (0 bytes): copy or download it again")
    try:
        with warnings.catch_warnings():
            # Said in the scene's notes instead.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.Env(**network_options([name])):
                return rasterio.open(gdal_name(name))
    except (*GDAL_ERRORS, ValueError, TypeError) as error:
        if is_local and os.path.isdir(name):
            raise SceneError(f"{name} is a folder: give a raster file") from error
        if is_local and not os.access(name, os.R_OK):
            raise SceneError(f"{name} may not be read: ask for read permission") from error
        reason = " ".join(without_secrets(str(error)).split())
        if is_remote(name):
            raise SceneError(f"{shown(name)} cannot be read ({reason}): {_mend_address(name, reason)}") from error
        raise SceneError(f"{name} is not a raster that can be read, or is damaged ({reason}): try a GeoTIFF") from error


def _sources(dataset: DatasetReader) -> list[str]:
    """What the pixels come from: the file itself, or those that a VRT names."""
    if dataset.driver != "VRT":
        return [dataset.name]
    return [name for name in dataset.files if name != dataset.name]


def _mend_address(name: str, reason: str) -> str:
    if "ange downloading not supported" in reason:
        return "its server sends whole files only: download it first"
    if "not recognized" in reason:
        return "what is there is no raster: check the address"
    if name.lower().startswith(("s3:", "/vsis3")):
        return "check the address, and the keys in the environment; AWS_NO_SIGN_REQUEST=YES is for public buckets"
    return "check the address and the network"


def _names_a_part(name: str) -> bool:
    """Whether this is GDAL's way of naming one raster inside a file, such as GPKG:file.gpkg:table."""
    head, colon, _ = name.partition(":")
    return bool(colon) and len(head) > 1 and not os.path.exists(name)


def _check(dataset: DatasetReader, path: Path | str) -> None:
    if dataset.count == 0:
        parts = dataset.subdatasets
        if parts:
            raise SceneError(f"{path} holds {len(parts)} rasters: name the one to read, for example {parts[0]}")
        raise SceneError(f"{path} has no bands: give a raster with at least one")
    if dataset.count > MOST_BANDS:
        raise SceneError(
            f"{path} has {dataset.count} bands, and up to {MOST_BANDS} can be read: write those to look at into a file "
            "of their own, for example: gdal_translate -b 1 -b 2 -b 3 IN.tif OUT.tif"
        )
    if dataset.width == 0 or dataset.height == 0:
        raise SceneError(f"{path} has no pixels ({dataset.width} x {dataset.height}): give another scene")
    complex_bands = [band for band, dtype in enumerate(dataset.dtypes, 1) if dtype.startswith("complex")]
    if complex_bands:
        raise SceneError(
            f"{path} has complex values (band {complex_bands[0]}: {dataset.dtypes[complex_bands[0] - 1]}): make an "
            "amplitude image of it first, for example: gdal_translate DERIVED_SUBDATASET:AMPLITUDE:IN.tif OUT.tif"
        )
    high, wide = dataset.block_shapes[0]
    block_bytes = high * wide * _bands_a_block(dataset) * max(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    if block_bytes > LARGEST_BLOCK_BYTES:
        raise SceneError(
            f"{path} stores its pixels in blocks of {wide} x {high} ({block_bytes / 2**30:.3g} GiB each), too large to "
            "be read: write it in tiles, for example: gdal_translate -co TILED=YES IN.tif OUT.tif"
        )
    if dataset.driver == "GTiff":
        _check_whole(dataset, path)


def _is_interleaved(dataset: DatasetReader) -> bool:
    """Whether a block holds the pixels of all bands."""
    return dataset.interleaving is not None and dataset.interleaving.name == "pixel"


def _bands_a_block(dataset: DatasetReader) -> int:
    return dataset.count if _is_interleaved(dataset) else 1


def _check_whole(dataset: DatasetReader, path: Path | str) -> None:
    """A TIFF whose copy was cut short opens as if nothing were wrong: see that its blocks lie inside the file."""
    file = Path(dataset.files[0]) if dataset.files else Path(str(path))
    if not file.is_file():
        return
    size = file.stat().st_size
    high, wide = dataset.block_shapes[0]
    across, down = -(-dataset.width // wide), -(-dataset.height // high)
    count = across * down
    planes = 1 if _is_interleaved(dataset) else dataset.count
    # GDAL shows a file of a single compressed strip in blocks of one line.
    if high > 1 and size < TIFF_ENTRY_BYTES * count * planes:
        raise SceneError(
            f"{path} claims {dataset.width} x {dataset.height} pixels, but a file of {size} bytes cannot even hold the "
            "list of their blocks: copy or download it again"
        )
    every = -(-count * planes // BLOCKS_CHECKED)
    for band in dataset.indexes[:planes]:
        for block in [*range(0, count, every), count - 1]:
            place = f"{block % across}_{block // across}"
            offset = dataset.get_tag_item(f"BLOCK_OFFSET_{place}", "TIFF", bidx=band)
            length = dataset.get_tag_item(f"BLOCK_SIZE_{place}", "TIFF", bidx=band)
            if offset and length and int(offset) + int(length) > size:
                raise SceneError(
                    f"{path} is truncated: the file ends at byte {size}, but its pixels go on to byte "
                    f"{int(offset) + int(length)} or beyond: copy or download it again"
                )


def _alpha_bands(dataset: DatasetReader) -> list[int]:
    return [band for band, color in enumerate(dataset.colorinterp, 1) if color == ColorInterp.alpha]


def _choose_bands(dataset: DatasetReader, bands: Sequence[int] | None, path: Path | str) -> tuple[int, int, int]:
    alpha = _alpha_bands(dataset)
    if bands is not None:
        if len(bands) not in (1, 3):
            raise OptionError(f"{len(bands)} bands were chosen: give three (red, green, blue), or one for all")
        for band in bands:
            if band not in dataset.indexes:
                raise OptionError(f"band {band} does not exist: {path} has {dataset.count}, counted from 1")
            if band in alpha:
                raise OptionError(f"band {band} of {path} is its transparency, not an image: choose other bands")
        return tuple(bands) * 3 if len(bands) == 1 else tuple(bands)
    image = [band for band in dataset.indexes if band not in alpha]
    if not image:
        raise SceneError(f"{path} has a transparency band only: give a raster with image bands")
    colors = dataset.colorinterp
    if all(color in colors for color in RGB):
        return tuple(colors.index(color) + 1 for color in RGB)
    return tuple(image[:3]) if len(image) >= 3 else (image[0],) * 3


def _palette(dataset: DatasetReader, bands: tuple[int, int, int]) -> np.ndarray | None:
    """Colours `(3, 256)` uint8 of a raster whose values are numbers in a colour table, not brightnesses."""
    if len(set(bands)) > 1 or dataset.colorinterp[bands[0] - 1] != ColorInterp.palette:
        return None
    if dataset.dtypes[bands[0] - 1] != "uint8":
        return None
    try:
        colors = dataset.colormap(bands[0])
    except ValueError:  # it has none, against what its head says
        return None
    table = np.zeros((3, 256), dtype=np.uint8)
    for value, color in colors.items():
        table[:, value] = color[:3]
    return table
