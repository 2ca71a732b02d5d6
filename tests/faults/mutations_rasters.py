"""Rasters that nobody should have made: files that GDAL has written, broken as chance and malice would."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

# Sizes in bytes of the types of TIFF tags.
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_WIDTH, _LENGTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLES = 256, 257, 258, 259, 262, 277
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH, _SAMPLE_FORMAT = 278, 322, 323, 339
_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS = 273, 279, 324, 325
_PIXEL_SCALE, _TIE_POINTS, _GEO_KEYS, _GEO_DOUBLES, _GEO_ASCII = 33550, 33922, 34735, 34736, 34737
_NODATA, _METADATA = 42113, 42112
_ODD_NUMBERS = (0, 1, 2, 3, 7, 8, 16, 32, 64, 255, 256, 32767, 65535, 1_000_000, 2**31 - 1, 2**31, 2**32 - 1)
_ODD_FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, -1.0, 1e300, -1e300, 5e-324, 1e-12, 1e9)
_ODD_TEXTS = ("nan", "inf", "1e400", "-1e-400", "", "abc", "9" * 900, "\x1b[2J\x1b[31m", "%s%s%n", "0x10", "-")


def seeds(folder: Path) -> list[Path]:
    """Rasters of many kinds, all in order."""
    import numpy as np
    import rasterio
    from rasterio.enums import Resampling
    from rasterio.transform import from_origin

    noise = np.random.default_rng(0)
    picture = (noise.integers(0, 90, (3, 200, 260)) + np.indices((200, 260)).sum(0) % 120).astype(np.uint8)
    place = {"crs": "EPSG:32631", "transform": from_origin(440_000, 4_640_000, 0.5, 0.5)}
    kinds = {
        "tiled": (picture, {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "deflate"}),
        "strips": (picture, {"blockysize": 16}),
        "lzw": (picture, {"compress": "lzw", "predictor": 2, "interleave": "band"}),
        "jpeg": (picture, {"compress": "jpeg", "photometric": "ycbcr", "interleave": "pixel", "tiled": True}),
        "sixteen": ((picture[:1].astype(np.uint16) * 40), {"nodata": 0, "compress": "zstd"}),
        "floats": (picture.astype(np.float32) / 7, {"nodata": float("nan"), "compress": "deflate", "predictor": 3}),
        "big": (picture, {"BIGTIFF": "YES", "tiled": True, "blockxsize": 64, "blockysize": 64}),
        "degrees": (picture, {"crs": "EPSG:4326", "transform": from_origin(2.1, 41.4, 5e-6, 4e-6)}),
        "sparse": (picture[:1] * 0, {"SPARSE_OK": "TRUE", "tiled": True}),
    }
    made = []
    for name, (values, options) in kinds.items():
        path = folder / f"{name}.tif"
        count, height, width = values.shape
        shape = {"width": width, "height": height, "count": count, "dtype": values.dtype}
        with rasterio.open(path, "w", driver="GTiff", **shape, **(place | options)) as raster:
            raster.write(values)
        made.append(path)
    with rasterio.open(made[0], "r+") as raster:
        raster.build_overviews([2, 4], Resampling.average)
    with rasterio.open(made[1], "r+") as raster:
        raster.write_mask(np.tri(200, 260, 30, dtype=bool))
    shape = place | {"width": 260, "height": 200, "dtype": "uint8"}
    with rasterio.open(folder / "palette.tif", "w", driver="GTiff", count=1, **shape) as raster:
        raster.write(picture[:1] % 16)
        raster.write_colormap(1, {value: (value * 16, 255 - value, value, 255) for value in range(16)})
    made.append(folder / "palette.tif")
    for driver, suffix in (("PNG", "png"), ("JPEG", "jpg"), ("JP2OpenJPEG", "jp2"), ("ENVI", "img")):
        with rasterio.open(folder / f"other.{suffix}", "w", driver=driver, count=3, **shape) as raster:
            raster.write(picture)
        made.append(folder / f"other.{suffix}")
    return made


class Tiff:
    """The tags of a classic or big TIFF, little end first, to be read and written over in place."""

    def __init__(self, content: bytes) -> None:
        self.content = bytearray(content)
        self.big = content[2:3] == b"+"
        self.first = struct.unpack_from("<Q", content, 8)[0] if self.big else struct.unpack_from("<I", content, 4)[0]
        self.tags: dict[int, int] = {}
        head, entry = (8, 20) if self.big else (2, 12)
        (count,) = struct.unpack_from("<Q" if self.big else "<H", content, self.first)
        for number in range(count):
            place = self.first + head + number * entry
            self.tags[struct.unpack_from("<H", content, place)[0]] = place
        self.next = self.first + head + count * entry

    def values_at(self, tag: int) -> tuple[int, int, int]:
        """Type, count and where the values are."""
        place = self.tags[tag]
        kind, count = struct.unpack_from("<HQ" if self.big else "<HI", self.content, place + 2)
        inline = place + (12 if self.big else 8)
        if _SIZES.get(kind, 1) * count <= (8 if self.big else 4):
            return kind, count, inline
        return kind, count, struct.unpack_from("<Q" if self.big else "<I", self.content, inline)[0]

    def set_type(self, tag: int, kind: int) -> None:
        struct.pack_into("<H", self.content, self.tags[tag] + 2, kind)

    def set_count(self, tag: int, count: int) -> None:
        struct.pack_into("<Q" if self.big else "<I", self.content, self.tags[tag] + 4, count % 2**32)

    def set_number(self, tag: int, number: int) -> None:
        """One whole number as the tag's value, as long as the tag can hold."""
        self.set_type(tag, 4)
        self.set_count(tag, 1)
        struct.pack_into("<I", self.content, self.tags[tag] + (12 if self.big else 8), number % 2**32)

    def overwrite(self, tag: int, values: bytes) -> None:
        """The first bytes of the tag's values."""
        kind, count, place = self.values_at(tag)
        values = values[: _SIZES.get(kind, 1) * count]
        self.content[place : place + len(values)] = values


