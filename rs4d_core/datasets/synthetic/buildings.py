"""Buildings: footprints of several plans under flat, gabled and hipped roofs."""

import numpy as np

from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import inset, rectangle, turn
from rs4d_core.datasets.synthetic.world import Draw, Thing, World

TILED_ROOFS: tuple[Color, ...] = (
    (168, 92, 68), (150, 78, 60), (134, 84, 70), (110, 72, 62), (96, 92, 92), (78, 76, 80),
    (118, 108, 98), (142, 124, 108), (64, 66, 72), (176, 112, 84),
)  # fmt: skip
FLAT_ROOFS: tuple[Color, ...] = (
    (150, 148, 144), (176, 172, 166), (196, 194, 190), (128, 126, 122), (108, 106, 104), (214, 214, 212),
    (160, 146, 128), (90, 88, 90), (140, 150, 158),
)  # fmt: skip
METAL_ROOFS: tuple[Color, ...] = (
    (206, 208, 210), (182, 188, 194), (224, 224, 222), (92, 128, 178), (76, 110, 150), (150, 90, 78),
    (110, 140, 122), (168, 170, 168), (138, 132, 126),
)  # fmt: skip


def pick_color(rng: np.random.Generator, colors: tuple[Color, ...], spread: float = 10) -> Color:
    """One of `colors`, varied."""
    color = np.array(colors[rng.integers(len(colors))]) + rng.normal(0, spread) + rng.normal(0, spread / 3, 3)
    return tuple(color.tolist())


def house(world: World, centre: np.ndarray, length: float, width: float, angle: float) -> Thing:
    """A house with a pitched or flat roof; some have an L plan."""
    rng = world.rng
    if rng.random() < 0.25 and min(length, width) > 7:
        return l_shaped(world, centre, length, width, angle, pick_color(rng, TILED_ROOFS), pitched=rng.random() < 0.6)
    quad = rectangle(centre, length, width, angle)
    kind = rng.choice(["gable", "hip", "flat"], p=[0.5, 0.25, 0.25])
    color = pick_color(rng, FLAT_ROOFS if kind == "flat" else TILED_ROOFS)
    draw = {"gable": _gable, "hip": _hip, "flat": _flat}[kind](world, quad, color)
    return Thing("building", quad, draw, height=rng.uniform(3, 8))


def hall(world: World, centre: np.ndarray, length: float, width: float, angle: float) -> Thing:
    """A large hall: metal or flat roof, often with rows of skylights."""
    rng = world.rng
    quad = rectangle(centre, length, width, angle)
    if rng.random() < 0.5:
        return Thing("building", quad, _flat(world, quad, pick_color(rng, FLAT_ROOFS)), height=rng.uniform(6, 14))
    return Thing("building", quad, _ribbed(world, quad, pick_color(rng, METAL_ROOFS)), height=rng.uniform(6, 14))


def courtyard_building(world: World, centre: np.ndarray, length: float, width: float, angle: float) -> Thing:
    """Four wings round an open courtyard."""
    rng = world.rng
    wing = min(length, width) * rng.uniform(0.2, 0.32)
    outer = rectangle(centre, length, width, angle)
    inner = inset(outer, wing, wing)
    pitched = rng.random() < 0.5
    color = pick_color(rng, TILED_ROOFS if pitched else FLAT_ROOFS)
    ridge = inset(outer, wing / 2, wing / 2)
    light = [_light(world, outer[(i + 1) % 4] - outer[i]) for i in range(4)]
    jitter = rng.normal(0, 0.02, 4)

    def draw(canvas: Canvas) -> None:
        for i in range(4):
            j = (i + 1) % 4
            if pitched:
                canvas.polygon(np.array([outer[i], outer[j], ridge[j], ridge[i]]), lit(color, light[i]), 16)
                canvas.polygon(np.array([ridge[i], ridge[j], inner[j], inner[i]]), lit(color, 2 - light[i]), 16)
            else:
                canvas.polygon(np.array([outer[i], outer[j], inner[j], inner[i]]), lit(color, 1 + jitter[i]), 14)
        if not pitched:
            for ring in (outer, inner):
                canvas.line(np.concatenate([ring, ring[:1]]), lit(color, 1.18), 0.5)

    return Thing("building", outer, draw, height=rng.uniform(8, 18), hole=inner)


