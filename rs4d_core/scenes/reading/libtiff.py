"""What libtiff says by itself.

GDAL takes over nearly all that libtiff has to say of a file, and raises it. But where a file names a place that no file
can have, libtiff prints so on stderr, whoever has opened the file, and GDAL then says the same.
"""

import ctypes
from contextlib import suppress
from pathlib import Path

import rasterio

# Of the wheels of rasterio for Linux and Windows, and for macOS.
_FOLDERS = (Path(rasterio.__file__).parents[1] / "rasterio.libs", Path(rasterio.__file__).parent / ".dylibs")


def silence() -> None:
    """Have the libtiff that comes along with rasterio print nothing more in this process.

    Where rasterio uses the libtiff of a system, that is left as it is.
    """
    for folder in _FOLDERS:
        for file in folder.glob("*tiff*"):
            with suppress(OSError, AttributeError):
                ctypes.CDLL(str(file)).TIFFSetErrorHandler(None)
