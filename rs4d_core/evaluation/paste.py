"""Put an instance's mask patch back into its image."""

import math

import numpy as np

from rs4d_core.models.instances import MaskPatch


def paste_mask(patch: MaskPatch, width: int, height: int) -> np.ndarray:
    """The instance's probability at the centre of every pixel of the image, `(height, width)` float32.

    Bilinear between the patch's cell centres; between the outermost centres and the patch's border the outermost value
    holds; 0 outside of the patch.
    """
    canvas = np.zeros((height, width), np.float32)
    x0, y0, x1, y1 = patch.box_xyxy
    cells = patch.probabilities.numpy()
    columns = _pixels_within(x0, x1, width)
    rows = _pixels_within(y0, y1, height)
    if len(columns) and len(rows):
        by_row = _interpolation(rows, y0, y1, cells.shape[0])
        by_column = _interpolation(columns, x0, x1, cells.shape[1])
        canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = by_row @ cells @ by_column.T
    return canvas


def _pixels_within(low: float, high: float, size: int) -> np.ndarray:
    """Indices of the pixels of `0..size - 1` whose centres lie in `[low, high)`."""
    return np.arange(max(math.ceil(low - 0.5), 0), min(math.ceil(high - 0.5), size))


def _interpolation(pixels: np.ndarray, low: float, high: float, cells: int) -> np.ndarray:
    """Linear weights `(len(pixels), cells)` float32 of the cells at the pixels' centres."""
    position = np.clip((pixels + 0.5 - low) * cells / (high - low) - 0.5, 0, cells - 1)
    left = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    right = np.minimum(left + 1, cells - 1)
    fraction = (position - left).astype(np.float32)
    weights = np.zeros((len(pixels), cells), np.float32)
    row = np.arange(len(pixels))
    weights[row, left] = 1 - fraction
    weights[row, right] += fraction
    return weights
