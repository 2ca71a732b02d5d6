"""Where a raster lies: its affine transform and CRS, and the pixels that a bounding box covers."""

import math
from collections.abc import Callable, Iterable
from functools import cache

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError
from rasterio.errors import CRSError as RasterioCRSError
from rasterio.io import DatasetReader
from rasterio.transform import from_gcps

from rs4d_core.errors import OptionError, SceneError
from rs4d_core.scenes.polygons.ground import horizontal
from rs4d_core.scenes.reading.addresses import address, shown

# QGIS shows a picture without a place like this: x counts pixels to the right, y upwards from the top edge, so that
# all of it lies below zero and stands the right way up.
PIXELS = Affine(1.0, 0.0, 0.0, 0.0, -1.0, 0.0)

# Ground control points that one affine transform misses by more than this are not of a map-like picture.
GCP_PIXELS = 1.5

# A pixel's side, in units of the CRS: at least this share of the largest coordinate, so that outlines keep four digits
# within a pixel; and less than any planet.
LEAST_STEP, MOST_STEP = 1e-12, 1e12

# Points a side, corners among them, at which is asked where a box or a scene lies.
EDGE_POINTS = 33


class OutsideSceneError(OptionError):
    """A box shares no ground with the scene."""


def georeference(dataset: DatasetReader) -> tuple[Affine, str | None, list[str]]:
    """The transform from pixels to coordinates, the CRS as WKT 2 (None where there is none), and notes for the user."""
    transform, crs, notes = dataset.transform, None, []
    try:
        crs = dataset.crs
    except RasterioCRSError as error:
        notes.append(f"the scene's CRS cannot be read ({error}): coordinates have no CRS; assign one to the scene")
    if transform == Affine.identity():
        transform, crs = _from_gcps(dataset, notes)
        if dataset.rpcs is not None and crs is None:
            notes.append("the scene has RPCs only: orthorectify it first, or its outlines have no place on the map")
    if not _is_usable(transform):
        raise SceneError(
            f"{shown(address(dataset.name))} has a geotransform without extent {tuple(transform)[:6]}: "
            "georeference it again"
        )
    if crs is None:
        unit = "pixels, upwards from the top edge" if transform == PIXELS else "those of the file"
        notes.append(f"the scene has no CRS: coordinates are {unit}, and the resolution on the ground is unknown")
        return transform, None, notes
    return transform, _horizontal_wkt(crs.to_wkt(version="WKT2_2019")), notes


@cache  # tiles by the thousand have one CRS
def _horizontal_wkt(wkt: str) -> str:
    return horizontal(CRS.from_wkt(wkt)).to_wkt()


def _is_usable(transform: Affine) -> bool:
    """Whether pixels have an extent, and coordinates that numbers can tell apart."""
    a, b, c, d, e, f = transform[:6]
    if transform.determinant == 0 or not all(map(math.isfinite, transform)):
        return False
    least = LEAST_STEP * max(1.0, abs(c), abs(f))
    return all(least <= step < MOST_STEP for step in (math.hypot(a, d), math.hypot(b, e)))


def _from_gcps(dataset: DatasetReader, notes: list[str]):
    points, crs = dataset.gcps
    if len(points) < 3:
        return PIXELS, None
    transform = from_gcps(points)
    if transform.determinant != 0:
        back = ~transform
        misses = [math.dist(back @ (point.x, point.y), (point.col, point.row)) for point in points]
        if max(misses) <= GCP_PIXELS:
            notes.append(f"placed by its {len(points)} ground control points, to {max(misses):.1f} pixels")
            return transform, crs
    notes.append("its ground control points do not follow a plain affine map: orthorectify the scene first")
    return PIXELS, None


def pixels_inside(
    bbox: tuple[float, float, float, float],
    bbox_crs: str | None,
    transform: Affine,
    crs_wkt: str | None,
    width: int,
    height: int,
) -> tuple[int, int, int, int]:
    """The pixels of a scene that a bounding box touches, as column, row, width, height: see `bounds_in_pixels`."""
    return pixels_around(bounds_in_pixels(bbox, bbox_crs, transform, crs_wkt, width, height), width, height)


