"""Seams between scenes that no grid of pixels joins: of another CRS or pixel size, but of the same ground.

The rules are those between windows (`between_windows`). Where two scenes show the same ground, instances of one class
that agree about it are views of one instance. A view that ends where the data of its scene does is a fragment. Nothing
is said about instances of one scene among themselves, since its own windows have settled that.

Instances come from top to bottom of a common frame. What is held is what a line across the scenes cuts, not the scenes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
from shapely import MultiPolygon

from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.seams.between_windows import OUTLINE_MARGIN_PX, Group, OpenGroups, View, agree, instances_of
from rs4d_core.scenes.seams.overlaps import Claim, OverlapCutter
from rs4d_core.scenes.windows.polygonize import Detection

_CELL_PX = 128


@dataclass(frozen=True)
class SceneView:
    """An instance as one scene shows it.

    Attributes:
        detection: in the frame; `fragment` where it ends with the data of its scene.
        scene: number of the scene.
        tag: what the caller knows it by.
    """

    detection: Detection
    scene: int
    tag: int


@dataclass(frozen=True)
class Settled:
    """An instance of the layer.

    Attributes:
        geometry: in the frame.
        of: the view that it is, or the best of those that it was joined from.
        untouched: the geometry is still the one of that view.
    """

    geometry: MultiPolygon
    score: float
    of: SceneView
    untouched: bool


class SceneMerger:
    """Joins what several scenes show of the same ground.

    Args:
        tops: least y, ascending, of all the instances that will be added, in the frame.
        part_seen: what of a geometry a scene shows, by the number of the scene.
        outline: the final shape of a geometry that was joined, given its label.
    """

    def __init__(
        self,
        tops: np.ndarray,
        part_seen: Callable[[int, MultiPolygon], MultiPolygon],
        outline: Callable[[MultiPolygon, int], MultiPolygon],
    ) -> None:
        self._tops = tops
        self._part_seen = part_seen
        self._outline = outline
        self._cutter = OverlapCutter()
        self._cells: dict[tuple[int, int], dict[View, None]] = {}
        self._given: dict[View, SceneView] = {}
        self._open = OpenGroups()
        # Of claims that may be decided against, without a word.
        self._origin: WeakKeyDictionary[Claim, tuple[SceneView, MultiPolygon | None]] = WeakKeyDictionary()
        self._step = -1

    def add(self, given: SceneView) -> list[Settled]:
        """Takes the next instance; returns those that are now final."""
        self._step += 1
        detection = given.detection
        claim = Claim(detection.geometry, detection.label)
        view = View(detection, (-detection.score, given.scene, self._step), given.scene, claim)
        self._open.begin(view, self._last_at(claim.bounds[3]))
        self._cutter.announce(claim)
        for other in self._rivals(view):
            if self._agree(view, other):
                self._open.join(view, other)
        self._given[view] = given
        for cell in _cells(claim.bounds):
            self._cells.setdefault(cell, {})[view] = None
        self._close(self._open.close(self._step))
        return self._settled(self._step)

    def finish(self) -> list[Settled]:
        """The instances that are left."""
        self._close(self._open.close_all())
        return self._settled(len(self._tops))

    def _last_at(self, bottom: float) -> int:
        """Number of the last instance that begins above this."""
        return max(int(np.searchsorted(self._tops, bottom)) - 1, self._step)

    def _rivals(self, view: View) -> Iterator[View]:
        """Views of other scenes, of the same class, whose bounds overlap."""
        x0, y0, x1, y1 = view.claim.bounds
        found = {other: None for cell in _cells(view.claim.bounds) for other in self._cells.get(cell, ())}
        for other in found:
            ox0, oy0, ox1, oy1 = other.claim.bounds
            alike = other.window != view.window and other.detection.label == view.detection.label
            if alike and ox0 < x1 and x0 < ox1 and oy0 < y1 and y0 < oy1:
                yield other

    def _agree(self, view: View, other: View) -> bool:
        first, second = view.detection.geometry, other.detection.geometry
        if not first.intersects(second):
            return False
        seen = self._part_seen(other.window, first), self._part_seen(view.window, second)
        return bool(agree(*(np.array([part], dtype=object) for part in seen))[0])

    def _close(self, groups: list[Group]) -> None:
        for group in groups:
            claims = []
            for geometry, score in instances_of(group.views, group.links):
                same = next((view for view in group.views if view.detection.geometry is geometry), None)
                best = same or min(group.views, key=lambda view: view.order)
                shape = geometry if same else self._outlined(geometry, best.detection.label)
                claim = Claim(shape, best.detection.label, score)
                claim.rank = (-score, claim.bounds[1], claim.bounds[0], shape.area)
                claim.settles = self._last_at(claim.bounds[3] + OUTLINE_MARGIN_PX)
                self._origin[claim] = (self._given[best], shape if same else None)
                claims.append(claim)
            self._cutter.replace([view.claim for view in group.views], claims)
            for view in group.views:
                del self._given[view]
                for cell in _cells(view.claim.bounds):
                    del self._cells[cell][view]
                    if not self._cells[cell]:
                        del self._cells[cell]

    def _outlined(self, geometry: MultiPolygon, label: int) -> MultiPolygon:
        """The final outline, unless it bulges beyond what the scenes showed: see `merge.OUTLINE_MARGIN_PX`."""
        shape = multipolygons(np.array([self._outline(geometry, label)], dtype=object))[0]
        if shape.is_empty or not geometry.buffer(OUTLINE_MARGIN_PX).contains(shape):
            return geometry
        return shape

    def _settled(self, step: int) -> list[Settled]:
        settled = []
        for claim in self._cutter.advance(step):
            given, untouched = self._origin.pop(claim)
            settled.append(Settled(claim.geometry, claim.score, given, claim.geometry is untouched))
        return settled


def _cells(bounds: tuple[float, float, float, float]) -> list[tuple[int, int]]:
    x0, y0, x1, y1 = (int(side // _CELL_PX) for side in bounds)
    return [(x, y) for y in range(y0, y1 + 1) for x in range(x0, x1 + 1)]
