"""Which images of a data set train, and which are held back to be measured."""

import re

import numpy as np

from rs4d_core.datasets.places import near_to
from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DatasetError
from rs4d_core.finetuning.recipe import HeldBack


def split(name: str, samples: list[Sample], held_back: HeldBack | None) -> tuple[list[Sample], list[Sample]]:
    """Training samples and held-back samples, each in the order of `samples`. The same recipe gives the same split.

    Raises:
        DatasetError: no image would be left on one side, or a file name does not tell its place.
    """
    if held_back is None:
        training, kept = samples, []
    elif held_back.count is not None:
        drawn = set(np.random.default_rng(held_back.seed).permutation(len(samples))[: held_back.count].tolist())
        training = [sample for i, sample in enumerate(samples) if i not in drawn]
        kept = [sample for i, sample in enumerate(samples) if i in drawn]
    else:
        corners = np.array([_place(name, sample, held_back.place) for sample in samples])
        tiles = np.hstack([corners, corners + [(sample.width, sample.height) for sample in samples]])
        inside = ((corners >= held_back.block[:2]) & (corners < held_back.block[2:])).all(axis=1)
        # Tiles of the block reach over its upper ends.
        dropped = near_to(tiles, np.vstack([held_back.block, tiles[inside]]), held_back.margin)
        kept = [sample for sample, is_kept in zip(samples, inside, strict=True) if is_kept]
        training = [sample for sample, is_dropped in zip(samples, dropped, strict=True) if not is_dropped]
        if not kept:
            raise DatasetError(f"data set {name}: no image lies in held_back.block; give another block")
    if not training:
        raise DatasetError(f"data set {name}: no image of {len(samples)} is left for training; hold back fewer")
    return training, kept


def _place(name: str, sample: Sample, pattern: str) -> tuple[float, float]:
    """The tile's upper left corner, pixels, as its file name tells it."""
    found = re.search(pattern, sample.image.name)
    try:
        return float(found[1]), float(found[2])
    except (TypeError, ValueError):
        raise DatasetError(
            f'data set {name}: held_back.place "{pattern}" finds no place in the file name {sample.image.name}'
        ) from None
