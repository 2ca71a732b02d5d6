"""The views of a distillation: a pure function of seed and step, so that a resumed run goes on with the very same."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rs4d_core.distillation.map_cache import map_key
from rs4d_core.distillation.views import Pixels, View, read_view
from rs4d_core.errors import DatasetError, RS4DError

MOST_TRIES = 50
"""Views that are tried, at most, for one that can be read."""


@dataclass(frozen=True)
class Shown:
    """A view that was read, as arrays: it goes through a pipe.

    Attributes:
        view: its number among the run's views.
        place: of the whole batch, over all processes.
        pixels: what it shows.
        key: of its teacher map in a cache.
        failed: views that were to be read in its place but could not, and why.
    """

    view: int
    place: int
    pixels: Pixels
    key: str
    failed: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Batch:
    """A process's part of a batch: `images` `(B, 3, S, S)` uint8, `shown` `(B, S/16, S/16)` bool, and what they are."""

    images: Tensor
    shown: Tensor
    entries: list[Shown]

    @classmethod
    def of(cls, entries: "list[Shown | RS4DError]") -> "Batch":
        """Raises the error that stands for a view that could not be read."""
        for entry in entries:
            if isinstance(entry, RS4DError):
                raise entry
        images = torch.from_numpy(np.stack([entry.pixels.rgb for entry in entries]))
        shown = torch.from_numpy(np.stack([entry.pixels.shown for entry in entries]))
        return cls(images, shown, entries)


class TrainingViews(Dataset):
    """All views, in another order in each epoch. For a view that cannot be read, one drawn at random stands in."""

    def __init__(self, views: list[View], size: int, bands: tuple[int, ...] | None, batch: int, seed: int) -> None:
        self._views, self._size, self._bands, self._batch, self._seed = views, size, bands, batch, seed
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))

    def __getitem__(self, number: int) -> "Shown | RS4DError":
        epoch, position = divmod(number, len(self._views))
        if self._order[0] != epoch:
            self._order = epoch, np.random.default_rng([self._seed, 0, epoch]).permutation(len(self._views))
        view, failed = int(self._order[1][position]), []
        rng = np.random.default_rng([self._seed, 1, number])
        for _ in range(MOST_TRIES):
            try:
                return show(self._views, view, number % self._batch, self._size, self._bands, tuple(failed))
            except RS4DError as error:
                failed.append((view, str(error)))
                view = int(rng.integers(len(self._views)))
        # As a value: the loader would wrap it into a traceback of the worker, many lines long.
        return DatasetError(f"none of {MOST_TRIES} views could be read, the last because: {failed[-1][1]}")


def show(
    views: list[View],
    number: int,
    place: int,
    size: int,
    bands: tuple[int, ...] | None,
    failed: tuple[tuple[int, str], ...] = (),
) -> Shown:
    """Read one of the views.

    Raises:
        DatasetError, SceneError, OptionError: it cannot be read.
    """
    pixels = read_view(views[number], size, bands)
    return Shown(number, place, pixels, map_key(pixels.rgb.tobytes()), failed)
