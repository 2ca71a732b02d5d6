"""Fill a block of ground: what stands on it, and what lies between."""

import numpy as np

from rs4d_core.datasets.synthetic import sports, tanks
from rs4d_core.datasets.synthetic.blocks import Block
from rs4d_core.datasets.synthetic.buildings import courtyard_building, hall, house, pick_color, row_houses
from rs4d_core.datasets.synthetic.canvas import Canvas, lit
from rs4d_core.datasets.synthetic.greenery import GRASS, field, meadow, park, scatter_trees, wood
from rs4d_core.datasets.synthetic.open_ground import scatter_open_ground
from rs4d_core.datasets.synthetic.shapes import ellipse, rectangle
from rs4d_core.datasets.synthetic.ships import CONTAINERS
from rs4d_core.datasets.synthetic.streets import ASPHALT, DIRT, PAVING, car_park
from rs4d_core.datasets.synthetic.vehicles import vehicle
from rs4d_core.datasets.synthetic.world import Thing, World


def houses(world: World, block: Block) -> None:
    """Detached houses in gardens along the streets, with drives, pools and trees."""
    rng = world.rng
    meadow(world, block)
    plot = rng.uniform(14, 24)
    setback = rng.uniform(8, 13)
    for side in (-1, 1) if block.width > 34 else (1,):
        for u in np.arange(-block.length / 2 + plot / 2, block.length / 2 - plot / 3, plot):
            if rng.random() < 0.1:
                continue
            at = block.at_metres(u, side * (block.width / 2 - setback))
            if not world.shows(at, 20):
                continue
            yard = rectangle(at, plot * 0.94, setback * 1.7, block.angle)
            world.surface(yard, pick_color(rng, GRASS, 10), 70)
            length, width = plot * rng.uniform(0.5, 0.82), rng.uniform(7, 12)
            home = house(world, at, length, width, block.angle + rng.normal(0, 0.04))
            if not world.place([home], 0.6):
                continue
            drive_u = u + rng.choice([-1, 1]) * length * 0.3
            kerb, door = side * block.width / 2, side * (block.width / 2 - setback)
            drive = np.array([block.at_metres(drive_u, kerb), block.at_metres(drive_u, door)])
            world.line(drive, pick_color(rng, PAVING, 8), 3.2)
            if rng.random() < 0.4:
                across = block.angle + np.pi / 2
                world.place([vehicle(rng, block.at_metres(drive_u, side * (block.width / 2 - 2.8)), across)], 0.4)
            if rng.random() < 0.2:
                _pool(world, block.at_metres(u - 2, side * (block.width / 2 - setback - 11)), block.angle)
            if rng.random() < 0.3:  # a shed
                shed = block.at_metres(u + rng.uniform(-6, 6), side * (block.width / 2 - setback - rng.uniform(9, 13)))
                world.place([house(world, shed, rng.uniform(3, 5), rng.uniform(2.5, 4), block.angle)], 0.6)
    scatter_open_ground(world, block)
    scatter_trees(world, block, int(block.area * rng.uniform(0.001, 0.008)))


def village(world: World, block: Block) -> None:
    """Houses close together at odd angles on trodden ground; some touch."""
    rng = world.rng
    world.surface(block.corners(), pick_color(rng, DIRT if rng.random() < 0.7 else GRASS, 8), 60)
    density = rng.uniform(0.005, 0.011)
    lean = rng.uniform(0.02, 0.2)
    for at in block.shrunk(5).random_points(rng, int(block.area * density)):
        if not world.shows(at, 12):
            continue
        angle = block.angle + rng.normal(0, lean) + rng.integers(2) * np.pi / 2
        length, width = rng.uniform(6, 16), rng.uniform(5, 10)
        if rng.random() < 0.2:
            count = int(rng.integers(2, 5))
            world.place(row_houses(world, at, angle, count, rng.uniform(5, 9), width), rng.uniform(0.5, 1.5))
        else:
            world.place([house(world, at, length, width, angle)], rng.uniform(0.4, 1.5))
    scatter_open_ground(world, block)
    scatter_trees(world, block, int(block.area * rng.uniform(0.001, 0.006)))


def terraces(world: World, block: Block) -> None:
    """Rows of houses that share their walls, with gardens between the rows."""
    rng = world.rng
    meadow(world, block)
    depth, garden = rng.uniform(8, 11), rng.uniform(9, 18)
    frontage = rng.uniform(5, 9)
    v = -block.width / 2 + depth / 2 + 2.5
    while v < block.width / 2 - depth / 2:
        u = -block.length / 2 + rng.uniform(3, 8)
        while u < block.length / 2 - frontage * 3:
            count = int(min(rng.integers(3, 10), (block.length / 2 - 3 - u) / (frontage * 1.2)))
            if count < 2:
                break
            if world.shows(block.at_metres(u + frontage * count / 2, v), frontage * count):
                world.place(row_houses(world, block.at_metres(u, v), block.angle, count, frontage, depth), 0.6)
            u += count * frontage * 1.2 + rng.uniform(3, 8)
        if rng.random() < 0.7:
            _parked(world, block, v + depth / 2 + 4)
        v += depth + garden
    scatter_open_ground(world, block)
    scatter_trees(world, block, int(block.area * rng.uniform(0.001, 0.004)))


