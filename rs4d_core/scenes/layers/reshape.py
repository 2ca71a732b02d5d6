"""New outlines for polygons that lie on the map already: fewer points, right angles, in metres on the ground."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon, STRtree

from rs4d_core.errors import LayerError
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.polygons.regularize import regularize
from rs4d_core.scenes.seams.overlaps import DUPLICATE_SHARE

# What is left of a cut in pieces below this share of the polygon's area is an artefact of two outlines crossing.
REMNANT_SHARE = 0.01
# Overlays are computed on a grid of 1/128 millimetre: exact, and valid in any other unit and CRS as well.
_GRID_M = 2.0**-17
# Overlaps below this share of the smaller polygon are rounding.
_ROUNDING = 1e-6
# Right angles are looked for along outlines of so many pixels. Fewer leave nothing to straighten.
# More, as where the pixels are wrong, take gigabytes.
_FEWEST_STEPS, _MOST_STEPS = 4, 200_000


@dataclass(frozen=True)
class Reshaper:
    """Gives one polygon after another its new outline.

    Attributes:
        ground: of the CRS of the polygons.
        simplify_m: how far an outline may move where points are taken off, metres on the ground; 0 leaves all.
    """

    ground: Ground
    simplify_m: float

    def reshape(self, geometry: MultiPolygon, pixel_m: float | None) -> MultiPolygon:
        """The polygon with right angles where they fit, and with fewer points in all other parts.

        Args:
            geometry: in the CRS of `ground`.
            pixel_m: size of the pixels that the outline stems from; None asks for no right angles.

        Returns:
            The very same object where nothing changes. Rounding may leave a new one invalid.

        Raises:
            LayerError: the place is none on the ground.
        """
        metres = np.array(self.ground.metres_a_unit(geometry.bounds))
        if not (np.isfinite(metres).all() and metres.min() > 0):
            x, y = geometry.centroid.coords[0]
            raise LayerError(
                f"lengths on the ground are unknown at {x:.6g}, {y:.6g}: is the layer's CRS the right one?"
            )
        corner = np.array(geometry.bounds[:2])
        flat = shapely.transform(geometry, lambda points: (points - corner) * metres)
        before = list(flat.geoms)  # each look at `geoms` makes new objects
        parts = [self._part(part, pixel_m) for part in before]
        if all(new is old for new, old in zip(parts, before, strict=True)):
            return geometry
        shaped = MultiPolygon(parts)
        return shapely.transform(shaped, lambda points: points / metres + corner) if shaped.is_valid else geometry

    def _part(self, part: Polygon, pixel_m: float | None) -> Polygon:
        if pixel_m is not None and _FEWEST_STEPS <= part.length / pixel_m <= _MOST_STEPS:
            in_pixels = shapely.transform(part, lambda points: points / pixel_m)
            straight = regularize(in_pixels)
            if straight is not in_pixels:
                return shapely.transform(straight, lambda points: points * pixel_m)
        if self.simplify_m:
            # Simplification starts at a ring's first point: put it where it does not depend on who wrote the ring.
            simple = shapely.simplify(shapely.normalize(part), self.simplify_m)
            if shapely.get_num_coordinates(simple) < shapely.get_num_coordinates(part):
                return simple
        return part


def without_new_overlaps(
    before: np.ndarray, after: np.ndarray, kinds: np.ndarray, ranks: np.ndarray, check: Callable[[], None]
) -> np.ndarray:
    """Reshaped polygons, cut back where two of a kind came to share more ground than before.

    The one that ranks first keeps the ground. Where two shared ground before, or a cut would take too much, both stay
    as they were.

    Args:
        before, after: the polygons `(N,)` as they were and as they became, valid, in metres; those that did not change
            are the very same objects.
        kinds: `(N,)` of any type: only polygons of one kind must keep off each other.
        ranks: `(N,)` distinct numbers, the best first.
        check: called now and again; may raise to end it all.

    Returns:
        `(N,)` valid multipolygons; those that need no cut are the objects that were given.
    """
    after = after.copy()
    while True:
        shaped, spoilt = _cut_back(before, after, kinds, ranks, check)
        if not spoilt:
            return shaped
        for index in spoilt:
            after[index] = before[index]


def _cut_back(
    before: np.ndarray, after: np.ndarray, kinds: np.ndarray, ranks: np.ndarray, check: Callable[[], None]
) -> tuple[np.ndarray, set[int]]:
    """The polygons after the cuts, and those of them that should rather stay as they were."""
    better, worse = STRtree(after).query(after, predicate="intersects")
    pairs = (ranks[better] < ranks[worse]) & (kinds[better] == kinds[worse])
    better, worse = better[pairs], worse[pairs]
    shaped = after.copy()
    spoilt = set()
    # In the order of the one that is cut: those that it is cut by have their final shape then.
    for number in np.lexsort((ranks[better], ranks[worse])):
        check()
        i, j = better[number], worse[number]
        smaller = min(before[i].area, before[j].area)
        shared = _shared(shaped[i], shaped[j])
        if shared <= _ROUNDING * smaller or shared <= (was := _shared(before[i], before[j])) + _ROUNDING * smaller:
            continue
        (cut,) = multipolygons([shapely.difference(shaped[j], shaped[i], grid_size=_GRID_M)])
        (cut,) = multipolygons([cut], REMNANT_SHARE * cut.area)
        if was > REMNANT_SHARE * smaller or cut.area < (1 - DUPLICATE_SHARE) * before[j].area:
            spoilt |= {index for index in (i, j) if after[index] is not before[index]}
        else:
            shaped[j] = cut
    return shaped, spoilt


def _shared(one: MultiPolygon, other: MultiPolygon) -> float:
    return shapely.intersection(one, other, grid_size=_GRID_M).area
