"""Right angles for the outlines of buildings.

An outline is cut into straight runs; each run is laid along one of two perpendicular directions of the whole building
or, where it is long and clearly askew, left in its own; lines are fitted to the runs, and corners are where two of them
meet. What is round, comes out with too little along its two directions or with a sharp corner, or strays too far from
the outline that the model saw, stays as it was.

Own code, since the one library there is (buildingregulariser 0.2.5) was farther from the truth than the raw outlines on
generated buildings: it knows whole degrees only, turns each edge about its middle instead of fitting it, and has no
guard against bad fits.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import shapely
from shapely import MultiPolygon, Polygon

# What never gets right angles, whatever was asked for: a box would fit most ships well enough to pass for one.
CURVED_CLASSES = frozenset({"airplane", "ship", "storage_tank", "baseball_diamond", "ground_track_field"})

# Lengths in pixels of the model's grid. Outlines of masks waver by about a pixel.
WAVER_PX = 1.5
SHORTEST_EDGE_PX = 3.0
# Parallel runs closer than this are one wall.
SAME_WALL_PX = 2.0
POINT_SPACING_PX = 0.5
# Corners of masks are rounded: points this close to one say nothing about the wall.
ROUNDED_PX = 1.5

# A run that is at least this long, and this far off both directions, is a slanting wall.
SLANTING_PX = 8.0
SLANTING_DEGREES = 22.5
# Runs within this of the best direction take part in finding it exactly.
ALIGNED_DEGREES = 15.0

# Lines that meet at less than this have no corner that could be relied on: they are one wall.
SHARPEST_DEGREES = 20.0

# Right angles fit a ring with at least this share of its length along its two directions, and no sharper corner. With
# less, what looks like walls is the noise of a mask, and the result is a dart.
ALONG_SHARE = 0.8
SHARPEST_CORNER_DEGREES = 60.0

# Area over that of a circle of the same length around: 0.79 for a square, 0.91 for a hexagon.
ROUND = 0.9

_SLANTING = 2

# Without a grid, GEOS (3.14) may find that two outlines which differ by 1e-15 share nothing.
_OVERLAY_GRID_PX = 2.0**-20


def regularize(geometry: Polygon | MultiPolygon, least_iou: float = 0.85) -> Polygon | MultiPolygon:
    """A polygon, or each part of a multipolygon, with right angles; as it was where that does not fit.

    Neighbours are not looked at: two buildings that touched may overlap by a pixel or so afterwards.

    Args:
        geometry: valid, in pixels of the model's grid (square on the ground).
        least_iou: intersection over union with the raw outline that the new one must reach.

    Returns:
        A valid geometry of the same kind.
    """
    if isinstance(geometry, Polygon):
        return _polygon(geometry, least_iou)
    regular = MultiPolygon([_polygon(part, least_iou) for part in geometry.geoms])
    return regular if regular.is_valid else geometry


@dataclass(frozen=True)
class _Run:
    """A straight part of a ring.

    Attributes:
        kind: 0 along the building's direction, 1 across it, 2 slanting.
        points: `(n, 2)` that lie on it, in the building's frame (turned so that its direction is x).
        length: pixels from end to end.
    """

    kind: int
    points: np.ndarray
    length: float

    @property
    def offset(self) -> float:
        """Where the wall stands: y of a run along, x of a run across. The median, which strays less than the mean."""
        return float(np.median(_inner(self.points)[:, 1 - self.kind]))


def _polygon(polygon: Polygon, least_iou: float) -> Polygon:
    # Specks between pixels are no courtyards, and sit where the straightened wall will be.
    rings = [polygon.exterior, *(hole for hole in polygon.interiors if Polygon(hole).area >= SHORTEST_EDGE_PX**2)]
    runs = [_straight_runs(ring) for ring in rings]
    rough = Polygon([run[0] for run in runs[0]]) if len(runs[0]) > 2 else Polygon()
    if rough.is_empty or 4 * math.pi * rough.area / rough.length**2 > ROUND:
        return polygon
    angle = _direction([run for ring in runs for run in ring])
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = [_corners([run @ turn for run in ring]) for ring in runs]
    if corners[0] is None:
        return polygon
    # A hole that has no right angles keeps its shape.
    shell, *holes = (
        np.asarray(ring.coords) if found is None else found @ turn.T for ring, found in zip(rings, corners, strict=True)
    )
    regular = Polygon(shell, holes)
    if not regular.is_valid:
        return polygon
    shared = shapely.intersection(regular, polygon, grid_size=_OVERLAY_GRID_PX).area
    return regular if shared / (regular.area + polygon.area - shared) >= least_iou else polygon


def _straight_runs(ring: shapely.LinearRing) -> list[np.ndarray]:
    """The points of each straight part of a ring, ends included, in order."""
    points = np.asarray(ring.segmentize(POINT_SPACING_PX).coords)[:-1]
    # Simplification keeps both ends of a line: let them be a corner, the point farthest from the middle.
    points = np.roll(points, -int(np.argmax(((points - points.mean(axis=0)) ** 2).sum(axis=1))), axis=0)
    closed = np.concatenate([points, points[:1]])
    kept = np.asarray(shapely.LineString(closed).simplify(WAVER_PX).coords)
    places = {tuple(point): place for place, point in enumerate(closed[:-1].tolist())}
    corners = [places[tuple(point)] for point in kept[:-1].tolist()] + [len(closed) - 1]
    return [closed[begin : end + 1] for begin, end in itertools.pairwise(corners)]


def _direction(runs: list[np.ndarray]) -> float:
    """The building's direction, radians: along most of its walls, or across them."""
    chords = np.array([run[-1] - run[0] for run in runs])
    lengths = np.hypot(*chords.T)
    angles = np.arctan2(chords[:, 1], chords[:, 0])
    # Differences modulo a right angle, -45 to 45 degrees.
    apart = (angles[:, None] - angles + np.pi / 4) % (np.pi / 2) - np.pi / 4
    near = np.clip(1.0 - np.abs(apart) / math.radians(ALIGNED_DEGREES), 0.0, None)
    best = int(np.argmax(near @ lengths))
    # Then exactly: the direction that all aligned walls, those across turned by a right angle, scatter about least.
    scatter = np.zeros((2, 2))
    for run, angle, weight in zip(runs, angles, near[best], strict=True):
        if weight > 0:
            inner = _inner(run)
            inner = inner - inner.mean(axis=0)
            across = round((angle - angles[best]) / (np.pi / 2)) % 2
            scatter += _quarter_turn(inner.T @ inner) if across else inner.T @ inner
    x, y = np.linalg.eigh(scatter)[1][:, 1]
    return math.atan2(y, x)