def l_shaped(
    world: World, centre: np.ndarray, length: float, width: float, angle: float, color: Color, pitched: bool
) -> Thing:
    """Two wings at a right angle."""
    rng = world.rng
    a, b = length * rng.uniform(0.4, 0.6), width * rng.uniform(0.4, 0.6)
    x0, y0, x1, y1 = -length / 2, -width / 2, length / 2, width / 2
    plan = np.array([(x0, y0), (x1, y0), (x1, y0 + b), (x0 + a, y0 + b), (x0 + a, y1), (x0, y1)])
    mirror = np.array([rng.choice([-1, 1]), rng.choice([-1, 1])])
    # The two ridges meet over the corner of the wings.
    knee = np.array([x0 + a / 2, y0 + b / 2])
    ends = np.array([(x1, y0 + b / 2), (x0 + a / 2, y1)])

    def place(points: np.ndarray) -> np.ndarray:
        return turn(points * mirror, angle) + centre

    outline = place(plan)
    faces = [
        np.array([plan[0], plan[1], ends[0], knee]),
        np.array([ends[0], plan[2], plan[3], knee]),
        np.array([knee, plan[3], plan[4], ends[1]]),
        np.array([plan[0], knee, ends[1], plan[5]]),
    ]
    faces = [place(face) for face in faces]
    slopes = [(0, -1), (0, 1), (1, 0), (-1, 0)]
    light = [_slope_light(world, turn(np.array(slope) * mirror, angle)) for slope in slopes]

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 14)
        if pitched:
            for face, factor in zip(faces, light, strict=True):
                canvas.polygon(face, lit(color, factor), 16)
        else:
            canvas.line(np.concatenate([outline, outline[:1]]), lit(color, 1.18), 0.4)

    return Thing("building", outline, draw, height=rng.uniform(3, 9))


def row_houses(world: World, start: np.ndarray, angle: float, count: int, length: float, depth: float) -> list[Thing]:
    """Houses that share their side walls: they touch, and are instances of their own."""
    rng = world.rng
    alike = rng.random() < 0.4
    color = pick_color(rng, TILED_ROOFS)
    flat = rng.random() < 0.3
    height = rng.uniform(5, 9)
    houses, along = [], 0.0
    axis = turn(np.array([1.0, 0.0]), angle)
    for _ in range(count):
        frontage = length * rng.uniform(0.85, 1.2)
        quad = rectangle(start + axis * (along + frontage / 2), frontage, depth, angle)
        own = lit(color, rng.uniform(0.9, 1.1)) if alike else pick_color(rng, FLAT_ROOFS if flat else TILED_ROOFS, 14)
        draw = _flat(world, quad, own) if flat else _gable(world, quad, own, ridge_along=True)
        houses.append(Thing("building", quad, draw, height=height))
        along += frontage
    return houses


def _slope_light(world: World, downhill: np.ndarray) -> float:
    """Light on a roof face that falls towards `downhill`: faces towards the sun are brighter."""
    towards_sun = -world.sun / np.linalg.norm(world.sun)
    return 1 + 0.28 * float(downhill @ towards_sun)


def _light(world: World, eave: np.ndarray) -> float:
    """Light on the face above an eave of a rectangle as `rectangle` orders its corners."""
    outwards = np.array([eave[1], -eave[0]]) / np.linalg.norm(eave)
    return _slope_light(world, outwards)


def _gable(world: World, quad: np.ndarray, color: Color, ridge_along: bool | None = None) -> Draw:
    """Two faces that meet in a ridge along the longer side (or along the first, where asked)."""
    along = ridge_along or np.linalg.norm(quad[1] - quad[0]) >= np.linalg.norm(quad[3] - quad[0])
    a, b, c, d = quad if along else np.roll(quad, -1, axis=0)
    first, last = (a + d) / 2, (b + c) / 2
    light = _light(world, b - a), _light(world, d - c)
    tiles = world.rng.random() < 0.5
    chimney = world.rng.uniform(0.2, 0.8) if world.rng.random() < 0.4 else None

    def draw(canvas: Canvas) -> None:
        canvas.polygon(np.array([a, b, last, first]), lit(color, light[0]), 16)
        canvas.polygon(np.array([first, last, c, d]), lit(color, light[1]), 16)
        if tiles:
            for share in (0.33, 0.66):
                canvas.line(
                    np.array([a + (first - a) * share, b + (last - b) * share]), lit(color, light[0] * 0.94), 0.2
                )
                canvas.line(
                    np.array([d + (first - d) * share, c + (last - c) * share]), lit(color, light[1] * 0.94), 0.2
                )
        canvas.line(np.array([first, last]), lit(color, 1.16), 0.3)
        if chimney is not None:
            canvas.polygon(rectangle(first + (last - first) * chimney, 0.9, 0.9), (70, 60, 56))

    return draw