def city(world: World, block: Block) -> None:
    """Tall buildings: round courtyards, as slabs, or as large flat roofs."""
    rng = world.rng
    world.surface(block.corners(), pick_color(rng, PAVING, 8), 24)
    inner = block.shrunk(rng.uniform(3, 7))
    kind = rng.choice(["courtyards", "slabs", "mixed"])
    if kind == "courtyards":
        _courtyards(world, inner)
    elif kind == "slabs":
        _slabs(world, inner)
    else:
        for at in inner.random_points(rng, int(inner.area / 350)):
            if world.shows(at, 30):
                turned = inner.angle + rng.integers(2) * np.pi / 2
                make = house if rng.random() < 0.4 else hall
                world.place([make(world, at, rng.uniform(14, 40), rng.uniform(10, 22), turned)], rng.uniform(0.5, 5))
    scatter_open_ground(world, block)
    scatter_trees(world, block, int(block.area * rng.uniform(0, 0.003)))


def _courtyards(world: World, block: Block) -> None:
    rng = world.rng
    columns, rows = (max(1, round(side / rng.uniform(45, 80))) for side in (block.length, block.width))
    for whole in block.grid(columns, rows):
        cell = whole.shrunk(2)
        if world.shows(cell.centre, cell.length + cell.width):
            make = courtyard_building if min(cell.length, cell.width) > 24 and rng.random() < 0.8 else hall
            world.place([make(world, cell.centre, cell.length, cell.width, cell.angle)], 0.5)


def _slabs(world: World, block: Block) -> None:
    rng = world.rng
    depth, space = rng.uniform(11, 16), rng.uniform(14, 28)
    for v in np.arange(-block.width / 2 + depth / 2, block.width / 2 - depth / 2, depth + space):
        length = block.length * rng.uniform(0.5, 0.95)
        at = block.at_metres(rng.uniform(-1, 1) * (block.length - length) / 2, v)
        if world.shows(at, length):
            world.place([hall(world, at, length, depth, block.angle)], 0.5)
        strip = Block(block.at_metres(0, v + (depth + space) / 2), block.length, space * 0.6, block.angle)
        if rng.random() < 0.5:
            world.surface(strip.corners(), pick_color(rng, GRASS, 8), 70)
            scatter_trees(world, strip, int(strip.area * 0.01))
        else:
            _parked(world, block, v + depth / 2 + 4)


def industry(world: World, block: Block) -> None:
    """Large halls in yards with trucks, containers and tanks."""
    rng = world.rng
    world.surface(block.corners(), pick_color(rng, (*PAVING, *ASPHALT), 8), 24)
    inner = block.shrunk(rng.uniform(4, 12))
    length, width = inner.length * rng.uniform(0.5, 0.95), inner.width * rng.uniform(0.35, 0.75)
    at = inner.at_metres(0, -(inner.width - width) / 2)
    make = courtyard_building if min(length, width) > 50 and rng.random() < 0.35 else hall
    world.place([make(world, at, length, width, inner.angle)], 0.5)
    yard = inner.part(-0.5, 0.5, width / inner.width - 0.5 + 0.04, 0.5)
    if yard.width < 8:
        return
    use = rng.choice(["cars", "containers", "halls", "tanks", "yard"])
    if use == "cars":
        car_park(world, yard)
    elif use == "containers":
        container_yard(world, yard)
    elif use == "halls":
        u = -yard.length / 2
        while u < yard.length / 2 - 10:
            side = rng.uniform(10, 35)
            if u + side < yard.length / 2:
                world.place(
                    [
                        hall(
                            world, yard.at_metres(u + side / 2, 0), side, yard.width * rng.uniform(0.5, 0.9), yard.angle
                        )
                    ],
                    0.5,
                )
            u += side + rng.choice([0.6, 4.0, 10.0])
    elif use == "tanks":
        tank_yard(world, yard)
    scatter_open_ground(world, yard)
    for centre in yard.random_points(rng, int(yard.area / 250)):
        world.place([vehicle(rng, centre, yard.angle + rng.integers(4) * np.pi / 2 + rng.normal(0, 0.1))], 0.8)


def container_yard(world: World, block: Block) -> None:
    """Stacks of freight containers: coloured boxes that are not vehicles."""
    rng = world.rng
    v = -block.width / 2 + 3
    while v < block.width / 2 - 3:
        u = -block.length / 2 + 8
        while u < block.length / 2 - 8:
            if rng.random() < 0.7:
                box = rectangle(block.at_metres(u, v), 12.2, 2.4, block.angle)
                color = pick_color(rng, CONTAINERS, 12)
                world.place([Thing(None, box, lambda canvas, box=box, color=color: _box(canvas, box, color), 2.6)], 0.1)
            u += 13
        v += 2.7 if rng.random() < 0.75 else 12


