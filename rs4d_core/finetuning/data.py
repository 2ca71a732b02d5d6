"""The images of a run: a pure function of seed and step, so that a resumed run goes on with the very same ones."""

import dataclasses
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from rs4d_core.datasets.coco import read_coco
from rs4d_core.datasets.coco_records import check_class_map, read_content
from rs4d_core.datasets.copy_paste import paste_instances
from rs4d_core.datasets.pictures import check_picture
from rs4d_core.datasets.sample import Sample
from rs4d_core.datasets.synthetic import SYNTHETIC_CLASSES, synthetic_samples
from rs4d_core.datasets.transforms import TransformSettings, load_training_image
from rs4d_core.errors import DatasetError, RS4DError
from rs4d_core.finetuning.recipe import CocoData, Recipe, SyntheticData
from rs4d_core.finetuning.splits import split
from rs4d_core.models.instances import Target
from rs4d_core.runs.loading import load_numbered
from rs4d_core.wording import counted

_FIRST_TRAINING_SCENE = 2**32
"""Seeds of held-back scenes lie below, those of training scenes above."""
MOST_TRIES = 4
"""Scenes that are generated, at most, to get one with a wanted class. The rarest stands in one scene of ten."""


class Source(Protocol):
    """Where training samples come from.

    Attributes:
        settings: how strongly their views vary.
        copy_paste: share of the views that get instances of another view of this source.
    """

    settings: TransformSettings
    copy_paste: float

    def draw(self, rng: np.random.Generator) -> tuple[Sample, int | None]:
        """A sample, and the label that its view is to show, if any; the same state of `rng` gives the same ones."""


@dataclass(frozen=True)
class CocoSource:
    """Samples of a data set, each as likely as any other, or balanced by class."""

    samples: list[Sample]
    settings: TransformSettings
    balanced: bool = False
    copy_paste: float = 0.0

    @functools.cached_property
    def _by_class(self) -> list[tuple[int, list[Sample]]]:
        """The labels that occur, each with the samples that show it."""
        shown: dict[int, list[Sample]] = {}
        for sample in self.samples:
            for label in sorted({annotation.label for annotation in sample.annotations if not annotation.crowd}):
                shown.setdefault(label, []).append(sample)
        return sorted(shown.items())

    def draw(self, rng: np.random.Generator) -> tuple[Sample, int | None]:
        if not (self.balanced and self._by_class):
            return self.samples[int(rng.integers(len(self.samples)))], None
        label, samples = self._by_class[int(rng.integers(len(self._by_class)))]
        return samples[int(rng.integers(len(samples)))], label


@dataclass(frozen=True)
class SyntheticSource:
    """A new scene for every sample, made at the size and the resolution at which it is used.

    Nothing is pasted: scenes do not run out, and in them things lie where they belong.
    """

    copy_paste: ClassVar[float] = 0.0
    size: int
    resolution_m: tuple[float, float]
    classes: tuple[str, ...]
    settings: TransformSettings
    balanced: bool = False

    def draw(self, rng: np.random.Generator) -> tuple[Sample, int | None]:
        wanted = self.classes.index(rng.choice(SYNTHETIC_CLASSES)) if self.balanced else None
        for _ in range(MOST_TRIES):
            seed = int(rng.integers(_FIRST_TRAINING_SCENE, 2**63))
            sample = synthetic_samples([seed], self.size, self.size, self.classes, self.resolution_m)[0]
            if wanted is None or any(entry.label == wanted and not entry.crowd for entry in sample.annotations):
                break
        return sample, wanted


@dataclass(frozen=True)
class RunData:
    """What a recipe's data sets come to.

    Attributes:
        sources: one a data set.
        weights: chance of each to be drawn from; they sum to 1.
        held_back: samples to measure, by name of the data set.
        fit_px: of data sets whose images are scaled to fit, the side that they are scaled to.
    """

    sources: tuple[Source, ...]
    weights: tuple[float, ...]
    held_back: dict[str, list[Sample]]
    fit_px: dict[str, int]


def open_data(recipe: Recipe, root: Path) -> RunData:
    """Read the recipe's data sets under the folder `root`.

    Raises:
        DatasetError: a data set is missing or broken, or has too few images for its split; or an image is both trained
            on and held back.
    """
    sources: list[Source] = []
    trained_on, held_back = {}, {}
    classes, size = recipe.model.classes, recipe.optimization.image_size
    for data in recipe.datasets:
        if isinstance(data, CocoData):
            training, kept = _coco_samples(data, root, classes)
            for sample in (*training, *kept):
                check_picture(sample)  # a run shall not end hours later for a picture of another size
            settings = TransformSettings(data.scale, turn=data.turn, color=data.color, fit=data.fit)
            sources.append(CocoSource(training, settings, data.balanced, data.copy_paste))
            trained_on[data.name] = training
        else:
            kept = _held_back_scenes(data, size, classes)
            settings = TransformSettings(scale=(1.0, 1.0))
            sources.append(SyntheticSource(size, data.resolution_m, classes, settings, data.balanced))
        if kept:
            held_back[data.name] = kept
    _check_apart(trained_on, held_back)
    weights = np.array([data.weight for data in recipe.datasets])
    fit_px = {data.name: size for data in recipe.datasets if isinstance(data, CocoData) and data.fit}
    return RunData(tuple(sources), tuple((weights / weights.sum()).tolist()), held_back, fit_px)