def _hip(world: World, quad: np.ndarray, color: Color) -> Draw:
    """Four faces; the ridge is shorter than the roof."""
    along = np.linalg.norm(quad[1] - quad[0]) >= np.linalg.norm(quad[3] - quad[0])
    a, b, c, d = quad if along else np.roll(quad, -1, axis=0)
    axis = (b - a) / np.linalg.norm(b - a)
    back = np.linalg.norm(d - a) / 2 * 0.95
    first, last = (a + d) / 2 + axis * back, (b + c) / 2 - axis * back
    faces = [
        np.array([a, b, last, first]),
        np.array([b, c, last]),
        np.array([c, d, first, last]),
        np.array([d, a, first]),
    ]
    light = [_light(world, eave) for eave in (b - a, c - b, d - c, a - d)]

    def draw(canvas: Canvas) -> None:
        for face, factor in zip(faces, light, strict=True):
            canvas.polygon(face, lit(color, factor), 16)

    return draw


def _flat(world: World, quad: np.ndarray, color: Color) -> Draw:
    """A flat roof with a parapet, and machines on larger ones."""
    rng = world.rng
    sides = np.linalg.norm(quad[1] - quad[0]), np.linalg.norm(quad[3] - quad[0])
    area = sides[0] * sides[1]
    angle = float(np.arctan2(*(quad[1] - quad[0])[::-1]))
    units = []
    for _ in range(rng.integers(0, 2 + min(14, int(area / 120)))):
        share = rng.uniform(0.12, 0.88, 2)
        at = quad[0] + share[0] * (quad[1] - quad[0]) + share[1] * (quad[3] - quad[0])
        size = rng.uniform(0.8, min(4.5, 0.18 * min(sides) + 0.8), 2)
        units.append((rectangle(at, *size, angle), rng.uniform(0.72, 1.25)))
    stain = None
    if rng.random() < 0.4 and area > 60:
        split = rng.uniform(0.3, 0.7)
        stain = np.array(
            [quad[0], quad[0] + split * (quad[1] - quad[0]), quad[3] + split * (quad[2] - quad[3]), quad[3]]
        )
        stain_light = rng.uniform(0.88, 1.1)
    reach = world.sun * 1.2

    def draw(canvas: Canvas) -> None:
        canvas.polygon(quad, color, 22)
        if stain is not None:
            canvas.polygon(stain, lit(color, stain_light), 22)
        canvas.line(np.concatenate([quad, quad[:1]]), lit(color, 1.15), 0.5)
        for unit, factor in units:
            canvas.polygon(unit + reach * 0.8, lit(color, 0.62))
            canvas.polygon(unit, lit(color, factor))

    return draw


def _ribbed(world: World, quad: np.ndarray, color: Color) -> Draw:
    """A metal roof: two faint slopes, ribs or skylights across."""
    rng = world.rng
    a, b, c, d = quad
    length = float(np.linalg.norm(b - a))
    spacing = rng.choice([3.0, 5.0, 8.0, 12.0])
    shares = np.arange(spacing / 2, length, spacing) / length
    bright = rng.uniform(0.85, 1.2)
    line_width = rng.uniform(0.4, 1.4)
    light = [1 + (factor - 1) * 0.4 for factor in (_light(world, b - a), _light(world, d - c))]
    first, last = (a + d) / 2, (b + c) / 2

    def draw(canvas: Canvas) -> None:
        canvas.polygon(np.array([a, b, last, first]), lit(color, light[0]), 12)
        canvas.polygon(np.array([first, last, c, d]), lit(color, light[1]), 12)
        for share in shares:
            upper, lower = a + share * (b - a), d + share * (c - d)
            canvas.line(
                np.array([upper + 0.08 * (lower - upper), lower + 0.08 * (upper - lower)]),
                lit(color, bright),
                line_width,
            )

    return draw
