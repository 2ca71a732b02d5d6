"""Which images of a data set train, and which are held back to be measured."""

import re

import numpy as np

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
        distances = [_distance(name, sample, held_back) for sample in samples]
        kept = [sample for sample, away in zip(samples, distances, strict=True) if away < 0]
        training = [sample for sample, away in zip(samples, distances, strict=True) if away >= held_back.margin]
        if not kept:
            raise DatasetError(f"data set {name}: no image lies in held_back.block; give another block")
    if not training:
        raise DatasetError(f"data set {name}: no image of {len(samples)} is left for training; hold back fewer")
    return training, kept


def _distance(name: str, sample: Sample, held_back: HeldBack) -> float:
    """How far the tile's origin lies outside of the block, along the axis where it is farthest; negative inside."""
    found = re.search(held_back.place, sample.image.name)
    try:
        x, y = float(found[1]), float(found[2])
    except (TypeError, ValueError):
        raise DatasetError(
            f'data set {name}: held_back.place "{held_back.place}" finds no place in the file name {sample.image.name}'
        ) from None
    x0, y0, x1, y1 = held_back.block
    # The upper ends are excluded: a tile that starts there is outside, at distance 0.
    outside = max(x0 - x, y0 - y, x - x1, y - y1)
    inside = x0 <= x < x1 and y0 <= y < y1
    return -1.0 if inside else max(outside, 0.0)