def bounds_in_pixels(
    bbox: tuple[float, float, float, float],
    bbox_crs: str | None,
    transform: Affine,
    crs_wkt: str | None,
    width: int,
    height: int,
) -> tuple[float, float, float, float]:
    """Where a bounding box lies in a scene, and only what lies in it: left, top, right, bottom in its pixels.

    On a rotated scene, or with a bounding box of another CRS, this is the upright rectangle around the box.

    Args:
        bbox: west, south, east, north in `bbox_crs`, or in the scene's CRS where that is None.
        bbox_crs: anything pyproj understands, such as EPSG:4326.
        transform: of the whole scene.
        crs_wkt: of the scene.
        width, height: of the whole scene, pixels.

    Raises:
        OptionError: the box is empty, inverted or outside, or its CRS is unknown.
    """
    west, south, east, north = bbox
    if not all(math.isfinite(value) for value in bbox):
        raise OptionError(f"the bounding box {numbers(bbox)} has a value that is not a number: give W S E N")
    if west >= east or south >= north:
        raise OptionError(f"the bounding box {numbers(bbox)} is empty or turned round: give W S E N, W < E and S < N")
    to_scene, from_scene = between(bbox_crs, crs_wkt, "bounding box")

    steps = np.linspace(0.0, 1.0, EDGE_POINTS)[:-1]  # the corner at the end of an edge begins the next
    along = np.concatenate([steps, np.ones_like(steps), 1.0 - steps, np.zeros_like(steps)])
    up = np.concatenate([np.zeros_like(steps), steps, np.ones_like(steps), 1.0 - steps])
    x, y = to_scene(west + along * (east - west), south + up * (north - south))
    cols, rows = ~transform @ (np.asarray(x), np.asarray(y))
    scene = shapely.box(0, 0, width, height)
    outline = shapely.Polygon(np.stack([cols, rows], axis=1)) if np.isfinite([cols, rows]).all() else shapely.Polygon()
    shared = outline.intersection(scene) if outline.is_valid else shapely.Polygon()
    if shared.area == 0:
        # A box far larger than the scene may not fit into the scene's CRS: then ask which of the scene lies in the box.
        pixels, places = scene_points(from_scene, transform, width, height, "bounding box")
        inside = ((places >= (west, south)) & (places <= (east, north))).all(axis=1)
        if not inside.any():
            covered = numbers((*places.min(axis=0), *places.max(axis=0)))
            raise OutsideSceneError(f"the bounding box {numbers(bbox)} lies outside the scene, which covers {covered}")
        if len(pixels) == EDGE_POINTS**2 and inside.all():
            return 0.0, 0.0, float(width), float(height)
        cell = np.array([width, height]) / (EDGE_POINTS - 1)
        low, high = pixels[inside].min(axis=0) - cell, pixels[inside].max(axis=0) + cell
        shared = shapely.box(*low, *high).intersection(scene)
    return shared.bounds


def scene_points(
    from_scene: Callable, transform: Affine, width: int, height: int, what: str
) -> tuple[np.ndarray, np.ndarray]:
    """Where a scene lies in another CRS: points all over it, those on its edges among them, in pixels and in that CRS.

    Args:
        from_scene: from the scene's CRS to the other (see `between`).
        transform: of the whole scene.
        width, height: of the whole scene, pixels.
        what: the user gave in the other CRS, for the error.

    Returns:
        `(N, 2)` column and row, and `(N, 2)` x and y: the points that have a place in the other CRS.

    Raises:
        OptionError: none has.
    """
    col, row = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, side, EDGE_POINTS) for side in (width, height))))
    places = np.stack(from_scene(*(transform @ (col, row))), axis=1)
    finite = np.isfinite(places).all(axis=1)
    if not finite.any():
        raise OptionError(
            f"the {what}'s CRS does not reach to where the scene lies: give the {what} in the scene's CRS"
        )
    return np.stack([col, row], axis=1)[finite], places[finite]


def pixels_around(bounds: tuple[float, float, float, float], width: int, height: int) -> tuple[int, int, int, int]:
    """The whole pixels of a scene of `width` x `height` that bounds in pixels touch: column, row, width, height."""
    left, top, right, bottom = bounds
    # A thousandth of a pixel is rounding: a box drawn along pixel borders must not take in the next row.
    col, row = (min(math.floor(value + 1e-3), side - 1) for value, side in ((left, width), (top, height)))
    return col, row, max(math.ceil(right - 1e-3) - col, 1), max(math.ceil(bottom - 1e-3) - row, 1)


def between(crs: str | None, crs_wkt: str | None, what: str):
    """Two functions of x and y: from `crs`, that of `what` the user gave, to the scene's, and back.

    Raises:
        OptionError: the CRS is unknown, or the scene has none.
    """
    if crs is None:
        return (lambda x, y: (x, y)), (lambda x, y: (x, y))
    if crs_wkt is None:
        raise OptionError(f"the scene has no CRS: give the {what} in the scene's own coordinates, without a CRS")
    try:
        source, target = horizontal(CRS.from_user_input(crs)), CRS.from_wkt(crs_wkt)
        return (
            Transformer.from_crs(source, target, always_xy=True).transform,
            Transformer.from_crs(target, source, always_xy=True).transform,
        )
    except ProjError as error:
        named = crs if len(crs) <= 60 else f"{crs[:60]}..."
        raise OptionError(f"the {what}'s CRS {named!r} is unknown: give a code such as EPSG:4326") from error


def numbers(values: Iterable[float]) -> str:
    """Coordinates as they can be typed back: millimetres of what is counted in metres, and no exponents."""
    return " ".join(np.format_float_positional(value, precision=10, fractional=False, trim="-") for value in values)
