"""Lay out the ground of a scene: which kind of place it is, its streets, and what each block holds."""

from dataclasses import dataclass

import numpy as np

from rs4d_core.datasets.synthetic import water
from rs4d_core.datasets.synthetic.blocks import Block, divide
from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.districts import FILL
from rs4d_core.datasets.synthetic.streets import PAVING, road
from rs4d_core.datasets.synthetic.world import World


@dataclass(frozen=True)
class Place:
    """A kind of place.

    Attributes:
        blocks: uses of its blocks, with weights.
        largest: blocks are cut down to about this side, metres.
        road_width: of the widest road, metres.
        traffic: vehicles for each metre of lane.
        paved: whether its roads are.
        water: what lies along one side: None, "harbour" or "river".
    """

    blocks: dict[str, float]
    largest: float
    road_width: float
    traffic: float
    paved: bool = True
    water: str | None = None


PLACES: dict[str, Place] = {
    "suburb": Place({"houses": 6, "terraces": 2, "park": 1, "sports": 1, "car_park": 0.5, "wood": 0.5}, 150, 11, 0.012),
    "village": Place({"village": 6, "field": 2, "houses": 1, "wood": 1}, 170, 7, 0.004, paved=False),
    "town": Place({"city": 4, "terraces": 3, "car_park": 1, "park": 1, "village": 2, "sports": 0.5}, 120, 13, 0.025),
    "city": Place({"city": 7, "car_park": 1.5, "park": 1, "sports": 0.5}, 140, 18, 0.04),
    "industry": Place({"industry": 5, "tanks": 2.5, "car_park": 1, "containers": 1, "field": 0.5}, 210, 13, 0.015),
    "depot": Place({"tanks": 5, "industry": 1.5, "field": 1, "wood": 0.5}, 150, 9, 0.006),
    "port": Place(
        {"industry": 2, "containers": 2, "tanks": 2, "car_park": 1, "city": 1}, 160, 12, 0.012, water="harbour"
    ),
    "seaside": Place({"houses": 2, "city": 1, "village": 1, "park": 1, "car_park": 1}, 130, 9, 0.012, water="harbour"),
    "riverside": Place({"houses": 2, "village": 2, "field": 2, "wood": 1, "terraces": 1}, 150, 8, 0.008, water="river"),
    "campus": Place({"sports": 6, "city": 1.5, "park": 1, "car_park": 1.5, "houses": 1}, 230, 10, 0.012),
    "country": Place(
        {"field": 6, "wood": 1.5, "village": 1, "houses": 0.5, "industry": 0.5}, 190, 6, 0.003, paved=False
    ),
    "sea": Place({}, 1e9, 0, 0, water="sea"),
}
_WEIGHTS = {
    "suburb": 3, "village": 2, "town": 2, "city": 2, "industry": 2, "depot": 1.2, "port": 2, "seaside": 1.5,
    "riverside": 1, "campus": 2, "country": 0.7, "sea": 1.5,
}  # fmt: skip


def lay_out(world: World) -> str:
    """Fill `world`; returns the kind of place it became."""
    rng = world.rng
    names = list(PLACES)
    weights = np.array([_WEIGHTS[name] for name in names])
    name = names[rng.choice(len(names), p=weights / weights.sum())]
    place = PLACES[name]
    side = float(np.hypot(world.width, world.height)) + 40
    ground = Block(
        np.array([world.width, world.height]) / 2 + rng.uniform(-20, 20, 2), side, side, rng.uniform(0, 2 * np.pi)
    )
    if place.water == "sea":
        water.sea(world, ground)
        return name
    if place.water is not None:
        shore = rng.uniform(-0.2, 0.25)
        if place.water == "harbour":
            wet, ground = ground.part(-0.5, 0.5, shore, 0.5), ground.part(-0.5, 0.5, -0.5, shore)
            water.harbour(world, wet)
            apron = rng.uniform(4, 25)
            quay = ground.part(-0.5, 0.5, 0.5 - apron / ground.width, 0.5)
            world.surface(quay.corners(), pick_color(rng, PAVING, 8), 22)
            ground = ground.part(-0.5, 0.5, -0.5, 0.5 - apron / ground.width)
        else:
            width = rng.uniform(40, 110) / side
            wet = ground.part(-0.5, 0.5, shore, shore + width)
            water.river(world, wet)
            if shore + width < 0.5:  # in a small scene the river may reach its end
                _fill(world, ground.part(-0.5, 0.5, shore + width, 0.5), place)
            ground = ground.part(-0.5, 0.5, -0.5, shore)
    _fill(world, ground, place)
    return name


def _fill(world: World, ground: Block, place: Place) -> None:
    rng = world.rng
    largest = place.largest * rng.uniform(0.8, 1.3)
    blocks, roads = divide(ground, rng, largest, largest * 0.3, place.road_width * rng.uniform(0.8, 1.2))
    for strip in reversed(roads):  # the widest last, so that it runs through its crossings
        road(world, strip, place.traffic * rng.uniform(0.3, 2), place.paved)
    uses = list(place.blocks)
    weights = np.array(list(place.blocks.values()))
    for block in blocks:
        if not world.shows(block.centre, float(np.hypot(block.length, block.width)) / 2):
            continue
        oriented = block if block.length >= block.width else block.turned()
        FILL[uses[rng.choice(len(uses), p=weights / weights.sum())]](world, oriented)
