"""Storage tanks."""

import numpy as np

from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import direction, ellipse
from rs4d_core.datasets.synthetic.world import Thing, World

TOPS: tuple[Color, ...] = (
    (238, 238, 234), (226, 226, 220), (206, 206, 200), (176, 176, 172), (142, 124, 108), (110, 104, 98), (92, 118, 104),
    (150, 96, 78), (216, 208, 188),
)  # fmt: skip


def tank(world: World, centre: np.ndarray, radius: float, color: Color) -> Thing:
    """A round tank with a fixed roof, or a floating one that lies deep and has the rim's shadow on it."""
    rng = world.rng
    outline = ellipse(centre, radius, radius)
    height = min(18.0, radius * rng.uniform(0.5, 1.4) + 2)
    floating = rng.random() < 0.4
    rim = lit(color, rng.choice([0.7, 0.85, 1.2]))
    sun = world.sun / np.linalg.norm(world.sun)
    depth = radius * rng.uniform(0.1, 0.4)
    stairs = rng.uniform(0, 2 * np.pi)
    ribs = rng.integers(0, 3) * 6

    def draw(canvas: Canvas) -> None:
        canvas.disc(centre, radius, rim, 6)
        if floating:
            canvas.disc(centre, radius * 0.94, lit(color, 0.58), 6)
            canvas.polygon(_lens(centre, radius * 0.94, sun * depth), color, 8)
            canvas.disc(centre + sun * depth * 0.3, radius * 0.06, lit(color, 0.7), 6)
        else:
            canvas.disc(centre, radius * 0.94, color, 6)
            canvas.polygon(_lens(centre, radius * 0.94, -sun * radius * 0.5), lit(color, 1.07), 6)
            for phase in np.arange(ribs) * (2 * np.pi / max(ribs, 1)):
                canvas.line(np.array([centre, centre + direction(phase) * radius * 0.92]), lit(color, 0.93), 0.2)
            canvas.disc(centre, max(0.5, radius * 0.08), lit(color, 0.8), 6)
        canvas.line(np.array([centre + direction(stairs) * radius * 0.3, centre + direction(stairs) * radius * 0.97]),
                    lit(color, 0.75), 0.5)  # fmt: skip

    return Thing("storage_tank", outline, draw, height=height)


def _lens(centre: np.ndarray, radius: float, shift: np.ndarray) -> np.ndarray:
    """The part of a disc that a disc shifted by `shift` also covers."""
    distance = float(np.linalg.norm(shift))
    half = np.arccos(min(1.0, distance / (2 * radius)))
    axis = float(np.arctan2(shift[1], shift[0]))
    phase = np.linspace(-half, half, 24)
    near = centre + radius * np.stack([np.cos(axis + phase), np.sin(axis + phase)], axis=1)
    far = centre + shift - radius * np.stack([np.cos(axis + phase), np.sin(axis + phase)], axis=1)
    return np.concatenate([near, far])


def tank_color(rng: np.random.Generator) -> Color:
    """A colour for the tanks of one yard."""
    return pick_color(rng, TOPS, 6)