def _quarter_turn(scatter: np.ndarray) -> np.ndarray:
    return np.array([[scatter[1, 1], -scatter[0, 1]], [-scatter[0, 1], scatter[0, 0]]])


def _corners(rings: list[np.ndarray]) -> np.ndarray | None:
    """Corners `(n, 2)` of a ring whose runs are given in the building's frame; None where right angles do not fit."""
    runs = _joined([_classified(points) for points in rings])
    lines = []
    for run, following in zip(runs, runs[1:] + runs[:1], strict=True):
        lines.append(_line(run))
        if run.kind == following.kind and run.kind != _SLANTING:
            # Two parallel walls, one set back: a step between them, where the outline goes from one to the other.
            step = (run.points[-1] + following.points[0]) / 2
            lines.append(_Line(step, np.eye(2)[1 - run.kind]))
    if len(lines) < 4:
        return None
    corners = [_meet(line, following) for line, following in zip(lines, lines[1:] + lines[:1], strict=True)]
    if any(corner is None for corner in corners):
        return None
    ring = np.array(corners)
    return ring if _fits(ring) else None


def _fits(ring: np.ndarray) -> bool:
    """Whether a ring `(n, 2)`, in the building's frame, is mostly along or across, without a sharp corner."""
    walls = np.roll(ring, -1, axis=0) - ring
    lengths = np.hypot(*walls.T)
    if not lengths.min() > 0:
        return False
    along = np.abs(walls).min(axis=1) <= 1e-6 * lengths
    # At each corner, the wall that begins there against the one that ends there, walked backwards.
    ways = walls / lengths[:, None]
    cosines = -(ways * np.roll(ways, 1, axis=0)).sum(axis=1)
    sharp = math.cos(math.radians(SHARPEST_CORNER_DEGREES))
    return bool(lengths[along].sum() >= ALONG_SHARE * lengths.sum() and cosines.max() <= sharp + 1e-9)


def _classified(points: np.ndarray) -> _Run:
    x, y = points[-1] - points[0]
    length = math.hypot(x, y)
    off = math.degrees(math.atan2(min(abs(x), abs(y)), max(abs(x), abs(y))))
    if off > SLANTING_DEGREES and length >= SLANTING_PX:
        return _Run(_SLANTING, points, length)
    return _Run(0 if abs(x) >= abs(y) else 1, points, length)


def _joined(runs: list[_Run]) -> list[_Run]:
    """Runs of which none is short, and no two that follow each other are parts of one wall."""
    while len(runs) > 3:
        pair = next((place for place in range(len(runs)) if _one_wall(runs[place - 1], runs[place])), None)
        if pair is not None:
            before, after = runs[pair - 1], runs[pair]
            points = np.concatenate([before.points, after.points])
            wall = _Run(before.kind, points, math.dist(points[0], points[-1]))
            # Negative places count from the end: the pair may be the last run and the first.
            runs = [wall if run is before else run for run in runs if run is not after]
            continue
        shortest = min(range(len(runs)), key=lambda place: runs[place].length)
        if runs[shortest].length >= SHORTEST_EDGE_PX:
            break
        runs = runs[:shortest] + runs[shortest + 1 :]
    return runs


def _one_wall(before: _Run, after: _Run) -> bool:
    if before.kind != after.kind:
        return False
    if before.kind == _SLANTING:
        return _meet(_line(before), _line(after)) is None
    return abs(before.offset - after.offset) < SAME_WALL_PX


@dataclass(frozen=True)
class _Line:
    point: np.ndarray
    direction: np.ndarray


def _line(run: _Run) -> _Line:
    if run.kind == _SLANTING:
        inner = _inner(run.points)
        middle = inner.mean(axis=0)
        return _Line(middle, np.linalg.eigh((inner - middle).T @ (inner - middle))[1][:, 1])
    point = np.zeros(2)
    point[1 - run.kind] = run.offset
    return _Line(point, np.eye(2)[run.kind])


def _meet(one: _Line, other: _Line) -> np.ndarray | None:
    """Where two lines cross; None where they are nearly parallel."""
    cross = one.direction[0] * other.direction[1] - one.direction[1] * other.direction[0]
    if abs(cross) < math.sin(math.radians(SHARPEST_DEGREES)):
        return None
    apart = other.point - one.point
    return one.point + one.direction * ((apart[0] * other.direction[1] - apart[1] * other.direction[0]) / cross)


def _inner(points: np.ndarray) -> np.ndarray:
    """The points of a run without those near its ends, where it has others."""
    skipped = min(int(ROUNDED_PX / POINT_SPACING_PX), (len(points) - 2) // 2)
    return points[skipped : len(points) - skipped] if skipped > 0 else points
