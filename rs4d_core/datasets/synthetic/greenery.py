"""Trees, and ground that carries no objects: parks, woods, fields. None of it is labelled."""

import numpy as np
import shapely

from rs4d_core.datasets.synthetic.blocks import Block
from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import direction, ellipse, rectangle
from rs4d_core.datasets.synthetic.world import Thing, World

LEAVES: tuple[Color, ...] = ((56, 76, 42), (66, 88, 48), (48, 66, 40), (84, 98, 56), (74, 82, 50), (60, 84, 60))
GRASS: tuple[Color, ...] = ((96, 116, 66), (112, 126, 76), (128, 130, 86), (84, 106, 58), (140, 136, 98))
CROPS: tuple[Color, ...] = (
    (122, 132, 74), (98, 118, 62), (158, 142, 98), (142, 118, 88), (116, 94, 72), (172, 158, 110), (84, 104, 58),
)  # fmt: skip


def tree(world: World, centre: np.ndarray, radius: float) -> Thing:
    """A crown: a few discs, lighter towards the sun."""
    rng = world.rng
    color = pick_color(rng, LEAVES, 6)
    towards_sun = -world.sun / np.linalg.norm(world.sun)
    lumps = [(rng.uniform(-0.45, 0.45, 2) * radius, rng.uniform(0.35, 0.6) * radius) for _ in range(3)]
    outline = ellipse(centre, radius, radius, corners=14)

    def draw(canvas: Canvas) -> None:
        canvas.disc(centre, radius, lit(color, 0.8), 150)
        for offset, size in lumps:
            canvas.disc(centre + offset, size, color, 160)
        canvas.disc(centre + towards_sun * radius * 0.35, radius * 0.45, lit(color, 1.25), 160)

    return Thing(None, outline, draw, height=radius * 1.4)


def scatter_trees(world: World, block: Block, count: int, gap: float = 0.4) -> None:
    """Up to `count` trees in the free places of a block."""
    for centre in block.random_points(world.rng, count):
        radius = world.rng.uniform(1.5, 4.5)
        if world.shows(centre, radius):
            world.place([tree(world, centre, radius)], gap)


def meadow(world: World, block: Block) -> None:
    """Grass."""
    world.surface(block.corners(), pick_color(world.rng, GRASS, 8), 70)


def park(world: World, block: Block) -> None:
    """Grass with paths, trees and perhaps a pond."""
    rng = world.rng
    meadow(world, block)
    for _ in range(rng.integers(1, 4)):
        path = np.stack([block.at(rng.uniform(-0.5, 0.5), side) for side in (-0.5, rng.uniform(-0.3, 0.3), 0.5)])
        world.line(path, pick_color(rng, ((186, 176, 152), (168, 160, 148)), 6), rng.uniform(1.5, 3.0))
    if rng.random() < 0.3:
        pond = ellipse(block.at(*rng.uniform(-0.25, 0.25, 2)), *rng.uniform(5, 16, 2), rng.uniform(0, np.pi), 24)
        pond += rng.normal(0, 0.7, pond.shape)
        world.surface(pond, pick_color(rng, ((62, 78, 70), (52, 68, 76), (84, 92, 76)), 6), 12)
        world.reserve(shapely.Polygon(pond))
    scatter_trees(world, block, int(block.area * rng.uniform(0.001, 0.006)))


def wood(world: World, block: Block) -> None:
    """Crown beside crown."""
    rng = world.rng
    dark = pick_color(rng, LEAVES, 6)
    world.surface(block.corners(), lit(dark, 0.7), 140)
    spacing = 6.5
    trees, footprint = [], shapely.Polygon(block.shrunk(-6).corners())
    for u in np.arange(-block.length / 2, block.length / 2, spacing):
        for v in np.arange(-block.width / 2, block.width / 2, spacing):
            centre = block.at_metres(u, v) + rng.normal(0, 1.6, 2)
            if world.shows(centre, 5):
                trees.append(tree(world, centre, rng.uniform(2.2, 4.6)))
    if trees and world.is_free(footprint, 0.5):
        world.things.extend(trees)
        world.reserve(footprint)
    else:  # something reaches into the wood: each tree has to find its place
        for single in trees:
            world.place([single], 0.4)


def field(world: World, block: Block) -> None:
    """A crop in rows, with tracks of the tractor."""
    rng = world.rng
    color = pick_color(rng, CROPS, 8)
    world.surface(block.corners(), color, rng.uniform(25, 80))
    along = rng.random() < 0.5
    across, length = (block.width, block.length) if along else (block.length, block.width)
    angle = block.angle if along else block.angle + np.pi / 2
    normal = direction(angle + np.pi / 2)
    spacing = rng.choice([1.6, 3.0, 6.0])
    tone = lit(color, rng.uniform(0.88, 1.1))
    for offset in np.arange(-across / 2 + spacing / 2, across / 2, spacing):
        row = rectangle(block.centre + normal * offset, length, spacing * 0.45, angle)
        world.surface(row, tone, 50)
    if rng.random() < 0.5:
        scatter_trees(world, block, int(rng.integers(0, 4)))
