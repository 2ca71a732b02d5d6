"""Flat ground with edges as sharp and colours as strong as a roof's. None of it is labelled."""

import numpy as np
import shapely

from rs4d_core.datasets.synthetic.blocks import Block
from rs4d_core.datasets.synthetic.buildings import FLAT_ROOFS, TILED_ROOFS, pick_color
from rs4d_core.datasets.synthetic.canvas import Color, lit
from rs4d_core.datasets.synthetic.shapes import ellipse, inset
from rs4d_core.datasets.synthetic.streets import DIRT, PAVING
from rs4d_core.datasets.synthetic.water import WATER_ROUGHNESS, WATERS
from rs4d_core.datasets.synthetic.world import World

_LINE: Color = (218, 216, 208)


def scatter_open_ground(world: World, block: Block) -> None:
    """Courts of trodden earth, slabs and basins in the free places of a block.

    Only relief and shadow tell them from roofs: a model that has seen none takes them for large buildings.
    """
    rng = world.rng
    make = (_court, _slab, _basin)
    for centre in block.random_points(rng, rng.poisson(block.area * 0.001)):
        angle = block.angle + rng.integers(2) * np.pi / 2 + rng.normal(0, 0.05)
        make[rng.choice(3, p=(0.5, 0.35, 0.15))](world, centre, angle)


def _court(world: World, centre: np.ndarray, angle: float) -> None:
    """Trodden earth or a hard court, here and there with lines or a kerb, worn in the middle."""
    rng = world.rng
    court = Block(centre, rng.uniform(10, 42), rng.uniform(8, 26), angle)
    color = pick_color(rng, DIRT if rng.random() < 0.6 else (*TILED_ROOFS, *FLAT_ROOFS), 8)
    roughness = rng.uniform(8, 60)
    if not _free(world, court):
        return
    world.surface(court.corners(), color, roughness)
    if rng.random() < 0.5:
        worn = ellipse(court.at(*rng.uniform(-0.2, 0.2, 2)), court.length * 0.3, court.width * 0.3, angle, 20)
        world.surface(worn + rng.normal(0, 0.5, worn.shape), lit(color, rng.uniform(1.03, 1.12)), roughness)
    if rng.random() < 0.5:
        edge = inset(court.corners(), *(2 * [rng.uniform(0.2, 1.5)]))
        world.line(np.vstack([edge, edge[:1]]), _LINE if rng.random() < 0.5 else pick_color(rng, PAVING), 0.2)


def _slab(world: World, centre: np.ndarray, angle: float) -> None:
    """A terrace, a bed or a foundation, no larger than a hut."""
    rng = world.rng
    slab = Block(centre, rng.uniform(2.5, 9), rng.uniform(1.5, 6), angle)
    if _free(world, slab):
        world.surface(slab.corners(), pick_color(rng, (*PAVING, *DIRT, *FLAT_ROOFS)), rng.uniform(8, 60))


def _basin(world: World, centre: np.ndarray, angle: float) -> None:
    """Still water between straight walls."""
    rng = world.rng
    basin = Block(centre, rng.uniform(8, 40), rng.uniform(6, 22), angle)
    if _free(world, basin):
        world.surface(basin.corners(), pick_color(rng, PAVING), 12)
        water = basin.shrunk(rng.uniform(0.3, 1.2))
        world.surface(water.corners(), pick_color(rng, WATERS), rng.uniform(*WATER_ROUGHNESS))


def _free(world: World, plot: Block) -> bool:
    """Whether nothing stands on the plot: nothing will."""
    outline = shapely.Polygon(plot.corners())
    free = world.shows(plot.centre, plot.length) and world.is_free(outline, 0.3)
    if free:
        world.reserve(outline)
    return free
