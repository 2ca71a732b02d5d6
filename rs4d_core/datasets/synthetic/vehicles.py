"""Cars and trucks."""

import numpy as np

from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import rectangle, turn
from rs4d_core.datasets.synthetic.world import Thing

PAINTS: tuple[Color, ...] = (
    (232, 232, 230), (238, 238, 238), (205, 208, 210), (176, 180, 184), (132, 136, 140), (84, 86, 90),
    (44, 45, 48), (34, 35, 40), (150, 44, 38), (170, 60, 50), (52, 74, 120), (70, 98, 140),
    (186, 170, 130), (70, 90, 76),
)  # fmt: skip
_GLASS: Color = (40, 46, 54)


def car(rng: np.random.Generator, centre: np.ndarray, angle: float) -> Thing:
    """A passenger car, about 4.5 x 1.8 m."""
    length, width = rng.uniform(3.9, 5.1), rng.uniform(1.7, 2.0)
    color = pick_color(rng, PAINTS, 8)
    chamfer = 0.3
    x, y = length / 2, width / 2
    front = np.array([(x - chamfer, -y), (x, -y + chamfer), (x, y - chamfer), (x - chamfer, y)])
    body = np.concatenate([front, -front])
    outline = turn(body, angle) + centre
    forward = turn(np.array([1.0, 0.0]), angle)
    windscreen = rectangle(centre + forward * length * 0.14, length * 0.13, width * 0.8, angle)
    rear_window = rectangle(centre - forward * length * 0.32, length * 0.09, width * 0.75, angle)

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 4)
        canvas.polygon(windscreen, _GLASS, 2)
        canvas.polygon(rear_window, _GLASS, 2)

    return Thing("vehicle", outline, draw, height=1.4)


def truck(rng: np.random.Generator, centre: np.ndarray, angle: float) -> Thing:
    """A truck or bus, 7 to 16 m long: a cab and a box."""
    length, width = rng.uniform(7, 16), 2.5
    box_color, cab_color = pick_color(rng, PAINTS, 8), pick_color(rng, PAINTS, 8)
    outline = rectangle(centre, length, width, angle)
    forward = turn(np.array([1.0, 0.0]), angle)
    cab = rectangle(centre + forward * (length / 2 - 1.1), 2.2, width, angle)

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, box_color, 4)
        canvas.line(
            np.array([centre - forward * length * 0.45, centre + forward * length * 0.3]), lit(box_color, 0.92), 0.3
        )
        canvas.polygon(cab, cab_color, 4)
        canvas.polygon(rectangle(centre + forward * (length / 2 - 0.5), 0.6, width * 0.85, angle), _GLASS, 2)

    return Thing("vehicle", outline, draw, height=3.2)


def vehicle(rng: np.random.Generator, centre: np.ndarray, angle: float) -> Thing:
    """Mostly cars."""
    return truck(rng, centre, angle) if rng.random() < 0.08 else car(rng, centre, angle)
