"""Generated scenes as georeferenced rasters, and their truth on the ground."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import geopandas
import numpy as np
import rasterio
import shapely.affinity
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window

from rs4d_core.datasets.synthetic.scene import SyntheticScene, generate_scene
from rs4d_core.errors import OutputError

# A corner in zone 31 north. Any would do: the scenes show no real place.
_CRS = "EPSG:32631"
_ORIGIN = (440_000.0, 4_640_000.0)
_BLOCK_PX = 1024
_DIFFERENT_BLOCKS = 4


def default_transform(resolution_m: float) -> Affine:
    """Pixel to ground in the CRS that scenes are written in by default, north up."""
    return Affine(resolution_m, 0, _ORIGIN[0], 0, -resolution_m, _ORIGIN[1])


def write_scene(scene: SyntheticScene, path: Path, crs: str | None = _CRS, transform: Affine | None = None) -> Affine:
    """Write the image as a tiled, compressed GeoTIFF.

    Args:
        scene: what to write.
        path: of the file; an existing one is replaced.
        crs: anything that rasterio takes for one; None writes none.
        transform: pixel to ground; None places the scene at its resolution, north up, in the default CRS.

    Returns:
        The transform written.

    Raises:
        OutputError: the file cannot be written.
    """
    transform = transform or default_transform(scene.resolution_m)
    height, width = scene.image.shape[:2]
    profile = {"compress": "deflate", "predictor": 2, "blockxsize": 256, "blockysize": 256}
    with _new_raster(path, width, height, crs, transform, profile) as raster:
        raster.write(scene.image.transpose(2, 0, 1))
    return transform


def truth_features(scene: SyntheticScene, transform: Affine, crs: str | None = _CRS) -> geopandas.GeoDataFrame:
    """The instances on the ground: columns `class` and `geometry`, as in a result layer."""
    matrix = (transform.a, transform.b, transform.d, transform.e, transform.c, transform.f)
    return geopandas.GeoDataFrame(
        {"class": [instance.class_name for instance in scene.instances]},
        geometry=[shapely.affinity.affine_transform(instance.polygon, matrix) for instance in scene.instances],
        crs=crs,
    )


def write_large_scene(path: Path, width: int, height: int, seed: int, resolution_m: float = 0.5) -> None:
    """Write a scene of any size straight to disk: a few generated blocks, turned and repeated.

    Memory does not grow with the scene. The file is JPEG-compressed, about a tenth of the pixels' size.

    Args:
        path: of the GeoTIFF; an existing one is replaced.
        width: pixels.
        height: pixels.
        seed: decides the blocks and their order.
        resolution_m: metres a pixel.

    Raises:
        OutputError: the file cannot be written.
    """
    rng = np.random.default_rng([seed, 4])
    blocks = [
        generate_scene(seed + offset, _BLOCK_PX, _BLOCK_PX, resolution_m).image for offset in range(_DIFFERENT_BLOCKS)
    ]
    profile = {"compress": "jpeg", "photometric": "ycbcr", "blockxsize": 512, "blockysize": 512, "bigtiff": "if_safer"}
    with (
        rasterio.Env(GDAL_CACHEMAX=64),
        _new_raster(path, width, height, _CRS, default_transform(resolution_m), profile) as raster,
    ):
        for row in range(0, height, _BLOCK_PX):
            for column in range(0, width, _BLOCK_PX):
                block = np.rot90(blocks[rng.integers(len(blocks))], rng.integers(4))
                part = block[: height - row, : width - column]
                raster.write(part.transpose(2, 0, 1), window=Window(column, row, part.shape[1], part.shape[0]))


@contextmanager
def _new_raster(
    path: Path, width: int, height: int, crs: str | None, transform: Affine, profile: dict
) -> Iterator[rasterio.io.DatasetWriter]:
    """A new RGB GeoTIFF, open for writing."""
    try:
        with rasterio.open(
            path, "w", driver="GTiff", width=width, height=height, count=3, dtype="uint8", tiled=True, crs=crs,
            transform=transform, **profile,
        ) as raster:  # fmt: skip
            yield raster
    except (RasterioError, OSError) as error:
        raise OutputError(f"{path}: cannot be written ({error}); give a file in a folder that can be written") from None
