"""Reading what is left of a damaged raster: all but the blocks that cannot be decoded."""

from collections.abc import Iterator

import numpy as np

from rs4d_core.errors import SceneError
from rs4d_core.scenes.reading.raster import Raster

# First column and row, and those after the last, in pixels of a raster.
Block = tuple[int, int, int, int]


def read_readable(
    raster: Raster, col: int, row: int, width: int, height: int, bad: set[Block]
) -> tuple[np.ndarray, np.ndarray]:
    """As `Raster.read`, with invalid pixels where a block cannot be read.

    It is read in halves, along the borders of blocks, until those that cannot be read are left alone.

    Args:
        bad: blocks that are not tried, since they could not be read before. Those found now are added.
    """
    blocks = list(blocks_of(raster, col, row, width, height))
    if bad.isdisjoint(blocks):
        try:
            return raster.read(col, row, width, height)
        except SceneError:
            if len(blocks) == 1:
                bad.add(blocks[0])
    if len(blocks) == 1:
        return raster.nothing(width, height)
    high, wide = raster.dataset.block_shapes[0]
    first_across, first_down = col // wide, row // high
    across, down = (col + width - 1) // wide - first_across + 1, (row + height - 1) // high - first_down + 1
    if across >= down:
        half = (first_across + across // 2) * wide - col
        parts = [(col, row, half, height), (col + half, row, width - half, height)]
    else:
        half = (first_down + down // 2) * high - row
        parts = [(col, row, width, half), (col, row + half, width, height - half)]
    (planes0, valid0), (planes1, valid1) = (read_readable(raster, *part, bad) for part in parts)
    axis = 1 if across >= down else 0
    return np.concatenate([planes0, planes1], axis=axis + 1), np.concatenate([valid0, valid1], axis=axis)


def blocks_of(raster: Raster, col: int, row: int, width: int, height: int) -> Iterator[Block]:
    """The blocks of which a part of a raster has pixels, cut to the raster."""
    high, wide = raster.dataset.block_shapes[0]
    for top in range(row // high * high, row + height, high):
        for left in range(col // wide * wide, col + width, wide):
            yield left, top, min(left + wide, raster.dataset.width), min(top + high, raster.dataset.height)
