"""The ground that a scene shows: surfaces, and objects of which no two overlap."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import shapely

from rs4d_core.datasets.synthetic.canvas import Canvas, Color

Draw = Callable[[Canvas], None]


@dataclass(frozen=True, eq=False)
class Thing:
    """One object on the ground.

    Attributes:
        class_name: its class; None for what is not an instance of any (a tree, a container).
        outline: `(K, 2)` metres, what is seen of it from above; without its hole.
        draw: draws it.
        height: metres above ground; decides its shadow.
        hole: `(K, 2)` metres, a courtyard; None where there is none.
    """

    class_name: str | None
    outline: np.ndarray
    draw: Draw
    height: float = 0.0
    hole: np.ndarray | None = None

    def polygon(self) -> shapely.Polygon:
        """The exact truth."""
        return shapely.Polygon(self.outline, None if self.hole is None else [self.hole])


@dataclass
class World:
    """A rectangle of ground, `width x height` metres, being filled.

    Attributes:
        width: metres.
        height: metres.
        rng: decides everything on the ground.
        sun: shift of the shadow's tip for one metre of height, metres.
        surfaces: drawn first, in order; they lie flat.
        things: drawn on top, in order.
    """

    width: float
    height: float
    rng: np.random.Generator
    sun: np.ndarray
    surfaces: list[Draw] = field(default_factory=list)
    things: list[Thing] = field(default_factory=list)
    _taken: list[shapely.Polygon] = field(default_factory=list)
    _bounds: np.ndarray = field(default_factory=lambda: np.empty((512, 4)))  # of _taken; grows by doubling

    def shows(self, centre: np.ndarray, radius: float) -> bool:
        """Whether a disc touches the ground: what does not need not be made."""
        x, y = centre
        return -radius < x < self.width + radius and -radius < y < self.height + radius

    def surface(self, points: np.ndarray, color: Color, roughness: float = 10) -> None:
        """Cover a part of the ground."""
        self.surfaces.append(lambda canvas: canvas.polygon(points, color, roughness))

    def line(self, points: np.ndarray, color: Color, width_m: float) -> None:
        """Paint a line on the ground."""
        self.surfaces.append(lambda canvas: canvas.line(points, color, width_m))

    def place(self, things: Sequence[Thing], gap: float = 0.5) -> bool:
        """Add a group of things that do not overlap each other, if none of them comes nearer than `gap` metres to what
        stands there already, and any of it is inside the ground. Things of one group may touch.
        """
        shapes = [shapely.Polygon(thing.outline) for thing in things]
        footprint = shapes[0] if len(shapes) == 1 else shapely.union_all(shapes)
        x0, y0, x1, y1 = footprint.bounds
        if x1 <= 0 or y1 <= 0 or x0 >= self.width or y0 >= self.height:
            return False
        if not self.is_free(footprint, gap):
            return False
        self.reserve(footprint)
        self.things.extend(things)
        return True

    def reserve(self, footprint: shapely.Polygon) -> None:
        """Keep things placed later away from `footprint`."""
        if len(self._taken) == len(self._bounds):
            self._bounds = np.concatenate([self._bounds, np.empty_like(self._bounds)])
        self._bounds[len(self._taken)] = footprint.bounds
        self._taken.append(footprint)

    def is_free(self, footprint: shapely.Polygon, gap: float) -> bool:
        """Whether nothing stands on `footprint` or nearer than `gap` metres."""
        x0, y0, x1, y1 = footprint.bounds
        left, top, right, bottom = self._bounds[: len(self._taken)].T
        near = (left < x1 + gap) & (right > x0 - gap) & (top < y1 + gap) & (bottom > y0 - gap)
        return not any(shapely.dwithin(footprint, self._taken[index], gap) for index in np.flatnonzero(near))

    def render(self, canvas: Canvas, shadow_depth: float) -> None:
        """Draw everything: surfaces, then shadows on them, then things, low ones first."""
        for draw in self.surfaces:
            draw(canvas)
        for thing in self.things:
            if thing.height > 0:
                canvas.shadow(thing.outline, self.sun * thing.height)
        for thing in self.things:
            if thing.hole is not None:
                canvas.shadow_inside(thing.hole, self.sun * thing.height)
        canvas.cast_shadows(shadow_depth)
        for thing in sorted(self.things, key=lambda thing: thing.height):
            thing.draw(canvas)
