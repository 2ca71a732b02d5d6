"""Random fields that look like nature: sums of smooth noise over several sizes."""

import numpy as np
from PIL import Image


def smooth_noise(rng: np.random.Generator, width: int, height: int, cell: float) -> np.ndarray:
    """`(height, width)` float32, mean about 0, deviation about 1, features about `cell` pixels large."""
    columns, rows = int(np.ceil(width / cell)) + 2, int(np.ceil(height / cell)) + 2
    grid = Image.fromarray(rng.standard_normal((rows, columns), np.float32))
    dx, dy = rng.random(2)
    box = (dx, dy, dx + width / cell, dy + height / cell)
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC, box=box))


def fractal_noise(rng: np.random.Generator, width: int, height: int, cells: tuple[float, ...]) -> np.ndarray:
    """Sum of `smooth_noise` of several sizes, each weighing as its size's square root; deviation about 1."""
    weights = np.sqrt(np.array(cells, np.float32))
    weights /= np.sqrt((weights**2).sum())
    total = weights[0] * smooth_noise(rng, width, height, cells[0])
    for weight, cell in zip(weights[1:], cells[1:], strict=True):
        total += weight * smooth_noise(rng, width, height, cell)
    return total
