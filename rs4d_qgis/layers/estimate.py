"""How the engine will read a raster, told before it does: the same rules as its own, without it. Pure.

The rules are in `rs4d_core/scenes/reading/resolution.py` and `rs4d_core/scenes/windows/plan.py`; a test compares.
"""

from __future__ import annotations

import math

from rs4d_qgis.translation import tr

# Resolutions this near to each other are the same.
NEARLY = 0.02
# A coarser raster than the model expects is enlarged this many times at most.
MOST_ENLARGED = 4.0
# A grid's last column and row lie inside the scene by at least this share of a pixel.
LEAST_SHARE = 0.1


def reading_resolution_m(own_m: float, expected_m: tuple[float, float], wanted_m: float | None = None) -> float:
    """Metres a pixel at which a raster of `own_m` metres a pixel is read.

    Args:
        expected_m: the finest and the coarsest that the model was made for.
        wanted_m: what the user asks for; it outranks the model's range.
    """
    finest, coarsest = expected_m
    target = wanted_m or max(min(max(own_m, finest), coarsest), own_m / MOST_ENLARGED)
    return own_m if abs(target / own_m - 1.0) < NEARLY else target


def grid_side(pixels: float, own_m: float, reading_m: float) -> int:
    """Pixels that the model sees along a side of `pixels` raster pixels."""
    return max(1, math.ceil(pixels * own_m / reading_m - LEAST_SHARE))


def windows(width: int, height: int, window_px: int, overlap_px: int) -> int:
    """How many windows cover `width` x `height` pixels of the model's grid.

    Args:
        overlap_px: of neighbours, less than `window_px`.
    """
    return _along(width, window_px, overlap_px) * _along(height, window_px, overlap_px)


def _along(side: int, window_px: int, overlap_px: int) -> int:
    return 1 if side <= window_px else 1 + math.ceil((side - window_px) / (window_px - overlap_px))


def resolution_sentence(
    own_m: float | None, expected_m: tuple[float, float], wanted_m: float | None = None, is_picture: bool = False
) -> str:
    """What to tell the user of the layer's resolution and the model's.

    Args:
        own_m: metres a pixel of the layer, None where it is not known.
        is_picture: the layer has no pixels of its own, and is asked for at a resolution.
    """
    expects = tr("the model expects {:g} to {:g} m").format(*expected_m)
    if own_m is None and is_picture:
        reading = tr("at {:.3g} m, as asked for").format(wanted_m) if wanted_m else tr("as {}").format(expects)
        return tr("This layer has no resolution of its own: it will be fetched {}.").format(reading)
    if own_m is None:
        return tr("The resolution of this layer on the ground is unknown, {}: it will be read as it is.").format(
            expects
        )
    has = tr("This layer has {:.3g} m a pixel, {}").format(own_m, expects)
    reading_m = reading_resolution_m(own_m, expected_m, wanted_m)
    if reading_m == own_m:
        ending = tr("it will be read as it is")
    else:
        ending = tr("it will be resampled to {:.3g} m").format(reading_m)
    if wanted_m is not None:
        return tr("{}: {}, as asked for.").format(has, ending)
    if own_m > expected_m[1] * (1 + NEARLY):
        return tr("{}: {}. Small objects cannot be made out in this layer.").format(has, ending)
    return f"{has}: {ending}."
