"""Tiles as one scene: which rasters belong together, and the VRT through which GDAL shows them as one.

Rasters of one CRS, pixel size and kind that touch or overlap are one scene. An object that lies on several of them is
then seen whole, since windows know nothing of tiles.
"""

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import shapely
from affine import Affine

from rs4d_core.errors import OutputError
from rs4d_core.scenes.reading.addresses import gdal_name
from rs4d_core.scenes.reading.header import Band, SceneHeader
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import counted

# Over the length of a tile, pixel sizes may differ by so much of a pixel and still be the same.
SAME_PIXEL_SIZE_PX = 0.1
# Tiles that are further apart than this do not touch: what lies between them is not only rounding.
TOUCH_PX = 1.0
# Tiles that lie off the common grid by more than this are told of.
OFF_GRID_PX = 0.05
# Blocks of the mosaic, pixels.
BLOCK_PX = 512


@dataclass(frozen=True)
class Mosaic:
    """Rasters that make up one scene, or one that is a scene by itself.

    Attributes:
        tiles: in the order in which they were given. Where they overlap, the later one is seen.
        places: column and row of the upper left pixel of each in the mosaic.
        width, height: of the mosaic, pixels.
        off_grid_px: how far off the common grid the tile is that fits it least, pixels.
    """

    tiles: tuple[SceneHeader, ...]
    places: tuple[tuple[int, int], ...]
    width: int
    height: int
    off_grid_px: float

    @property
    def transform(self) -> Affine:
        """From the mosaic's pixels to its CRS."""
        col, row = self.places[0]
        return self.tiles[0].transform @ Affine.translation(-col, -row)

    @property
    def name(self) -> str:
        """For a person."""
        first = os.path.basename(self.tiles[0].name)
        return first if len(self.tiles) == 1 else f"{first} and {counted(len(self.tiles) - 1, 'other tile')}"

    def to_vrt(self) -> str:
        """The text of a VRT that shows all tiles as one raster."""
        first = self.tiles[0]
        a, b, c, d, e, f = self.transform[:6]
        lines = [f'<VRTDataset rasterXSize="{self.width}" rasterYSize="{self.height}">']
        if first.crs_wkt is not None:
            lines.append(f'<SRS dataAxisToSRSAxisMapping="1,2">{escape(first.crs_wkt)}</SRS>')
        lines.append(f"<GeoTransform>{', '.join(repr(float(number)) for number in (c, a, b, f, d, e))}</GeoTransform>")
        image = first.image_bands
        for number, band in enumerate(image, 1):
            lines += self._band(number, band)
        # Transparency becomes a mask, and a mask is needed where no tile lies. A pixel is valid if it is in any tile.
        if image[0].mask != "nodata" and not (image[0].mask == "all_valid" and self._covers_all()):
            lines.append('<MaskBand><VRTRasterBand dataType="Byte">')
            lines += self._sources("ComplexSource", "mask,1", "<NODATA>0</NODATA>")
            lines.append("</VRTRasterBand></MaskBand>")
        return "\n".join([*lines, "</VRTDataset>", ""])

    def path_beside(self, output: Path) -> Path:
        """Where `write_beside` writes."""
        return output.with_name(f"{output.stem}.{hashlib.sha256(self.to_vrt().encode()).hexdigest()[:8]}.vrt")

    def write_beside(self, output: Path) -> Path:
        """The VRT as a file beside a result, with a name that follows from its content; it stays with the result.

        A file of the same content is left as it is, so that a run which goes on finds its scene unchanged.

        Raises:
            OutputError: it cannot be written.
        """
        content = self.to_vrt().encode()
        path = self.path_beside(output)
        try:
            if not (path.is_file() and path.read_bytes() == content):
                write_whole(path, content)
        except OSError as error:
            raise OutputError(f"cannot write {path} ({error.strerror}): choose another place for the result") from error
        return path

    def _band(self, number: int, band: Band) -> list[str]:
        lines = [
            f'<VRTRasterBand dataType="{band.kind}" band="{number}" blockXSize="{BLOCK_PX}" blockYSize="{BLOCK_PX}">',
            f"<ColorInterp>{band.color}</ColorInterp>",
        ]
        if band.palette:
            lines.append("<ColorTable>")
            lines += ('<Entry c1="{}" c2="{}" c3="{}" c4="{}"/>'.format(*color) for _, color in band.palette)
            lines.append("</ColorTable>")
        kind, more = "SimpleSource", ""
        if band.mask == "nodata":
            lines.append(f"<NoDataValue>{band.nodata}</NoDataValue>")
            kind, more = "ComplexSource", f"<NODATA>{band.nodata}</NODATA>"
        elif band.mask in ("alpha", "per_dataset"):
            kind, more = "ComplexSource", "<UseMaskBand>true</UseMaskBand>"
        lines += self._sources(kind, str(number), more)
        return [*lines, "</VRTRasterBand>"]

    def _sources(self, kind: str, band: str, more: str) -> Iterator[str]:
        for tile, (col, row) in zip(self.tiles, self.places, strict=True):
            name = gdal_name(tile.name)
            name = os.path.abspath(name) if os.path.exists(name) else name
            size = f'xSize="{tile.width}" ySize="{tile.height}"'
            # With these a tile is opened when its pixels are asked for, not all of them at the start.
            properties = (
                f'<SourceProperties RasterXSize="{tile.width}" RasterYSize="{tile.height}" '
                f'DataType="{tile.bands[0].kind}" BlockXSize="{tile.block[0]}" BlockYSize="{tile.block[1]}"/>'
            )
            yield f'<{kind}><SourceFilename relativeToVRT="0">{escape(name)}</SourceFilename>'
            yield f"<SourceBand>{band}</SourceBand>{properties}"
            yield f'<SrcRect xOff="0" yOff="0" {size}/><DstRect xOff="{col}" yOff="{row}" {size}/>{more}</{kind}>'

    def _covers_all(self) -> bool:
        covered = shapely.union_all(_boxes(self.tiles, np.array(self.places)))
        return covered.area == self.width * self.height