def _coco_samples(data: CocoData, root: Path, classes: tuple[str, ...]) -> tuple[list[Sample], list[Sample]]:
    """The samples to train on, and those held back."""
    images, held_back = root / data.images, data.held_back
    if data.class_map:
        files = [data.annotations, *([held_back.annotations] if held_back and held_back.annotations else [])]
        check_class_map({root / file: read_content(root / file) for file in files}, data.class_map)
    samples = read_coco(root / data.annotations, images, classes, data.class_map)
    if not samples:
        raise DatasetError(f"{root / data.annotations} lists no image: there is nothing to train on")
    if held_back is None or held_back.annotations is None:
        training, kept = split(data.name, samples, held_back)
    else:
        training, kept = samples, read_coco(root / held_back.annotations, images, classes, data.class_map)
    labels = frozenset(classes.index(name) for name in data.labelled_where_shown)
    for label in sorted(labels):
        if not samples[0].annotated[label]:  # alike for all samples of a file
            raise DatasetError(
                f"{root / data.annotations}: no category for '{classes[label]}', which labelled_where_shown of data "
                f"set {data.name} names: leave it out there"
            )
    return _with_doubts(training, labels), _with_doubts(kept, labels)


def _with_doubts(samples: list[Sample], labels: frozenset[int]) -> list[Sample]:
    """The samples as ones that label these only if they show them."""
    return [
        dataclasses.replace(sample, doubtful=labels - {entry.label for entry in sample.annotations if not entry.crowd})
        for sample in samples
    ]


def _check_apart(trained_on: dict[str, list[Sample]], held_back: dict[str, list[Sample]]) -> None:
    """See that no image file is both trained on and measured, whichever data sets list it. Raises DatasetError."""
    kept = {
        os.path.realpath(sample.image): name
        for name, samples in held_back.items()
        for sample in samples
        if isinstance(sample.image, Path)  # generated scenes are apart by their seeds
    }
    for name, samples in trained_on.items():
        shared = [path for path in (os.path.realpath(sample.image) for sample in samples) if path in kept]
        if shared:
            raise DatasetError(
                f"data set {name} trains on what is held back: {counted(len(shared), 'image')}, such as "
                f"{Path(shared[0]).name} of data set {kept[shared[0]]}; take it out of one"
            )


def fresh_scenes(
    count: int, seed: int, size: int, resolution_m: tuple[float, float], classes: tuple[str, ...]
) -> list[Sample]:
    """Generated scenes that no training run has seen: `count` of `size` x `size` pixels, for the given `seed`."""
    seeds = np.random.default_rng(seed).integers(_FIRST_TRAINING_SCENE, size=count)
    return synthetic_samples(seeds.tolist(), size, size, classes, resolution_m)


def _held_back_scenes(data: SyntheticData, size: int, classes: tuple[str, ...]) -> list[Sample]:
    kept = data.held_back
    return [] if kept is None else fresh_scenes(kept.count, kept.seed, size, data.resolution_m, classes)


class TrainingViews(Dataset):
    """Views by their number in the run. View `i` of step `s` depends on (seed, s, i) and on nothing else."""

    def __init__(self, data: RunData, size: int, batch: int, seed: int) -> None:
        self._data, self._size, self._batch, self._seed = data, size, batch, seed

    def __getitem__(self, number: int) -> "dict[str, Any] | RS4DError":
        step, place = divmod(number, self._batch)
        rng = np.random.default_rng([self._seed, step, place])
        source = self._data.sources[int(rng.choice(len(self._data.sources), p=self._data.weights))]
        try:
            view = self._view(source, rng)
            if source.copy_paste and rng.random() < source.copy_paste:
                view = paste_instances(view, self._view(source, rng), rng)
            return _pack(*view)
        except RS4DError as error:
            # As a value: the loader would wrap it into a traceback of the worker, many lines long.
            return error

    def _view(self, source: Source, rng: np.random.Generator) -> tuple[Tensor, Target]:
        sample, label = source.draw(rng)
        return load_training_image(sample, self._size, rng, source.settings, label)


def load_batches(
    data: RunData, recipe: Recipe, first_step: int, device: torch.device, rank: int = 0, ranks: int = 1
) -> Iterator[tuple[Tensor, list[Target]]]:
    """Batches from step `first_step` to the end of the run, on `device`: images `(B, 3, S, S)` uint8, and targets.

    Of several processes, each gets its part of every batch: which views make up a step does not depend on their number.

    Raises:
        DatasetError: an image cannot be read.
    """
    settings = recipe.optimization
    views = TrainingViews(data, settings.image_size, settings.batch, settings.seed)
    loader = load_numbered(views, settings, first_step, recipe.running.workers, rank, ranks)
    for batch in loader:
        for view in batch:
            if isinstance(view, RS4DError):
                raise view
        images, targets = zip(*(_unpack(view, device) for view in batch), strict=True)
        yield torch.stack(images), list(targets)


def _pack(image: Tensor, target: Target) -> dict[str, Any]:
    """Arrays, as they go through a pipe, with the masks as bits."""
    arrays = {name: getattr(target, name).numpy() for name in Target.__dataclass_fields__}
    masks = arrays.pop("masks")
    return {"image": image.numpy(), "bits": np.packbits(masks, axis=-1), "width": masks.shape[-1], **arrays}


def _unpack(view: dict[str, Any], device: torch.device) -> tuple[Tensor, Target]:
    arrays = dict(view)
    bits, width = arrays.pop("bits"), arrays.pop("width")
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return tensors.pop("image"), Target(masks=_unpacked(bits, width, device), **tensors)


def _unpacked(bits: np.ndarray, width: int, device: torch.device) -> Tensor:
    """The masks `(N, H, width)` of `np.packbits`, on `device`: to a GPU they go as bits, an eighth of the way."""
    if device.type == "cpu":
        return torch.from_numpy(np.unpackbits(bits, axis=-1, count=width).view(bool))
    values = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=device)
    return (torch.from_numpy(bits).to(device)[..., None] & values).flatten(-2)[..., :width] != 0
