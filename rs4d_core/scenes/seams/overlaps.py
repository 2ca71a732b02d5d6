"""No two polygons of one class on the same ground, and none twice under two names: the better one keeps it.

The rule, for the instances in the order of their scores: what better instances of the class that were kept already
cover is taken away; an instance that is mostly covered was a duplicate, and goes whole. So does one that agrees with a
better one of another class: a thing has one class. Instances of two classes that merely overlap, as a car in a
courtyard does, both stay as they are.

Instances arrive while the scene is still being read, so each one waits until everything better that overlaps it is
known, and no longer: waiting follows chains of ever better overlapping instances, which are short, and never the whole
scene.
"""

import heapq
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely import MultiPolygon

from rs4d_core.scenes.polygons.areal import multipolygons

# An instance that loses more than this share of its area to better ones was another view of them.
DUPLICATE_SHARE = 0.4
# Instances of two classes with this intersection over union, or more, are one thing.
ONE_THING_IOU = 0.7
# What is left of a cut in pieces smaller than this, in pixels, is an artefact of two outlines crossing.
SMALLEST_REMNANT_PX = 1.0
# Overlaps below this are rounding, in pixels.
_ROUNDING_PX = 1e-6
_CELL_PX = 128


@dataclass(eq=False)
class Claim:
    """Ground that an instance lays claim to, in pixels of the model grid.

    Attributes:
        rank: smaller goes first; None while the instance may still grow, so that its score is not known.
        settles: index of the last window that can show something overlapping it.
    """

    geometry: MultiPolygon
    label: int
    score: float = 0.0
    rank: tuple | None = None
    settles: int = -1
    kept: bool = False
    bounds: tuple[float, float, float, float] = field(init=False)
    waiting: list["Claim"] = field(init=False, default_factory=list)
    """Settled claims that can be decided only after this one."""
    guarded: list["Claim"] = field(init=False, default_factory=list)
    """Kept claims that must be remembered until this one is decided, since it may have to be cut by them."""
    guards: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.bounds = self.geometry.bounds

    def __lt__(self, other: "Claim") -> bool:
        return self.rank < other.rank


class OverlapCutter:
    """Decides claims of one scene as early as the rule allows."""

    def __init__(self) -> None:
        self._cells: dict[tuple[int, int], dict[Claim, None]] = {}
        self._settling: dict[int, list[Claim]] = {}
        self._ready: list[Claim] = []
        self._reached = -1

    def announce(self, growing: Claim) -> None:
        """Something was seen whose final shape and rank are not known yet: what it overlaps has to wait."""
        self._insert(growing)

    def replace(self, grown: list[Claim], final: list[Claim]) -> None:
        """What was announced as `grown` has become the `final` claims (with rank and `settles`)."""
        for claim in final:
            for other in self._near(claim):
                if other.kept:
                    self._guard(claim, other)
        for claim in grown:
            self._leave(claim)
        for claim in final:
            self._insert(claim)
            if claim.settles <= self._reached:
                heapq.heappush(self._ready, claim)
            else:
                self._settling.setdefault(claim.settles, []).append(claim)

    def advance(self, window: int) -> list[Claim]:
        """The claims that can be decided and are kept, their geometry cut, once `window` and all before it are done."""
        for index in range(self._reached + 1, window + 1):
            for claim in self._settling.pop(index, ()):
                heapq.heappush(self._ready, claim)
        self._reached = window
        kept = []
        while self._ready:
            claim = heapq.heappop(self._ready)
            if self._decide(claim):
                kept.append(claim)
        return kept

    def _decide(self, claim: Claim) -> bool:
        """Cuts, keeps or drops a claim, or puts it behind one that must be decided before. True if kept."""
        near = self._near(claim)
        shared = _shared_areas(claim, near)
        overlapping = [other for other, area in zip(near, shared, strict=True) if area > _ROUNDING_PX]
        for other in overlapping:
            if not other.kept and (other.rank is None or other.rank < claim.rank):
                other.waiting.append(claim)
                return False
        kept = [other for other in overlapping if other.kept]
        cutters = [other.geometry for other in kept if other.label == claim.label]
        rivals = [other for other in kept if other.label != claim.label]
        whole = claim.geometry
        if cutters:
            claim.geometry = _cut(whole, cutters)
        duplicate = claim.geometry.area < (1 - DUPLICATE_SHARE) * whole.area
        # Neither as it was seen nor as it is left may it be one thing with something of another class.
        if duplicate or any(_one_thing(seen, other.geometry) for other in rivals for seen in (whole, claim.geometry)):
            self._leave(claim)
            return False
        claim.kept = True
        for other in near:
            if not other.kept:
                self._guard(other, claim)
        self._release(claim)
        if not claim.guards:
            self._remove(claim)
        return True

    @staticmethod
    def _guard(undecided: Claim, kept: Claim) -> None:
        undecided.guarded.append(kept)
        kept.guards += 1

    def _leave(self, claim: Claim) -> None:
        self._remove(claim)
        self._release(claim)

    def _release(self, claim: Claim) -> None:
        """Lets go of all that depended on this claim being undecided."""
        for waiter in claim.waiting:
            heapq.heappush(self._ready, waiter)
        claim.waiting.clear()
        for kept in claim.guarded:
            kept.guards -= 1
            if not kept.guards:
                self._remove(kept)
        claim.guarded.clear()

    def _insert(self, claim: Claim) -> None:
        for cell in _cells(claim):
            self._cells.setdefault(cell, {})[claim] = None

    def _remove(self, claim: Claim) -> None:
        for cell in _cells(claim):
            claims = self._cells[cell]
            del claims[claim]
            if not claims:
                del self._cells[cell]

    def _near(self, claim: Claim) -> list[Claim]:
        """The other claims whose bounds overlap this one's."""
        x0, y0, x1, y1 = claim.bounds
        found: dict[Claim, None] = {}
        for cell in _cells(claim):
            for other in self._cells.get(cell, ()):
                ox0, oy0, ox1, oy1 = other.bounds
                if other is not claim and ox0 < x1 and x0 < ox1 and oy0 < y1 and y0 < oy1:
                    found[other] = None
        return list(found)


def _cells(claim: Claim) -> list[tuple[int, int]]:
    """Keys of the grid cells that a claim's bounds cover. The bounds are those it came with, even after a cut."""
    x0, y0, x1, y1 = (int(side // _CELL_PX) for side in claim.bounds)
    return [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]


def _shared_areas(claim: Claim, others: list[Claim]) -> np.ndarray:
    if not others:
        return np.empty(0)
    return shapely.area(shapely.intersection(claim.geometry, np.array([other.geometry for other in others])))


def _one_thing(first: MultiPolygon, second: MultiPolygon) -> bool:
    shared = first.intersection(second).area
    return shared >= ONE_THING_IOU * (first.area + second.area - shared)


def _cut(geometry: MultiPolygon, cutters: list[MultiPolygon]) -> MultiPolygon:
    left = shapely.difference(geometry, shapely.union_all(cutters))
    return multipolygons(np.array([left]), SMALLEST_REMNANT_PX)[0]
