"""Seams: from what each window shows to the instances of the scene.

Windows overlap. Where two of them show the same ground they must agree about it: detections of one class whose masks
agree there (IoU) are views of one instance. Views form groups. In a group of fragments, each shows what its window
could see, and the instance is their union: so it may be larger than the overlap, and larger than a window. A whole view
needs no union: the best one stands for the group, and fragments that it covers go. Neighbours that only touch (row
houses) share no area, and are never joined.

A window that shows all of a fragment, and what lies around it, knows better than the one whose border cut it: where it
tells no such thing, there is none. What a border cuts is often taken for what it is not - a strip of a lawn for a roof.

Windows are added in the order of the plan (row by row). A group is closed once no later window can show any of it, so
what is held is the frontier between done and to do, not the scene.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import shapely
from shapely import MultiPolygon, STRtree

from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.seams.overlaps import Claim, OverlapCutter
from rs4d_core.scenes.windows.plan import Plan
from rs4d_core.scenes.windows.polygonize import Detection, border_margins

# Low, since two views of a thing ten pixels long differ by as much as their outlines waver, while masks of neighbours
# hardly overlap.
SAME_INSTANCE_IOU = 0.3
SAME_INSTANCE_COVER = 0.5
# Final outlines may bulge this far, in pixels, beyond what the windows showed: as much as the corner of a straightened
# roof needs. Then nothing that a later window shows can overlap an instance that is final.
OUTLINE_MARGIN_PX = 4.0

Outline = Callable[[np.ndarray, np.ndarray], np.ndarray]
# From a geometry, the windows that show all of it and room around it, so that none of their borders can have cut it.
ShowingWhole = Callable[[MultiPolygon], set[int]]


@dataclass(frozen=True)
class MergedInstance:
    """One instance of the scene: valid polygons in pixels of the model grid, score 0..1, index of its class."""

    geometry: MultiPolygon
    score: float
    label: int


@dataclass(eq=False)
class View:
    """A detection on its way into a group. `order` makes results independent of anything but the detections."""

    detection: Detection
    order: tuple
    window: int
    claim: Claim
    group: "Group" = field(init=False)


@dataclass(eq=False)
class Group:
    """Views of one instance, and the pairs of them that agree. `closes`: the last step that can show any of it."""

    views: list[View]
    links: list[tuple[View, View]]
    closes: int


class OpenGroups:
    """The groups that may still grow, by the step at which they close: a window, or whatever else comes in turn."""

    def __init__(self) -> None:
        self._closing: dict[int, dict[Group, None]] = {}

    def begin(self, view: View, closes: int) -> None:
        """A group of one view."""
        view.group = Group([view], [], closes)
        self._keep(view.group)

    def join(self, first: View, second: View) -> None:
        """Makes one of the groups of two views that agree."""
        into, other = first.group, second.group
        if into is not other:
            if len(into.views) < len(other.views):
                into, other = other, into
            for group in (into, other):
                del self._closing[group.closes][group]
            for view in other.views:
                view.group = into
            into.views += other.views
            into.links += other.links
            into.closes = max(into.closes, other.closes)
            self._keep(into)
        into.links.append((first, second))

    def close(self, step: int) -> list[Group]:
        """The groups that end with this step, which are let go."""
        return list(self._closing.pop(step, {}))

    def close_all(self) -> list[Group]:
        """The groups that are left."""
        left = [group for groups in self._closing.values() for group in groups]
        self._closing.clear()
        return left

    def _keep(self, group: Group) -> None:
        self._closing.setdefault(group.closes, {})[group] = None


class SeamMerger:
    """Joins the detections of the windows of one scene, window by window.

    Args:
        windows: the plan of the scene.
        outline: from an array of merged geometries and one of their labels, the final shapes (simplification,
            regularisation), before overlaps inside a class are cut. A shape that bulges by more than 4 px is not taken.
    """

    def __init__(
        self,
        windows: Plan,
        scene_width: int,
        scene_height: int,
        outline: Outline = lambda geometries, labels: geometries,
    ) -> None:
        self._outline = outline
        self._windows = windows
        self._scene_size = (scene_width, scene_height)
        self._columns, self._rows = np.array(windows.columns), np.array(windows.rows)
        self._views: dict[int, dict[View, None]] = {}
        self._open = OpenGroups()
        self._cutter = OverlapCutter()
        self._last = len(windows) - 1
        self._newest = -1

    def add(self, window: int, detections: list[Detection]) -> list[MergedInstance]:
        """Takes the detections of the window with this index in the plan; returns the instances that are now final.

        Every window must be added, in order; one that was skipped with no detections.
        """
        self._newest = window
        views = [self._view(window, index, detection) for index, detection in enumerate(detections)]
        if views:
            for first, second in self._same_instance(views, self._neighbouring_views(window)):
                self._open.join(first, second)
            self._views[window] = dict.fromkeys(views)
        self._close(self._open.close(window))
        return self._final(window)

    def finish(self) -> list[MergedInstance]:
        """The instances that are left, as they are: after the last window, or where the run was broken off."""
        self._close(self._open.close_all())
        return self._final(self._last)

    def _view(self, window: int, index: int, detection: Detection) -> View:
        claim = Claim(detection.geometry, detection.label)
        view = View(detection, (-detection.score, window, index), window, claim)
        self._open.begin(view, self._last_window_at(claim.bounds))
        self._cutter.announce(claim)
        return view

    def _last_window_at(self, bounds: tuple[float, float, float, float], margin: float = 0.0) -> int:
        """Index of the last window of the plan that shows any of a place."""
        column = np.searchsorted(self._columns, bounds[2] + margin) - 1
        row = np.searchsorted(self._rows, bounds[3] + margin) - 1
        return int(row * len(self._columns) + column)

    def _showing_whole(self, geometry: MultiPolygon) -> set[int]:
        """The windows, of those that were added, in which something of these bounds is no fragment."""
        x0, y0, x1, y1 = geometry.bounds
        margin_x, margin_y = border_margins(geometry.bounds)
        width, height = self._scene_size
        columns = _with_room(self._columns, self._windows.width, width, x0 - margin_x, x1 + margin_x)
        rows = _with_room(self._rows, self._windows.height, height, y0 - margin_y, y1 + margin_y)
        indices = (rows[:, None] * len(self._columns) + columns).ravel()
        return set(indices[indices <= self._newest].tolist())

    def _neighbouring_views(self, window: int) -> list[View]:
        """The open views in the windows before this one that overlap it."""
        row, column = divmod(window, len(self._columns))
        width, height = self._windows.width, self._windows.height
        first_column = np.searchsorted(self._columns, self._columns[column] - width, side="right")
        last_column = np.searchsorted(self._columns, self._columns[column] + width) - 1
        first_row = np.searchsorted(self._rows, self._rows[row] - height, side="right")
        return [
            view
            for r in range(first_row, row + 1)
            for c in range(first_column, last_column + 1)
            for view in self._views.get(r * len(self._columns) + c, ())
        ]

    def _same_instance(self, new: list[View], old: list[View]) -> list[tuple[View, View]]:
        """Pairs of views of one class that agree about the ground that both of their windows show."""
        if not old:
            return []
        old_geometries = np.array([view.detection.geometry for view in old])
        new_geometries = np.array([view.detection.geometry for view in new])
        i, j = STRtree(new_geometries).query(old_geometries)
        same_class = (
            np.array([view.detection.label for view in old])[i] == np.array([view.detection.label for view in new])[j]
        )
        i, j = i[same_class], j[same_class]
        old_boxes, new_box = self._trusted(old[k].window for k in i), self._trusted([new[0].window])[0]
        low, high = np.maximum(old_boxes[:, :2], new_box[:2]), np.minimum(old_boxes[:, 2:], new_box[2:])
        agreed = agree(_clip(old_geometries[i], low, high), _clip(new_geometries[j], low, high))
        return [(old[a], new[b]) for a, b in zip(i[agreed], j[agreed], strict=True)]

    def _trusted(self, indices: Iterable[int]) -> np.ndarray:
        """`(N, 4)` trusted boxes of windows."""
        boxes = [self._windows[index].trusted_box(*self._scene_size) for index in indices]
        return np.array(boxes).reshape(-1, 4)

    def _close(self, groups: list[Group]) -> None:
        """Turns groups into claims with their final outlines."""
        geometries, labels, scores, owners = [], [], [], []
        for group in groups:
            for geometry, score in instances_of(group.views, group.links, self._showing_whole):
                geometries.append(geometry)
                scores.append(score)
                labels.append(group.views[0].detection.label)
                owners.append(group)
        claims: dict[Group, list[Claim]] = {group: [] for group in groups}
        if geometries:
            outlined = self._outlined(np.array(geometries, dtype=object), np.array(labels))
            for geometry, score, label, group in zip(outlined, scores, labels, owners, strict=True):
                if not geometry.is_empty:
                    claim = Claim(geometry, label, score)
                    claim.rank = (-score, claim.bounds[1], claim.bounds[0], geometry.area)
                    claim.settles = self._last_window_at(claim.bounds, OUTLINE_MARGIN_PX)
                    claims[group].append(claim)
        for group, final in claims.items():
            self._cutter.replace([view.claim for view in group.views], final)
            for view in group.views:
                del self._views[view.window][view]
                if not self._views[view.window]:
                    del self._views[view.window]

    def _outlined(self, geometries: np.ndarray, labels: np.ndarray) -> np.ndarray:
        outlined = self._outline(geometries, labels)
        bulge = (shapely.bounds(outlined) - shapely.bounds(geometries)) * (-1, -1, 1, 1)
        return multipolygons(np.where((bulge > OUTLINE_MARGIN_PX).any(axis=1), geometries, outlined))

    def _final(self, window: int) -> list[MergedInstance]:
        return [MergedInstance(claim.geometry, claim.score, claim.label) for claim in self._cutter.advance(window)]


def instances_of(
    views: list[View], links: list[tuple[View, View]], showing_whole: ShowingWhole = lambda geometry: set()
) -> list[tuple[MultiPolygon, float]]:
    """What a group of views shows: geometry and score of one instance, rarely of more or of none.

    Fragments are joined along the links between them; the score of a union is the mean of its fragments' weighted by
    area. Whole views stand for themselves, best first; fragments and lesser views that they cover go. A view that
    agrees with a fragment, but covers little of it, only seemed whole: the mask ended short of the border. Not so where
    its window shows all of the fragment, too: then that is wrong, which may be two houses taken for one. So is a union
    that a window shows whole without having told any of it.
    """
    if len(views) == 1 and not views[0].detection.fragment:
        return [(views[0].detection.geometry, views[0].detection.score)]
    fragments = {view for view in views if view.detection.fragment}
    goes_on = {
        whole
        for pair in links
        for whole, fragment in (pair, pair[::-1])
        if whole not in fragments
        and fragment in fragments
        and not _covered(fragment.detection.geometry, whole.detection.geometry)
        and whole.window not in showing_whole(fragment.detection.geometry)
    }
    wholes: list[tuple[MultiPolygon, float]] = []
    for view in sorted((v for v in views if v not in fragments | goes_on), key=lambda v: v.order):
        if not any(_covered(view.detection.geometry, better) for better, _ in wholes):
            wholes.append((view.detection.geometry, view.detection.score))
    unions = []
    for part in _connected([v for v in views if v in fragments | goes_on], links):
        geometry, score = _union(part)
        denied = showing_whole(geometry) - {view.window for view in part}
        if not denied and not any(_covered(geometry, whole) for whole, _ in wholes):
            unions.append((geometry, score))
    return wholes + unions


def agree(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """`(N,)` bool: whether two arrays of N geometries show, pair by pair, the same thing.

    Either as wholes, or in one of their parts: a window may show the arms of a U as two instances where the next one
    shows that they are one.
    """
    shared = shapely.area(shapely.intersection(first, second))
    first_area, second_area = shapely.area(first), shapely.area(second)
    same = (shared > 0) & (shared >= SAME_INSTANCE_IOU * (first_area + second_area - shared))
    in_parts = (shapely.get_num_geometries(first) > 1) | (shapely.get_num_geometries(second) > 1)
    contained = (shared > 0) & (shared >= SAME_INSTANCE_COVER * np.minimum(first_area, second_area))
    for k in np.flatnonzero(~same & in_parts & contained):
        parts, others = shapely.get_parts(first[k]), shapely.get_parts(second[k])
        pair_shared = shapely.area(shapely.intersection(parts[:, None], others))
        pair_union = shapely.area(parts)[:, None] + shapely.area(others) - pair_shared
        same[k] = ((pair_shared > 0) & (pair_shared >= SAME_INSTANCE_IOU * pair_union)).any()
    return same


def _clip(geometries: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Geometries `(N,)` cut to boxes with corners `low (N, 2)` and `high (N, 2)`; those inside are left as they are."""
    bounds = shapely.bounds(geometries)
    outside = (bounds[:, :2] < low).any(axis=1) | (bounds[:, 2:] > high).any(axis=1)
    boxes = shapely.box(low[outside, 0], low[outside, 1], high[outside, 0], high[outside, 1])
    geometries[outside] = multipolygons(shapely.intersection(geometries[outside], boxes))
    return geometries


