"""Water: open sea, quays with ships alongside, marinas, rivers."""

import numpy as np
import shapely

from rs4d_core.datasets.synthetic.blocks import Block
from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Color
from rs4d_core.datasets.synthetic.shapes import direction, ellipse
from rs4d_core.datasets.synthetic.ships import ship, usual_beam, wake
from rs4d_core.datasets.synthetic.streets import DIRT, PAVING
from rs4d_core.datasets.synthetic.world import World

WATERS: tuple[Color, ...] = (
    (48, 72, 84), (62, 88, 92), (40, 58, 78), (78, 98, 88), (56, 82, 76), (34, 50, 62), (92, 106, 92), (70, 110, 116),
)  # fmt: skip
WATER_ROUGHNESS = (5, 30)


def sea(world: World, block: Block) -> None:
    """Open water with ships under way or at anchor, and perhaps islands."""
    color = _flood(world, block.corners())
    for _ in range(world.rng.integers(0, 3)):
        _island(world, block)
    _sail(world, block.shrunk(4), world.rng.uniform(1, 5), color)


def harbour(world: World, block: Block) -> None:
    """Water along whose first long side (-0.5 of the width) runs a quay."""
    rng = world.rng
    color = _flood(world, block.corners())
    edge = Block(block.at(0, -0.5), block.length, 2.4, block.angle)
    world.surface(edge.corners(), pick_color(rng, PAVING, 8), 20)
    if rng.random() < 0.6:
        _moor(world, block)
    else:
        _marina(world, block)
    open_water = block.part(-0.5, 0.5, min(0.3, 60 / block.width - 0.5), 0.5)
    _sail(world, open_water, rng.uniform(0.1, 0.8), color)


def river(world: World, block: Block) -> None:
    """Water between natural banks, along the block."""
    rng = world.rng
    bank, water = pick_color(rng, DIRT, 8), pick_color(rng, WATERS, 5)
    u = np.linspace(-0.6, 0.6, 24)
    bend = 0.12 * np.sin(u * rng.uniform(4, 9) + rng.uniform(0, 6)) + rng.normal(0, 0.01, 24)
    for color, half, roughness in ((bank, 0.36, 40), (water, 0.31, rng.uniform(*WATER_ROUGHNESS))):
        sides = [
            [block.at(a, b + sign * half + rng.normal(0, 0.006)) for a, b in zip(u, bend, strict=True)]
            for sign in (-1, 1)
        ]
        world.surface(np.array(sides[0] + sides[1][::-1]), color, roughness)
    _sail(world, block.part(-0.5, 0.5, -0.1, 0.1), rng.uniform(0.3, 1.5), water)


def _island(world: World, block: Block) -> None:
    """A rock or a sandbank: a thing in the water that is not a ship."""
    rng = world.rng
    shore = ellipse(block.at(*rng.uniform(-0.4, 0.4, 2)), *rng.uniform(3, 30, 2), rng.uniform(0, 3), 28)
    shore += rng.normal(0, 1.0, shore.shape)
    world.surface(shore, pick_color(rng, DIRT, 10), 90)
    world.reserve(shapely.Polygon(shore))


def _flood(world: World, outline: np.ndarray) -> Color:
    color = pick_color(world.rng, WATERS, 5)
    world.surface(outline, color, world.rng.uniform(*WATER_ROUGHNESS))
    return color


def _length(rng: np.random.Generator) -> float:
    """Small boats are common, long ships rare; metres."""
    return float(np.clip(np.exp(rng.normal(3.1, 0.9)), 6, 220))


def _sail(world: World, block: Block, traffic: float, color: Color) -> None:
    """Ships inside `block`, on water of `color`; `traffic` is ships for each hectare."""
    rng = world.rng
    lane = rng.uniform(0, 2 * np.pi)
    for centre in block.random_points(rng, rng.poisson(block.area / 1e4 * traffic)):
        length = _length(rng)
        if not world.shows(centre, length / 2):
            continue
        angle = lane + rng.normal(0, 0.5) + np.pi * rng.integers(2)
        inside = Block(block.centre, block.length - length, block.width - length, block.angle)
        if min(inside.length, inside.width) < 0 or not _contains(inside, centre):
            continue
        if world.place([ship(rng, centre, length, usual_beam(rng, length), angle)], 2.0) and rng.random() < 0.6:
            wake(world, centre, length, angle, color)


def _contains(block: Block, point: np.ndarray) -> bool:
    offset = point - block.centre
    along, across = offset @ direction(block.angle), offset @ direction(block.angle + np.pi / 2)
    return abs(along) <= block.length / 2 and abs(across) <= block.width / 2


def _moor(world: World, block: Block) -> None:
    """Ships along the quay, here and there two or three side by side, touching."""
    rng = world.rng
    u = -block.length / 2 + rng.uniform(2, 20)
    big = rng.random() < 0.6
    while u < block.length / 2:
        length = float(rng.uniform(40, 200) if big and rng.random() < 0.7 else rng.uniform(9, 35))
        if u + length > block.length / 2:
            break
        heading = block.angle + np.pi * rng.integers(2)
        group, v = [], 1.6 + rng.uniform(0, 1)
        for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.1)):
            beam = usual_beam(rng, length)
            at = block.at_metres(u + length / 2, -block.width / 2 + v + beam / 2)
            group.append(ship(rng, at, length * rng.uniform(0.9, 1.0), beam, heading))
            v += beam
        if world.shows(block.at_metres(u + length / 2, -block.width / 2), length):
            world.place(group, 0.4)
        u += length + rng.exponential(25 if big else 8)


def _marina(world: World, block: Block) -> None:
    """Piers with boats on both sides."""
    rng = world.rng
    reach = min(block.width * 0.7, rng.uniform(30, 90))
    berth = rng.uniform(3.2, 5.5)
    boat = berth * rng.uniform(2.2, 2.8)
    spacing = 2 * boat + rng.uniform(10, 20)
    color = pick_color(rng, PAVING, 8)
    fill = rng.uniform(0.4, 0.95)
    for u in np.arange(-block.length / 2 + spacing / 2, block.length / 2 - spacing / 2, spacing):
        world.line(
            np.array([block.at_metres(u, -block.width / 2), block.at_metres(u, -block.width / 2 + reach)]), color, 2.0
        )
        for v in np.arange(6, reach - berth, berth):
            for side in (-1, 1):
                length = boat * rng.uniform(0.7, 1.0)
                at = block.at_metres(u + side * (1.2 + length / 2), -block.width / 2 + v)
                if rng.random() < fill and world.shows(at, length):
                    heading = block.angle + (0 if rng.random() < 0.5 else np.pi) + rng.normal(0, 0.02)
                    world.place([ship(rng, at, length, usual_beam(rng, length), heading)], 0.1)
