"""What a raster says of itself, read once: enough to see which rasters are tiles of one scene."""

from collections.abc import Sequence
from dataclasses import dataclass

import rasterio
from affine import Affine

from rs4d_core.scenes.reading.addresses import shown
from rs4d_core.scenes.reading.georeference import georeference, pixels_inside
from rs4d_core.scenes.reading.raster import Raster


@dataclass(frozen=True)
class Band:
    """One band, as a VRT describes it.

    Attributes:
        kind: of its values, as GDAL names it.
        color: what it stands for, as GDAL names it.
        nodata: as text, so that NaN equals itself; None where there is no such value.
        mask: what says which pixels are valid: `all_valid`, `nodata`, `alpha` or `per_dataset`.
        palette: value and colour, for a band of numbers in a table of colours.
    """

    kind: str
    color: str
    nodata: str | None
    mask: str
    palette: tuple[tuple[int, tuple[int, ...]], ...] = ()


@dataclass(frozen=True)
class SceneHeader:
    """A raster without its pixels.

    Attributes:
        name: to open it with.
        transform, crs_wkt: where it lies (`georeference`).
        placed: it has a place on the map.
        tile: it may be a part of something larger: it has a transform of its own, its pixels are valid in a way that a
            VRT can tell, and its name holds no secret, which a VRT would give away.
        block: width and height of the blocks that it is stored in.
        files: that its pixels come from; of a VRT, those that it shows, too.
    """

    name: str
    width: int
    height: int
    transform: Affine
    crs_wkt: str | None
    placed: bool
    tile: bool
    bands: tuple[Band, ...]
    block: tuple[int, int]
    files: tuple[str, ...]

    @property
    def image_bands(self) -> tuple[Band, ...]:
        """Those that are not transparency."""
        return tuple(band for band in self.bands if band.color != "Alpha")


_KINDS = {
    "uint8": "Byte",
    "int8": "Int8",
    "uint16": "UInt16",
    "int16": "Int16",
    "uint32": "UInt32",
    "int32": "Int32",
    "uint64": "UInt64",
    "int64": "Int64",
    "float32": "Float32",
    "float64": "Float64",
}


def check_scene(
    name: str,
    bands: Sequence[int] | None,
    bbox: tuple[float, float, float, float] | None,
    bbox_crs: str | None,
) -> None:
    """Sees whether `Scene.open` could do that, as far as it can be told without reading pixels. Raises as that does."""
    raster = Raster.open(name, bands)
    try:
        transform, crs_wkt, _ = georeference(raster.dataset)
        if bbox is not None:
            pixels_inside(bbox, bbox_crs, transform, crs_wkt, raster.dataset.width, raster.dataset.height)
    finally:
        raster.close()


def read_header(name: str) -> SceneHeader:
    """The header of a raster, which is checked as if it were to be read. Raises SceneError."""
    # To look for files beside each of ten thousand tiles by name takes a hundredth of listing their folder each time.
    with rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"):
        raster = Raster.open(name, None)
    try:
        dataset = raster.dataset
        transform, crs_wkt, _ = georeference(dataset)
        own_transform = dataset.transform != Affine.identity()
        height, width = dataset.block_shapes[0]
        bands = []
        for band in dataset.indexes:
            kind, nodata = dataset.dtypes[band - 1], dataset.nodatavals[band - 1]
            color = dataset.colorinterp[band - 1].name
            flags = {flag.name for flag in dataset.mask_flag_enums[band - 1]}
            mask = next(flag for flag in ("all_valid", "nodata", "alpha", "per_dataset") if flag in flags)
            palette = tuple(dataset.colormap(band).items()) if color == "palette" else ()
            text = None if nodata is None else repr(nodata)
            bands.append(Band(_KINDS.get(kind, kind), color.capitalize(), text, mask, palette))
        image = [band.color != "Alpha" for band in bands]
        masks = {band.mask for band in bands if band.color != "Alpha"}
        plain = len(masks) == 1 and (all(image) or (masks == {"alpha"} and all(image[:-1])))
        return SceneHeader(
            name,
            dataset.width,
            dataset.height,
            transform,
            crs_wkt,
            crs_wkt is not None or own_transform,
            own_transform and plain and shown(name) == name,
            tuple(bands),
            (width, height),
            tuple(raster.files),
        )
    finally:
        raster.close()
