"""Keeping overlay results areal: operations on polygons may also return the lines and points where they only touch."""

import numpy as np
import shapely

_POLYGON = shapely.GeometryType.POLYGON


def multipolygons(geometries: np.ndarray, smallest_part: float = 0.0) -> np.ndarray:
    """Each geometry as one valid MultiPolygon of its polygons with more area than `smallest_part`; maybe empty."""
    geometries = np.array(geometries, dtype=object)
    invalid = ~shapely.is_valid(geometries)
    geometries[invalid] = shapely.make_valid(geometries[invalid], method="structure", keep_collapsed=False)
    # Twice, because a collection may hold multipolygons.
    outer, owners = shapely.get_parts(geometries, return_index=True)
    parts, inner = shapely.get_parts(outer, return_index=True)
    owners = owners[inner]
    keep = (shapely.get_type_id(parts) == _POLYGON) & (shapely.area(parts) > smallest_part)
    result = np.full(len(geometries), shapely.MultiPolygon(), dtype=object)
    return shapely.multipolygons(parts[keep], indices=owners[keep], out=result) if keep.any() else result
