"""Keeping polygons clean: overlays may leave lines and points where polygons only touch, masks leave specks."""

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

_POLYGON = shapely.GeometryType.POLYGON


def repair(geometries: np.ndarray) -> int:
    """Make polygons `(N,)` valid, in place; what collapses to lines and points goes. Returns how many were invalid."""
    invalid = ~shapely.is_valid(geometries)
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