def tank_yard(world: World, block: Block) -> None:
    """Tanks of one size in rows; sometimes two sizes."""
    rng = world.rng
    world.surface(block.corners(), pick_color(rng, (*DIRT, *PAVING, *GRASS), 8), 40)
    radius = rng.uniform(3, min(22.0, max(3.5, min(block.length, block.width) / 2.6)))
    spacing = radius * rng.uniform(2.3, 3.3) + 1
    color = tanks.tank_color(rng)
    for u in np.arange(-block.length / 2 + spacing / 2, block.length / 2 - spacing / 2 + 0.1, spacing):
        for v in np.arange(-block.width / 2 + spacing / 2, block.width / 2 - spacing / 2 + 0.1, spacing):
            if rng.random() < 0.12:
                continue
            own = radius * (1 if rng.random() < 0.8 else rng.uniform(0.5, 0.9))
            own_color = color if rng.random() < 0.7 else tanks.tank_color(rng)
            at = block.at_metres(u, v)
            if world.shows(at, own):
                world.place([tanks.tank(world, at, own, own_color)], 0.5)
        if rng.random() < 0.4:
            pipe = np.array(
                [block.at_metres(u + spacing / 2, -block.width / 2), block.at_metres(u + spacing / 2, block.width / 2)]
            )
            world.line(pipe, (176, 174, 170), 0.8)


def sports_ground(world: World, block: Block) -> None:
    """A running track where there is room; tennis courts in the rest."""
    rng = world.rng
    meadow(world, block)
    ground = block if block.length >= block.width else block.turned()
    courts = ground
    scale = rng.uniform(0.75, 1.0)
    if ground.length > 182 * scale and ground.width > 100 * scale:
        courts = ground.part(-0.5, 0.5, -0.5, -0.5 + max(0.0, 1 - 104 * scale / ground.width))
        centre = ground.at_metres(0, ground.width / 2 - 51 * scale)
        world.place([sports.running_track(rng, centre, ground.angle + rng.integers(2) * np.pi, scale)], 0.5)
    if courts.width > 22:
        tennis_courts(world, courts)
    scatter_trees(world, block, int(block.area * rng.uniform(0.0005, 0.003)))


def tennis_courts(world: World, block: Block) -> None:
    """One to a dozen courts side by side on a common surface."""
    rng = world.rng
    along = rng.random() < 0.5
    length, width = (sports.COURT_LENGTH, sports.COURT_WIDTH) if along else (sports.COURT_WIDTH, sports.COURT_LENGTH)
    pitch_u, pitch_v = length + rng.uniform(3, 7), width + rng.uniform(3, 7)
    columns = int(min(rng.integers(1, 6), (block.length - 2) // pitch_u))
    rows = int(min(rng.integers(1, 4), (block.width - 2) // pitch_v))
    if columns < 1 or rows < 1:
        return
    room = block.length - columns * pitch_u, block.width - rows * pitch_v
    centre = block.at_metres(*(rng.uniform(-0.5, 0.5, 2) * room * 0.8))
    color = pick_color(rng, sports.COURTS, 8)
    apron = color if rng.random() < 0.3 else pick_color(rng, sports.COURTS, 8)
    base = Block(centre, columns * pitch_u, rows * pitch_v, block.angle)
    placed = [
        sports.tennis_court(
            color,
            base.at_metres((i - (columns - 1) / 2) * pitch_u, (j - (rows - 1) / 2) * pitch_v),
            block.angle + (0 if along else np.pi / 2),
        )
        for i in range(columns)
        for j in range(rows)
    ]
    if world.place(placed, 1.0):
        world.surface(base.corners(), lit(apron, 0.92), 10)


def _pool(world: World, at: np.ndarray, angle: float) -> None:
    rng = world.rng
    rim = rectangle(at, rng.uniform(7, 11), rng.uniform(4, 6), angle)
    water = ellipse(at, 3.5, 1.8, angle, 16) if rng.random() < 0.3 else rectangle(at, 6, 3, angle)

    def draw(canvas: Canvas) -> None:
        canvas.polygon(rim, (192, 186, 174), 10)
        canvas.polygon(water, (92, 176, 196), 6)

    world.place([Thing(None, rim, draw)], 0.5)


def _box(canvas: Canvas, box: np.ndarray, color: tuple) -> None:
    canvas.polygon(box, color, 6)
    canvas.line((box[[0, 1]] + box[[3, 2]]) / 2, lit(color, 0.92), 0.2)


def _parked(world: World, block: Block, v: float) -> None:
    """A line of parked cars along a block."""
    rng = world.rng
    for u in np.arange(-block.length / 2 + 6, block.length / 2 - 6, rng.choice([2.7, 6.0])):
        at = block.at_metres(u, v)
        if rng.random() < 0.5 and world.shows(at, 5):
            world.place([vehicle(rng, at, block.angle + np.pi / 2)], 0.3)


FILL = {
    "houses": houses,
    "village": village,
    "terraces": terraces,
    "city": city,
    "industry": industry,
    "tanks": tank_yard,
    "containers": container_yard,
    "sports": sports_ground,
    "car_park": car_park,
    "park": park,
    "wood": wood,
    "field": field,
}