def _connected(views: list[View], links: list[tuple[View, View]]) -> list[list[View]]:
    """The views in sets that are connected by links among themselves."""
    linked: dict[View, list[View]] = {view: [] for view in views}
    for first, second in links:
        if first in linked and second in linked:
            linked[first].append(second)
            linked[second].append(first)
    components, seen = [], set()
    for view in views:
        if view in seen:
            continue
        component, reached = [], [view]
        seen.add(view)
        while reached:
            component.append(reached.pop())
            for other in linked[component[-1]]:
                if other not in seen:
                    seen.add(other)
                    reached.append(other)
        components.append(component)
    return components


def _union(views: list[View]) -> tuple[MultiPolygon, float]:
    """Union of views and the mean of their scores, weighted by area."""
    if len(views) == 1:
        return views[0].detection.geometry, views[0].detection.score
    geometries = np.array([view.detection.geometry for view in views])
    scores = [view.detection.score for view in views]
    union = multipolygons(np.array([shapely.union_all(geometries)]))[0]
    return union, float(np.average(scores, weights=shapely.area(geometries)))


def _with_room(starts: np.ndarray, size: int, scene_size: int, low: float, high: float) -> np.ndarray:
    """Along one side of the scene, the indices of the windows that show `low .. high`, as far as the scene goes."""
    ends = starts + size
    return np.flatnonzero(((starts <= low) | (starts == 0)) & ((high <= ends) | (ends == scene_size)))


def _covered(geometry: MultiPolygon, by: MultiPolygon) -> bool:
    return shapely.intersection(geometry, by).area >= SAME_INSTANCE_COVER * geometry.area
