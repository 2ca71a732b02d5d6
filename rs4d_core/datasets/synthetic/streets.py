"""Roads, car parks, and what stands and drives on them."""

import numpy as np

from rs4d_core.datasets.synthetic.blocks import Block
from rs4d_core.datasets.synthetic.buildings import hall, pick_color
from rs4d_core.datasets.synthetic.canvas import Color
from rs4d_core.datasets.synthetic.greenery import meadow
from rs4d_core.datasets.synthetic.vehicles import vehicle
from rs4d_core.datasets.synthetic.world import World

ASPHALT: tuple[Color, ...] = ((96, 96, 98), (112, 110, 108), (82, 82, 86), (128, 124, 118), (140, 136, 128))
PAVING: tuple[Color, ...] = ((168, 164, 156), (152, 148, 142), (182, 176, 164), (142, 138, 134))
DIRT: tuple[Color, ...] = (
    (164, 142, 112), (178, 158, 128), (146, 124, 98), (152, 136, 116), (172, 118, 84), (156, 98, 68),
)  # fmt: skip
_PAINT: Color = (206, 204, 196)


def road(world: World, strip: Block, traffic: float, paved: bool) -> None:
    """A road with its kerbs, its centre line and vehicles in its lanes; `traffic` is vehicles for each metre."""
    rng = world.rng
    if not paved:
        world.surface(strip.corners(), pick_color(rng, DIRT, 8), 40)
    else:
        world.surface(strip.corners(), pick_color(rng, PAVING, 6), 20)
        kerb = min(2.0, strip.width * 0.16)
        world.surface(Block(strip.centre, strip.length + strip.width, strip.width - 2 * kerb, strip.angle).corners(),
                      pick_color(rng, ASPHALT, 5), 14)  # fmt: skip
        if strip.width > 6:
            dash = 4.0 if rng.random() < 0.6 else strip.length
            for u in np.arange(-strip.length / 2, strip.length / 2, dash * 2):
                world.line(np.array([strip.at_metres(u, 0), strip.at_metres(u + dash, 0)]), _PAINT, 0.15)
    lanes = [-0.2, 0.2] + ([-0.36, 0.36] if strip.width > 9 else [])
    for lane in lanes:
        u = -strip.length / 2 + rng.exponential(1 / traffic)
        while u < strip.length / 2:
            centre = strip.at_metres(u, lane * strip.width + rng.normal(0, 0.15))
            if world.shows(centre, 8):
                heading = strip.angle + (np.pi if lane < 0 else 0) + rng.normal(0, 0.02)
                world.place([vehicle(rng, centre, heading)], 0.3)
            u += 5.5 + rng.exponential(1 / traffic)


def car_park(world: World, block: Block) -> None:
    """Rows of stalls, more or less full. A block too large for one holds a market hall and grass beside it."""
    rng = world.rng
    meadow(world, block)
    length, width = min(block.length, rng.uniform(30, 75)), min(block.width, rng.uniform(18, 42))
    spare_u, spare_v = block.length - length, block.width - width
    if spare_u > 18:
        at, size = block.at_metres((length + 4) / 2, 0), (spare_u - 4, block.width * rng.uniform(0.5, 0.9))
        world.place([hall(world, at, *size, block.angle)], 0.5)
    elif spare_v > 18:
        at, size = block.at_metres(0, (width + 4) / 2), (block.length * rng.uniform(0.5, 0.9), spare_v - 4)
        world.place([hall(world, at, *size, block.angle)], 0.5)
    block = Block(block.at_metres(-spare_u / 2, -spare_v / 2), length, width, block.angle)
    world.surface(block.corners(), pick_color(rng, ASPHALT, 6), 16)
    fill = rng.uniform(0.1, 0.85)
    lines = rng.random() < 0.8
    stall, depth, aisle = 2.6, 5.2, 6.2
    v = -block.width / 2 + depth / 2 + 1
    double = False
    while v < block.width / 2 - depth / 2:
        for u in np.arange(-block.length / 2 + 3, block.length / 2 - 3, stall):
            centre = block.at_metres(u + stall / 2, v)
            if not world.shows(centre, 4):
                continue
            if lines:
                world.line(
                    np.array([block.at_metres(u, v - depth / 2), block.at_metres(u, v + depth / 2)]), _PAINT, 0.12
                )
            if rng.random() < fill:
                heading = block.angle + np.pi / 2 + (np.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.02)
                world.place([vehicle(rng, centre + rng.normal(0, 0.12, 2), heading)], 0.15)
        v += depth if not double else depth + aisle
        double = not double