def mosaics(headers: Sequence[SceneHeader]) -> list[Mosaic]:
    """Puts rasters together to scenes, in the order of the first raster of each."""
    families: dict[tuple, list[list[int]]] = {}
    alone: list[list[int]] = []
    for index, header in enumerate(headers):
        if not header.tile:
            alone.append([index])
            continue
        alike = families.setdefault((header.crs_wkt, header.bands), [])
        for family in alike:
            if _same_pixels(headers[family[0]], header):
                family.append(index)
                break
        else:
            alike.append([index])
    scenes = [part for alike in families.values() for family in alike for part in _touching(headers, family)]
    return [_mosaic([headers[index] for index in scene]) for scene in sorted(scenes + alone)]


def _same_pixels(first: SceneHeader, other: SceneHeader) -> bool:
    side = max(other.width, other.height)
    pixel = math.sqrt(abs(first.transform.determinant))
    return all(
        abs(getattr(first.transform, name) - getattr(other.transform, name)) * side < SAME_PIXEL_SIZE_PX * pixel
        for name in "abde"
    )


def _touching(headers: Sequence[SceneHeader], family: list[int]) -> list[list[int]]:
    """A family in sets that are connected by touching; indices in each in order."""
    tiles = [headers[index] for index in family]
    boxes = _boxes(tiles, _exact_places(tiles))
    neighbours: list[list[int]] = [[] for _ in tiles]
    for one, other in shapely.STRtree(boxes).query(boxes, predicate="dwithin", distance=TOUCH_PX).T.tolist():
        neighbours[one].append(other)
    sets, seen = [], [False] * len(tiles)
    for start in range(len(tiles)):
        reached, part = ([] if seen[start] else [start]), []
        seen[start] = True
        while reached:
            part.append(reached.pop())
            for other in neighbours[part[-1]]:
                if not seen[other]:
                    seen[other] = True
                    reached.append(other)
        if part:
            sets.append([family[index] for index in sorted(part)])
    return sets


def _mosaic(tiles: list[SceneHeader]) -> Mosaic:
    exact = _exact_places(tiles)
    places = np.round(exact).astype(np.int64)
    off_grid = float(np.abs(exact - places).max())
    places -= places.min(axis=0)
    ends = places + [(tile.width, tile.height) for tile in tiles]
    width, height = ends.max(axis=0).tolist()
    return Mosaic(tuple(tiles), tuple((col, row) for col, row in places.tolist()), width, height, off_grid)


def _exact_places(tiles: Sequence[SceneHeader]) -> np.ndarray:
    """`(N, 2)` column and row of the corners of tiles, in pixels from that of the first."""
    if len(tiles) == 1:
        return np.zeros((1, 2))
    to_pixels = ~tiles[0].transform
    return np.array([to_pixels @ (tile.transform.c, tile.transform.f) for tile in tiles])


def _boxes(tiles: Sequence[SceneHeader], places: np.ndarray) -> np.ndarray:
    ends = places + np.array([(tile.width, tile.height) for tile in tiles])
    return shapely.box(places[:, 0], places[:, 1], ends[:, 0], ends[:, 1])
