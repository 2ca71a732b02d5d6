"""Ships and boats from above."""

from itertools import pairwise

import numpy as np

from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import direction, rectangle, turn
from rs4d_core.datasets.synthetic.world import Thing, World

HULLS: tuple[Color, ...] = (
    (120, 52, 44), (142, 70, 56), (60, 66, 78), (42, 48, 60), (92, 96, 98), (150, 152, 150),
    (196, 198, 198), (46, 78, 64),
)  # fmt: skip
DECKS: tuple[Color, ...] = (
    (146, 90, 72), (118, 128, 118), (150, 150, 146), (172, 166, 152), (96, 120, 104), (190, 186, 178),
)  # fmt: skip
CONTAINERS: tuple[Color, ...] = (
    (168, 66, 50), (56, 92, 146), (70, 118, 84), (196, 152, 62), (180, 182, 184),
    (120, 60, 60), (74, 78, 84), (214, 214, 210),
)  # fmt: skip


def usual_beam(rng: np.random.Generator, length: float) -> float:
    """A width that goes with a length, metres: boats are stout, ships slender."""
    return length * rng.uniform(0.26, 0.36) if length < 25 else length / rng.uniform(5.2, 7.5)


def ship(rng: np.random.Generator, centre: np.ndarray, length: float, beam: float, angle: float) -> Thing:
    """A ship or boat of `length x beam` metres whose bow points along `angle`."""
    return (_boat if length < 25 else _freighter)(rng, centre, length, beam, angle)


def _hull(length: float, beam: float, bow: float, stern: float) -> np.ndarray:
    """Outline with the bow at +x: `bow` and `stern` are the shares of the length over which the sides close."""
    x, y = length / 2, beam / 2
    side = np.array(
        [
            (-x, 0.62 * y),
            (-x + stern * length, y),
            (x - bow * length, y),
            (x - bow * length * 0.45, 0.68 * y),
            (x, 0.06 * y),
        ]
    )
    return np.concatenate([side, side[::-1] * (1, -1)])


def _boat(rng: np.random.Generator, centre: np.ndarray, length: float, beam: float, angle: float) -> Thing:
    """A motor or sailing boat: a light hull with a cockpit."""
    hull = _hull(length, beam, rng.uniform(0.35, 0.55), 0.06)
    color = pick_color(rng, ((236, 236, 232), (226, 224, 216), (240, 240, 240), (150, 168, 188), (176, 120, 90)), 8)
    outline = turn(hull, angle) + centre
    inner = turn(hull * (0.78, 0.62), angle) + centre
    cabin_at = centre - direction(angle) * length * rng.uniform(-0.05, 0.15)
    cabin = rectangle(cabin_at, length * rng.uniform(0.15, 0.35), beam * 0.6, angle)
    cabin_color = pick_color(rng, ((70, 80, 92), (48, 54, 64), (180, 176, 168), (110, 88, 66), (60, 90, 140)), 8)
    inner_light = rng.uniform(0.82, 0.96)

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 4)
        canvas.polygon(inner, lit(color, inner_light), 4)
        canvas.polygon(cabin, cabin_color, 4)

    return Thing("ship", outline, draw, height=1.5)


def _freighter(rng: np.random.Generator, centre: np.ndarray, length: float, beam: float, angle: float) -> Thing:
    """A large ship: coloured hull, deck, a bridge near the stern, and cargo."""
    hull = _hull(length, beam, rng.uniform(0.1, 0.22), rng.uniform(0.03, 0.1))
    color, deck = pick_color(rng, HULLS, 8), pick_color(rng, DECKS, 8)
    outline = turn(hull, angle) + centre
    deck_line = turn(hull * ((length - 0.06 * beam) / length, 0.84), angle) + centre
    forward, side = direction(angle), direction(angle + np.pi / 2)
    stern = -1 if rng.random() < 0.85 else 1
    bridge_at = centre + forward * length * 0.36 * stern
    bridge = rectangle(bridge_at, length * rng.uniform(0.06, 0.12), beam * 0.78, angle)
    kind = rng.choice(["containers", "hatches", "tanker", "plain"])
    parts = []
    if kind == "containers":
        across, rows = max(2, int(beam * 0.8 / 2.6)), int(length * 0.6 / 13)
        for i in range(rows):
            for j in range(across):
                if rng.random() < 0.85:
                    offset = (i - rows / 2 + 0.8) * 13.0, (j - (across - 1) / 2) * 2.6
                    at = centre + forward * (offset[0] - stern * length * 0.06) + side * offset[1]
                    parts.append((rectangle(at, 12.2, 2.4, angle), pick_color(rng, CONTAINERS, 10)))
    elif kind == "hatches":
        count = int(rng.integers(3, 8))
        tone = lit(deck, rng.uniform(0.6, 1.35))
        for i in range(count):
            at = centre + forward * length * ((i + 0.5) / count - 0.5) * 0.62 - forward * stern * length * 0.06
            parts.append((rectangle(at, length * 0.62 / count * 0.7, beam * 0.6, angle), tone))
    elif kind == "tanker":
        parts.append((rectangle(centre, length * 0.6, beam * 0.06, angle), lit(deck, 1.25)))
        parts.append((rectangle(centre, beam * 0.08, beam * 0.7, angle), lit(deck, 1.25)))

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 6)
        canvas.polygon(deck_line, deck, 8)
        for figure, tone in parts:
            canvas.polygon(figure, tone, 4)
        canvas.polygon(bridge, (226, 226, 222), 4)
        canvas.polygon(
            rectangle(bridge_at - forward * length * 0.02 * stern, beam * 0.2, beam * 0.2, angle), lit(color, 0.8), 4
        )

    return Thing("ship", outline, draw, height=rng.uniform(4, 9))


def wake(world: World, centre: np.ndarray, length: float, angle: float, water: Color) -> None:
    """Foam behind a moving ship, fading into the water."""
    rng = world.rng
    forward, side = direction(angle), direction(angle + np.pi / 2)
    stern = centre - forward * length * 0.47
    reach = length * rng.uniform(0.5, 2.2)
    start, end = length * rng.uniform(0.05, 0.09), length * rng.uniform(0.08, 0.16)
    strength = rng.uniform(0.3, 0.75)
    edges = np.linspace(0, 1, 9)
    for near, far in pairwise(edges):
        foam = strength * (1 - near) ** 1.5
        color = tuple((np.array(water) * (1 - foam) + np.array((212, 222, 222)) * foam).tolist())
        left, right = [], []
        for share in (near, far):
            point, half = stern - forward * reach * share, start + (end - start) * share
            left.append(point + side * half)
            right.append(point - side * half)
        world.surface(np.array(left + right[::-1]), color, 20 + 200 * foam)
        if length < 40:  # the bow waves of fast boats
            for sign in (1, -1):
                arm = centre + np.outer([near, far], -forward * reach + sign * side * reach * 0.24)
                world.line(arm, tuple((0.5 * np.array(color) + 0.5 * np.array(water)).tolist()), 0.7)
