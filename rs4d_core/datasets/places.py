"""Splitting by place: whole blocks of ground are held back, so that no ground is both trained on and measured."""

import math
import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from rs4d_core.errors import DatasetError, OptionError

# Blocks this many chips or tiles long are tried, the largest first: large blocks have short borders, and few pieces of
# ground are lost along them.
BLOCK_LENGTHS = (8, 4, 2, 1)


@dataclass(frozen=True)
class Split:
    """How a data set is split.

    Attributes:
        share: of the objects that is held back, as nearly as whole blocks or images allow; 0 holds nothing back.
        margin: ground that is left out between what is held back and what is trained on, in pixels.
        seed: of what is left to chance.
    """

    share: float = 0.2
    margin: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises OptionError for what cannot work."""
        if not 0 <= self.share < 1:
            raise OptionError(f"a share of {self.share:g} to hold back cannot be: give 0 or more, less than 1")
        if not (math.isfinite(self.margin) and self.margin >= 0):
            raise OptionError(f"a margin of {self.margin:g} px cannot be: give 0 or more")
        if self.seed < 0:
            raise OptionError(f"a seed of {self.seed} cannot be: give 0 or more")

    @property
    def least_blocks(self) -> int:
        """So many blocks with objects it takes to come near to the share."""
        return max(2, math.ceil(1 / self.share)) if self.share else 1


def held_back_blocks(counts: np.ndarray, split: Split) -> list[int]:
    """The blocks to hold back: those whose objects come nearest to the share of each class.

    One block after the other is taken, each time the one that brings the shares nearest; of equals, the seed decides.

    Args:
        counts: `(blocks, classes)` objects.

    Returns:
        Indices of blocks, ascending; none where the share is 0.

    Raises:
        DatasetError: fewer than two blocks have objects, so that nothing can be held back by place.
    """
    if split.share == 0:
        return []
    counts = counts[:, counts.sum(axis=0) > 0].astype(np.float64)
    some = np.flatnonzero(counts.sum(axis=1))
    if len(some) < 2:
        raise DatasetError(
            "all objects lie in one block of ground, so none can be held back by place; give smaller chips (--chip) or "
            "more ground, or hold nothing back (--val-share 0)"
        )
    shares = counts / counts.sum(axis=0)
    order = [int(block) for block in np.random.default_rng(split.seed).permutation(some)]
    chosen: list[int] = []
    held = np.zeros(shares.shape[1])
    while len(chosen) < len(some) - 1:
        errors = {block: _miss(held + shares[block], split.share) for block in order if block not in chosen}
        best = min(errors, key=errors.__getitem__)
        # The first is taken even where it is more than the share: something has to be measured.
        if chosen and errors[best] >= _miss(held, split.share):
            break
        chosen.append(best)
        held = held + shares[best]
    return sorted(chosen)


def _miss(held: np.ndarray, share: float) -> float:
    return float(np.square(held - share).sum())


def split_tiles(
    boxes: np.ndarray, counts: np.ndarray, tile: float, split: Split, scenes: Sequence[Hashable] | None = None
) -> list[str | None]:
    """The split of tiles whose places are known: "train", "val", or None for what shows ground of both or lies within
    the margin.

    Args:
        boxes: `(N, 4)` x0, y0, x1, y1 of each tile on the ground; the margin is in the same unit.
        counts: `(N, classes)` objects.
        tile: usual length of a tile.
        scenes: of each tile, where coordinates of different scenes have nothing to do with each other.

    Raises:
        DatasetError: as `held_back_blocks`.
    """
    keys = list(scenes) if scenes is not None else [0] * len(boxes)
    for length in BLOCK_LENGTHS:
        cells = np.floor(boxes[:, :2] / (length * tile)).astype(int)
        blocks = {key: number for number, key in enumerate(dict.fromkeys(zip(keys, *cells.T.tolist(), strict=True)))}
        block = np.array([blocks[key] for key in zip(keys, *cells.T.tolist(), strict=True)])
        by_block = np.zeros((len(blocks), counts.shape[1]), int)
        np.add.at(by_block, block, counts)
        if (by_block.sum(axis=1) > 0).sum() >= split.least_blocks:
            break
    held = np.isin(block, held_back_blocks(by_block, split))
    result: list[str | None] = ["val" if one else "train" for one in held]
    for key in dict.fromkeys(keys):
        here = np.array([other == key for other in keys])
        for index in np.flatnonzero(here & ~held)[near_to(boxes[here & ~held], boxes[here & held], split.margin)]:
            result[index] = None
    return result


def near_to(boxes: np.ndarray, held_back: np.ndarray, margin: float) -> np.ndarray:
    """Which of the boxes, `(N,)` bool, share ground with one that is held back, or lie nearer to it than the margin.

    Args:
        boxes: `(N, 4)` x0, y0, x1, y1.
        held_back: `(M, 4)`, as `boxes`.
        margin: in their unit, along x and along y.
    """
    kept, around = shapely.box(*held_back.T), shapely.box(*(boxes + margin * np.array([-1, -1, 1, 1])).T)
    own, other = shapely.STRtree(kept).query(around)
    shared = shapely.area(shapely.intersection(around[own], kept[other])) > 0
    return np.isin(np.arange(len(boxes)), own[shared])


def split_images(count: int, split: Split) -> list[str]:
    """The split of images that tell no place: the share of them is drawn; one at least, where there are two."""
    wanted = min(max(round(split.share * count), 1), count - 1) if split.share else 0
    drawn = np.random.default_rng(split.seed).permutation(count)[:wanted]
    held = set(drawn.tolist())
    return ["val" if number in held else "train" for number in range(count)]


def places_in_names(names: Sequence[str], pattern: str) -> np.ndarray:
    """Places `(N, 2)` x, y that file names tell.

    Args:
        pattern: a regular expression with two groups, x and y.

    Raises:
        OptionError: it is none.
        DatasetError: a name does not tell its place.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise OptionError(f'--place "{pattern}" is not a regular expression: {error}') from None
    if expression.groups != 2:
        raise OptionError(f'--place "{pattern}" needs two groups, for x and y, such as "x(\\d+)_y(\\d+)"')
    places = []
    for name in names:
        found = expression.search(name)
        try:
            places.append((float(found[1]), float(found[2])))
        except (TypeError, ValueError):
            raise DatasetError(f'--place "{pattern}" finds no place in the file name {name}; correct it') from None
    return np.array(places, np.float64).reshape(-1, 2)
