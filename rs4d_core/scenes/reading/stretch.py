"""Brightness: one linear stretch a band for a whole scene, so that windows and runs see the same picture."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

PERCENTILES = (2.0, 98.0)


@dataclass(frozen=True)
class Stretch:
    """Values `low` to `high` of each band become 0 to 255; what lies outside is cut off.

    Attributes:
        low, high: one value a band. A band with `high == low` has one value only and becomes 0.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]

    def apply(self, planes: np.ndarray) -> np.ndarray:
        """Planes `(bands, h, w)` of any real type -> float32 in 0..255."""
        low = np.array(self.low)[:, None, None]
        span = np.array(self.high)[:, None, None] - low
        # In float64, since integers of 32 bits and float64 offsets (times, distances) do not fit into float32.
        scaled = (planes - low) * np.divide(255.0, span, out=np.zeros_like(span), where=span > 0)
        return np.clip(scaled, 0.0, 255.0).astype(np.float32)


def measure_stretch(samples: Iterable[tuple[np.ndarray, np.ndarray]], bands: int) -> Stretch | None:
    """The 2nd to 98th percentile of each band over the valid pixels of `samples`.

    Args:
        samples: planes `(bands, h, w)` and which of their pixels are valid `(h, w)`. NaN and infinity are left out.
        bands: their number of bands.

    Returns:
        None where no band has a valid value.
    """
    values: list[list[np.ndarray]] = [[] for _ in range(bands)]
    for planes, valid in samples:
        for band, plane in enumerate(planes):
            kept = plane[valid]
            values[band].append(kept[np.isfinite(kept)] if kept.dtype.kind == "f" else kept)
    limits = [_limits(np.concatenate(band)) if band else None for band in values]
    if all(limit is None for limit in limits):
        return None
    limits = [limit or (0.0, 0.0) for limit in limits]
    return Stretch(tuple(low for low, _ in limits), tuple(high for _, high in limits))


def _limits(values: np.ndarray) -> tuple[float, float] | None:
    if values.size == 0:
        return None
    low, high = (float(limit) for limit in np.percentile(values, PERCENTILES))
    if high > low:
        return low, high
    # More than 96 % of one value (open sea, a plain): what differs from it is what matters.
    return float(values.min()), float(values.max())
