"""At which resolution a scene is read, given its own and what the model was made for."""

import math
from dataclasses import dataclass

from rs4d_core.errors import OptionError

# Pixels that differ from what is wanted by less than this are left as they are: resampling would only blur them. It
# also passes EPSG:3857, whose pixels are 0.7 % off square.
NEARLY = 0.02

# A scene coarser than the model expects is enlarged this many times at most: more adds work, not detail.
MOST_ENLARGED = 4.0

# The longest side of a grid that is still a scene and not a mistyped resolution.
LONGEST_SIDE = 4_000_000


@dataclass(frozen=True)
class Scale:
    """How the grid that the model sees lies over the scene's pixels.

    Attributes:
        step_x, step_y: scene pixels in a grid pixel.
        resolution_m: metres in a grid pixel; None where the ground is unknown.
        note: what is done and why, for the user.
    """

    step_x: float
    step_y: float
    resolution_m: float | None
    note: str | None


def check_resolution(wanted_m: float | None) -> None:
    """Raises OptionError for metres a pixel that no scene can be read at; None leaves the choice to others."""
    if wanted_m is not None and not (math.isfinite(wanted_m) and wanted_m > 0):
        raise OptionError(f"a resolution of {wanted_m:g} m a pixel cannot be: give a number above 0")


def choose_scale(
    pixel_m: tuple[float, float],
    expected_m: tuple[float, float],
    wanted_m: float | None,
    width: int,
    height: int,
) -> Scale:
    """The scale at which to read `width` x `height` scene pixels of `pixel_m` metres (NaN where unknown).

    Args:
        pixel_m: width and height of a scene pixel on the ground.
        expected_m: the finest and the coarsest resolution that the model was made for.
        wanted_m: what the user asks for; it outranks the model's range.

    Raises:
        OptionError: `wanted_m` cannot be had, or would leave no pixel, or far too many.
    """
    check_resolution(wanted_m)
    own = math.sqrt(pixel_m[0] * pixel_m[1])
    if not (math.isfinite(own) and own > 0):
        if wanted_m is not None:
            raise OptionError("the scene's pixels have no known size on the ground: leave the resolution out")
        return Scale(1.0, 1.0, None, None)
    finest, coarsest = expected_m
    target = wanted_m or max(min(max(own, finest), coarsest), own / MOST_ENLARGED)
    steps = (target / pixel_m[0], target / pixel_m[1])
    as_it_is = all(abs(step - 1.0) < NEARLY for step in steps)
    if as_it_is:
        steps, target = (1.0, 1.0), own
    sides = (width / steps[0], height / steps[1])
    if max(sides) > LONGEST_SIDE:
        raise OptionError(
            f"at {target:g} m a pixel the scene would be {max(sides):.0f} pixels long: give a coarser one"
        )
    if min(sides) < 0.5:
        raise OptionError(f"at {target:g} m a pixel nothing is left: give a finer resolution or a larger extent")
    return Scale(*steps, target, _note(own, pixel_m, expected_m, wanted_m, target, as_it_is))


def _note(own, pixel_m, expected_m, wanted_m, target, as_it_is) -> str:
    square = abs(pixel_m[0] / pixel_m[1] - 1.0) < NEARLY
    has = f"{own:.3g} m a pixel" if square else f"{pixel_m[0]:.3g} x {pixel_m[1]:.3g} m a pixel"
    read = "read as it is" if as_it_is else f"read at {target:.3g} m"
    asked = ", as asked for" if wanted_m is not None else ""
    if expected_m == (0.0, math.inf):  # there is no model
        return f"{has}: {read}{asked}"
    wants = f"the model expects {expected_m[0]:g} to {expected_m[1]:g} m"
    if wanted_m is not None:
        return f"{has}, {wants}: {read}{asked}"
    if target > expected_m[1] * (1 + NEARLY):
        return f"{has}, {wants}: {read}; small objects cannot be made out in this scene, and others may be mistaken"
    if own > expected_m[1] * (1 + NEARLY):
        return f"{has}, {wants}: {read}, which adds no detail; expect less from this scene"
    return f"{has}, {wants}: {read}"