def _is_tiff(path: Path) -> bool:
    return path.suffix == ".tif"


def flipped(content: bytes, rng: random.Random, end: int | None = None) -> bytes:
    """A few bytes changed, of the first `end`."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20, 100))):
        changed[rng.randrange(min(end or len(changed), len(changed)))] = rng.randrange(256)
    return bytes(changed)


def spliced(content: bytes, rng: random.Random) -> bytes:
    """A stretch left out, doubled, or moved."""
    low, high = sorted(rng.randrange(len(content)) for _ in range(2))
    middle = content[low:high]
    return content[:low] + rng.choice((b"", middle * 2, middle[::-1], bytes(len(middle)))) + content[high:]


def _flipped(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(flipped(source.read_bytes(), rng))


def _flipped_head(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(flipped(source.read_bytes(), rng, 400))


def _flipped_tags(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    for _ in range(rng.choice((1, 2, 4))):
        tiff.content[rng.randrange(tiff.first, tiff.next + 4)] = rng.randrange(256)
    target.write_bytes(tiff.content)


def _truncated(source: Path, target: Path, rng: random.Random) -> None:
    content = source.read_bytes()
    target.write_bytes(content[: rng.choice((rng.randrange(64), rng.randrange(len(content)), len(content) - 1))])


def _spliced(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(spliced(source.read_bytes(), rng))


def _odd_tag(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tag = rng.choice(sorted(tiff.tags))
    what = rng.randrange(4)
    if what == 0:
        tiff.set_type(tag, rng.randrange(20))
    elif what == 1:
        tiff.set_count(tag, rng.choice(_ODD_NUMBERS))
    elif what == 2:
        tiff.overwrite(tag, rng.randbytes(64))
    else:
        tiff.set_number(tag, rng.choice(_ODD_NUMBERS))
    target.write_bytes(tiff.content)


def _odd_shape(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tags = (_WIDTH, _LENGTH, _SAMPLES, _ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH, _COMPRESSION, _PHOTOMETRIC)
    tags += (_SAMPLE_FORMAT, _BITS)
    for tag in rng.sample(tags, 2):
        if tag in tiff.tags:
            tiff.set_number(tag, rng.choice(_ODD_NUMBERS))
    target.write_bytes(tiff.content)


def _claims_a_terapixel(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tiff.set_number(_WIDTH, 1_000_000)
    tiff.set_number(_LENGTH, 1_000_000)
    if rng.random() < 0.5 and _TILE_WIDTH in tiff.tags:
        tiff.set_number(_TILE_WIDTH, 65_536)
        tiff.set_number(_TILE_LENGTH, 65_536)
    target.write_bytes(tiff.content)


def _bands_without_end(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tiff.set_number(_SAMPLES, 65_535)
    target.write_bytes(tiff.content)


def _goes_round(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    back = rng.choice((tiff.first, tiff.first + 2, 8, len(tiff.content)))
    struct.pack_into("<Q" if tiff.big else "<I", tiff.content, tiff.next, back)
    target.write_bytes(tiff.content)


def _blocks_elsewhere(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tag = rng.choice([tag for tag in (_OFFSETS, _COUNTS, _TILE_OFFSETS, _TILE_COUNTS) if tag in tiff.tags])
    size = _SIZES.get(tiff.values_at(tag)[0], 4)
    number = rng.choice((0, 1, 8, tiff.first, len(tiff.content) - 3, 2**31, 2**32 - 1)) % 256**size
    tiff.overwrite(tag, number.to_bytes(size, "little") * rng.choice((1, 4, 500)))
    target.write_bytes(tiff.content)


def _odd_place(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tag = rng.choice([tag for tag in (_PIXEL_SCALE, _TIE_POINTS) if tag in tiff.tags] or [_WIDTH])
    values = b"".join(struct.pack("<d", rng.choice(_ODD_FLOATS)) for _ in range(6))
    start = 0 if tag == _PIXEL_SCALE else rng.choice((0, 3))
    tiff.overwrite(tag, bytes(8 * start) + values)
    target.write_bytes(tiff.content)


def _odd_crs(source: Path, target: Path, rng: random.Random) -> None:
    tiff = Tiff(source.read_bytes())
    tag = rng.choice([tag for tag in (_GEO_KEYS, _GEO_DOUBLES, _GEO_ASCII) if tag in tiff.tags] or [_WIDTH])
    kind, count, place = tiff.values_at(tag)
    for _ in range(rng.choice((1, 2, 8))):
        at = place + rng.randrange(max(1, count * _SIZES.get(kind, 1)))
        tiff.content[at : at + 2] = rng.randbytes(2)
    target.write_bytes(tiff.content)


def _odd_nodata(source: Path, target: Path, rng: random.Random) -> None:
    import rasterio

    target.write_bytes(source.read_bytes())
    with rasterio.open(target, "r+") as raster:
        raster.nodata = 0
        raster.update_tags(TIFFTAG_SOFTWARE=rng.choice(_ODD_TEXTS) or "x")
    tiff = Tiff(target.read_bytes())
    text = rng.choice(_ODD_TEXTS).encode() + b"\0"
    place = len(tiff.content)
    tiff.content += text
    if _NODATA in tiff.tags:
        tiff.set_count(_NODATA, len(text))
        struct.pack_into("<I", tiff.content, tiff.tags[_NODATA] + (12 if tiff.big else 8), place)
        if len(text) <= 4:
            tiff.content[tiff.tags[_NODATA] + 8 : tiff.tags[_NODATA] + 8 + len(text)] = text
    target.write_bytes(tiff.content)


def _bomb(source: Path, target: Path, rng: random.Random) -> None:
    """Few bytes that unpack to many: one block of a gigabyte, or a terapixel of which nothing is written."""
    import numpy as np
    import rasterio

    side, block = rng.choice([(30_000, 29_952), (30_000, 16_384), (30_000, 256), (300_000, 1024)])
    options = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "zstd", "SPARSE_OK": "TRUE"}
    shape = {"width": side, "height": side, "count": 1, "dtype": "uint8"}
    place = {"crs": "EPSG:32631", "transform": rasterio.transform.from_origin(440_000, 4_640_000, 0.5, 0.5)}
    with rasterio.open(target, "w", driver="GTiff", **shape, **place, **options) as raster:
        raster.write(np.ones((1, 64, 64), np.uint8), window=rasterio.windows.Window(0, 0, 64, 64))


def _overview_that_differs(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(source.read_bytes())
    other = rng.choice([path for path in source.parent.iterdir() if path.suffix == ".tif"])
    content = other.read_bytes()
    Path(f"{target}.ovr").write_bytes(flipped(content, rng, 300) if rng.random() < 0.5 else content)


def _mask_that_differs(source: Path, target: Path, rng: random.Random) -> None:
    target.write_bytes(source.read_bytes())
    other = rng.choice([path for path in source.parent.iterdir() if path.suffix == ".tif"])
    Path(f"{target}.msk").write_bytes(flipped(other.read_bytes(), rng, 300))


def _notes_beside(source: Path, target: Path, rng: random.Random) -> None:
    """A .aux.xml, or a world file, that says odd things."""
    target.write_bytes(source.read_bytes())
    odd = ", ".join(str(rng.choice(_ODD_FLOATS)) for _ in range(6))
    crs = rng.choice(("GEOGCS[", "EPSG:999999", "A" * 100_000, "/etc/passwd"))
    texts = (
        f"<PAMDataset><GeoTransform>{odd}</GeoTransform></PAMDataset>",
        f"<PAMDataset><SRS>{crs}</SRS></PAMDataset>",
        '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]><PAMDataset><SRS>&b;&b;&b;</SRS></PAMDataset>',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><PAMDataset><SRS>&a;</SRS></PAMDataset>',
        "<PAMDataset>" * 50_000,
        f'<PAMDataset><PAMRasterBand band="1"><NoDataValue>{rng.choice(_ODD_TEXTS[:5])}</NoDataValue><ColorInterp>'
        f"{rng.choice(('Alpha', 'Palette', 'Red'))}</ColorInterp></PAMRasterBand></PAMDataset>",
        '<PAMDataset><Metadata domain="IMAGE_STRUCTURE"><MDI key="NBITS">99</MDI></Metadata></PAMDataset>',
        '<PAMDataset><Metadata domain="RPC"><MDI key="LINE_OFF">nan</MDI></Metadata></PAMDataset>',
        '<PAMDataset><GCPList Projection="EPSG:4326">'
        + '<GCP Id="" Pixel="nan" Line="0" X="1e300" Y="0"/>' * 4
        + "</GCPList></PAMDataset>",
    )
    if rng.random() < 0.25:
        target.with_suffix(".tfw").write_text("\n".join(str(rng.choice(_ODD_FLOATS)) for _ in range(6)))
    else:
        Path(f"{target}.aux.xml").write_text(rng.choice(texts))


_ODD_SOURCES = (
    *("/etc/passwd", "/dev/zero", "/vsistdin/", "/vsizip/vsizip//vsizip/", "..", "", "x" * 9000, "\x1b[31m"),
    *("http://127.0.0.1:9/none.tif", "/vsicurl/http://127.0.0.1:9/none.tif"),
)
_VRT = (
    '<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>EPSG:32631</SRS>'
    "<GeoTransform>440000, 0.5, 0, 4640000, 0, -0.5</GeoTransform>{bands}</VRTDataset>"
)
_VRT_BAND = (
    '<VRTRasterBand dataType="Byte" band="{band}"><SimpleSource>'
    '<SourceFilename relativeToVRT="{relative}">{name}</SourceFilename><SourceBand>{band}</SourceBand>'
    "</SimpleSource></VRTRasterBand>"
)


def _vrt(source: Path, target: Path, rng: random.Random) -> None:
    """A VRT that names itself, what is no raster, what cannot be reached, or too much."""
    target.unlink(missing_ok=True)
    target = target.with_suffix(".tif")  # GDAL goes by the content
    width, height = rng.choice(((260, 200), (1_000_000, 1_000_000), (2**31 - 1, 2**31 - 1), (0, 5), (-1, 7)))
    odd = (target.name, str(source), *_ODD_SOURCES)
    name = rng.choice(odd)
    count = rng.choice((1, 3, 3, 300))
    relative = int(name == target.name)
    bands = "".join(_VRT_BAND.format(band=band, relative=relative, name=name) for band in range(1, count + 1))
    if rng.random() < 0.25:
        bands = (
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
            f"<SourceFilename>{name}</SourceFilename><ImageOffset>{rng.choice(_ODD_NUMBERS)}</ImageOffset>"
            f"<PixelOffset>{rng.choice(_ODD_NUMBERS)}</PixelOffset><LineOffset>{rng.choice(_ODD_NUMBERS)}</LineOffset>"
            "</VRTRasterBand>"
        )
    elif rng.random() < 0.2:
        bands = (
            '<VRTRasterBand dataType="Byte" band="1" subClass="VRTDerivedRasterBand"><PixelFunctionType>run'
            "</PixelFunctionType><PixelFunctionLanguage>Python</PixelFunctionLanguage><PixelFunctionCode><![CDATA["
            f"import pathlib; pathlib.Path({str(target.with_name('ran'))!r}).touch()\n"
            "def run(*a, **k): pass]]></PixelFunctionCode></VRTRasterBand>"
        )
    text = _VRT.format(width=width, height=height, bands=bands).encode()
    target.write_bytes(flipped(text, rng) if rng.random() < 0.2 else text)


def _noise(source: Path, target: Path, rng: random.Random) -> None:
    tiffs = (b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b"II+\0\x08\0\0\0")
    heads = (*tiffs, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"<VRT", b"")
    target.write_bytes(rng.choice(heads) + rng.randbytes(rng.choice((0, 10, 5000))))


MUTATIONS: dict[str, tuple[Callable[[Path, Path, random.Random], None], bool]] = {
    "bytes changed": (_flipped, False),
    "bytes changed in front": (_flipped_head, False),
    "bytes of tags changed": (_flipped_tags, True),
    "cut short": (_truncated, False),
    "stretch lost, doubled or turned": (_spliced, False),
    "tag of odd type, count or value": (_odd_tag, True),
    "odd shape or coding": (_odd_shape, True),
    "claims 1 000 000 x 1 000 000 pixels": (_claims_a_terapixel, True),
    "claims 65 535 bands": (_bands_without_end, True),
    "directories in a circle": (_goes_round, True),
    "blocks elsewhere": (_blocks_elsewhere, True),
    "odd geotransform": (_odd_place, True),
    "odd CRS": (_odd_crs, True),
    "odd nodata": (_odd_nodata, True),
    "bomb": (_bomb, True),
    "overviews that differ": (_overview_that_differs, True),
    "mask that differs": (_mask_that_differs, True),
    "odd notes beside it": (_notes_beside, True),
    "VRT": (_vrt, True),
    "noise": (_noise, True),
}
"""By name: the function, of a seed, a target and chance; and whether its seeds must be TIFFs."""

# Among these are scenes of any size that are not broken. A run of them takes as long as they are large, so that only
# their first pixels are asked for: west, south, east, north.
MAY_BE_HUGE = ("bomb", "VRT")
CORNER = ("440000", "4639900", "440130", "4640000")


def mutated(number: int, seeds: list[Path], folder: Path, seed: int) -> tuple[str, Path]:
    """The raster of this number, always the same: what was done, and where it is."""
    rng = random.Random(f"raster {seed} {number}")
    name = list(MUTATIONS)[number % len(MUTATIONS)]
    mutate, tiff = MUTATIONS[name]
    source = rng.choice([path for path in seeds if _is_tiff(path) or not tiff])
    target = folder / f"scene{source.suffix}"
    mutate(source, target, rng)
    return name, target
