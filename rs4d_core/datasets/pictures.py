"""Decode a sample's image."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DatasetError, RS4DError


def read_picture(sample: Sample) -> Image.Image:
    """The sample's image as 8-bit RGB; a single band is repeated.

    Raises:
        DatasetError: the file cannot be decoded, has more than 8 bits a band, or its size is not what the annotations
            say.
    """
    with _opened(sample) as image:
        return image.convert("RGB")


def check_picture(sample: Sample) -> None:
    """See by its header that the sample's image can be read as annotated: for many images, before hours of work.

    Raises:
        DatasetError: as `read_picture`; of damage behind the header nothing is known.
    """
    with _opened(sample):
        pass


def has_more_than_8_bits(image: Image.Image) -> bool:
    """Whether a band of an image, not decoded yet, does not fit into what Pillow makes of it.

    Grey pixels of 16 bits, and floats, it clips to 255. Of 16 bits in colour it keeps the high byte alone, and only how
    it will decode them tells.
    """
    decoders = " ".join(str(tile[3]) for tile in image.tile)
    return image.mode.startswith(("I", "F")) or re.search(r"(RGB[AXa]?|LA);16", decoders) is not None


@contextmanager
def _opened(sample: Sample) -> Iterator[Image.Image]:
    """The image, its pixels not decoded yet. What goes wrong inside the context becomes a DatasetError as well."""
    source = sample.image if isinstance(sample.image, Path) else io.BytesIO(sample.image)
    try:
        with Image.open(source) as image:
            if has_more_than_8_bits(image):
                raise DatasetError(
                    f"{sample.name}: has more than 8 bits a band; stretch it to 8 bits first (gdal_translate -scale)"
                )
            if image.size != (sample.width, sample.height):
                raise DatasetError(
                    f"{sample.name}: is {image.width} x {image.height} pixels, its annotations are for "
                    f"{sample.width} x {sample.height}; use the images that the annotations were made on"
                )
            yield image
    except RS4DError:
        raise
    # SyntaxError: a damaged PNG; ValueError: a damaged JPEG 2000.
    except (UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise DatasetError(
            f"{sample.name}: not an image that Pillow can read ({error}); convert it to PNG or JPEG"
        ) from None
    except OSError as error:
        raise DatasetError(f"{sample.name}: cannot be read ({error}); get the file again") from None
