"""Keeping polygons clean: overlays may leave lines and points where polygons only touch, masks leave specks."""

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon
from shapely.geometry.base import BaseGeometry

_POLYGON = shapely.GeometryType.POLYGON

# An outline that crosses itself this often is scribble, and a minute's work to repair. Real ones do so a few times.
MOST_CROSSINGS = 100_000
# So many edges, spread over an outline, are asked how many of so many others they cross.
_EDGES_ASKED, _EDGES_SEEN = 100, 5000


def repair(geometries: np.ndarray) -> int:
    """Make polygons `(N,)` valid, in place; what collapses to lines and points goes, and so does what crosses itself
    without end. Returns how many were invalid."""
    invalid = ~shapely.is_valid(geometries)
    scribbled = [number for number in np.flatnonzero(invalid) if _crossings(geometries[number]) > MOST_CROSSINGS]
    geometries[scribbled] = MultiPolygon()
    geometries[invalid] = shapely.make_valid(geometries[invalid], method="structure", keep_collapsed=False)
    return int(invalid.sum())


def multipolygons(geometries: np.ndarray, smallest_part: float = 0.0) -> np.ndarray:
    """Each geometry as one valid MultiPolygon of its polygons with more area than `smallest_part`; maybe empty."""
    geometries = np.array(geometries, dtype=object)
    repair(geometries)
    # Twice, because a collection may hold multipolygons.
    outer, owners = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(outer, return_index=True)
    owners = owners[inner]
    keep = (shapely.get_type_id(parts) == _POLYGON) & (shapely.area(parts) > smallest_part)
    result = np.full(len(geometries), MultiPolygon(), dtype=object)
    return shapely.multipolygons(parts[keep], indices=owners[keep], out=result) if keep.any() else result


def without_specks(geometry: MultiPolygon, share: float) -> MultiPolygon:
    """The multipolygon without parts, and without holes, smaller than this share of its area."""
    least = share * geometry.area
    parts = [
        Polygon(part.exterior, [hole for hole in part.interiors if Polygon(hole).area >= least])
        for part in geometry.geoms
        if part.area >= least
    ]
    # A geometry of nothing but specks is what it is.
    return MultiPolygon(parts) if parts else geometry


def _crossings(geometry: BaseGeometry) -> float:
    """How often the edges of a geometry cross one another, about; judged by some of them where there are many."""
    points = shapely.get_coordinates(geometry)
    if len(points) ** 2 <= MOST_CROSSINGS:
        return 0.0
    some = np.linspace(0, len(points) - 2, min(len(points) - 1, _EDGES_SEEN), dtype=int)
    edges = shapely.linestrings(np.stack([points[some], points[some + 1]], axis=1))
    asked = edges[np.linspace(0, len(edges) - 1, min(len(edges), _EDGES_ASKED), dtype=int)]
    one, other = shapely.STRtree(edges).query(asked, predicate="intersects")
    # Edges that follow one another touch, and each meets itself.
    crossed = (~shapely.touches(asked[one], edges[other])).sum() / len(asked) - 1
    return crossed * (len(points) / len(edges)) * len(points) / 2
