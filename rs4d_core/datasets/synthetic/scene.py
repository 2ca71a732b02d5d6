"""Generated scenes: an image that looks like an aerial photograph, with the exact outline of every instance in it."""

from dataclasses import dataclass

import numpy as np
import shapely

from rs4d_core.datasets.cut_instances import shows_enough
from rs4d_core.datasets.synthetic.canvas import Canvas
from rs4d_core.datasets.synthetic.finish import base_ground, photograph
from rs4d_core.datasets.synthetic.layout import lay_out
from rs4d_core.datasets.synthetic.world import World
from rs4d_core.errors import OptionError

SYNTHETIC_CLASSES = ("ship", "storage_tank", "tennis_court", "ground_track_field", "vehicle", "building")
# What the scene's edge leaves of an instance is part of the truth from this area on, in pixels.
_LEAST_AREA_PX = 4.0


@dataclass(frozen=True, eq=False)
class SyntheticInstance:
    """One instance of a generated scene.

    Attributes:
        class_name: one of `SYNTHETIC_CLASSES`.
        polygon: its exact outline, with its courtyard as a hole, in pixels (x right, y down, pixel `(row, col)` covers
            `[col, col + 1] x [row, row + 1]`), clipped to the scene.
        recognizable: whether the scene's edge leaves enough of it to tell it for what it is.
    """

    class_name: str
    polygon: shapely.Polygon
    recognizable: bool


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """A generated scene.

    Attributes:
        image: `(H, W, 3)` uint8 RGB.
        instances: no two overlap; some touch.
        resolution_m: metres a pixel.
        place: the kind of place it shows, for example "port".
    """

    image: np.ndarray
    instances: tuple[SyntheticInstance, ...]
    resolution_m: float
    place: str


def generate_scene(seed: int, width: int, height: int, resolution_m: float = 0.5) -> SyntheticScene:
    """Generate the scene of a seed.

    The ground depends on the seed and on its size in metres only: the same ground can be seen at several resolutions.

    Args:
        seed: 0 or more; the same seed gives the same scene.
        width: pixels.
        height: pixels.
        resolution_m: metres a pixel.

    Raises:
        OptionError: a size or the resolution is not positive.
    """
    if width < 1 or height < 1 or not resolution_m > 0:
        raise OptionError(
            f"a scene of {width} x {height} pixels at {resolution_m} m cannot be generated; give positive sizes"
        )
    ground_rng, photo_rng = (np.random.default_rng([seed, stream]) for stream in (0, 1))
    elevation, azimuth = np.radians(ground_rng.uniform(28, 65)), ground_rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(azimuth), np.sin(azimuth)]) / np.tan(elevation)
    world = World(width * resolution_m, height * resolution_m, ground_rng, sun)
    place = lay_out(world)
    canvas = Canvas(width, height, resolution_m, base_ground(photo_rng, width, height, resolution_m))
    world.render(canvas, shadow_depth=photo_rng.uniform(0.4, 0.72))
    image = photograph(photo_rng, canvas.pixels(), resolution_m)
    return SyntheticScene(image, _truth(world, width, height, resolution_m), resolution_m, place)


def _truth(world: World, width: int, height: int, resolution_m: float) -> tuple[SyntheticInstance, ...]:
    things = [thing for thing in world.things if thing.class_name is not None]
    if not things:
        return ()
    whole = shapely.transform([thing.polygon() for thing in things], lambda points: points / resolution_m)
    x0, y0, x1, y1 = shapely.bounds(whole).T
    cut = (x0 < 0) | (y0 < 0) | (x1 > width) | (y1 > height)
    polygons = whole.copy()
    polygons[cut] = shapely.intersection(whole[cut], shapely.box(0, 0, width, height))
    # What the edge leaves of a concave outline may fall apart: each part is then an instance.
    return tuple(
        SyntheticInstance(thing.class_name, part, not is_cut or shows_enough(part.area, of.area))
        for thing, of, figure, is_cut in zip(things, whole, polygons, cut, strict=True)
        for part in shapely.get_parts(figure)
        if isinstance(part, shapely.Polygon) and part.area >= _LEAST_AREA_PX
    )
