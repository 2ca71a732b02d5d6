"""What a training run is made of: frozen dataclasses that check themselves when they are built.

`recipe_file.read_recipe` reads them from TOML. Paths in a recipe are relative to the data folder that the command line
names, so that no recipe tells where a machine keeps its data.
"""

import re
from dataclasses import dataclass, field

from rs4d_core.errors import RecipeError
from rs4d_core.models.config import HEADS, SIZE_DIVISOR

PRECISIONS = ("auto", "32", "bf16")


def _check(good: bool, message: str) -> None:
    if not good:
        raise RecipeError(message)


def _check_range(name: str, low_high: tuple[float, float]) -> None:
    low, high = low_high
    _check(0 < low <= high, f"{name} is [{low}, {high}]: give two positive numbers, the smaller first")


@dataclass(frozen=True)
class ModelChoice:
    """Which model is trained, and what its card will say about where it may be used.

    Attributes:
        name: the model's name in its card and file.
        preset: a name in `rs4d_core.models.config.PRESETS`.
        head: "box" or "prompt".
        classes: in the order of the model's outputs.
        colors: of the classes, in their order, as "#rrggbb".
        resolution_m: metres a pixel, smallest and largest, that the training data covers.
        start: a model file whose weights the run starts from, where they fit; empty to start from nothing.
    """

    name: str
    preset: str
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    resolution_m: tuple[float, float]
    head: str = "box"
    start: str = ""

    def __post_init__(self) -> None:
        _check(bool(self.classes), "model.classes is empty: name at least one class")
        _check(len(set(self.classes)) == len(self.classes), "model.classes names a class twice")
        _check(
            len(self.colors) == len(self.classes),
            f"model.colors has {len(self.colors)} entries for {len(self.classes)} classes: give one for each",
        )
        for color in self.colors:
            _check(re.fullmatch(r"#[0-9a-f]{6}", color) is not None, f'model.colors has "{color}": write it as #rrggbb')
        _check(self.head in HEADS, f'model.head is "{self.head}": take one of {", ".join(HEADS)}')
        _check(re.fullmatch(r"[\w.-]+", self.name) is not None, f'model.name "{self.name}" must be fit for a file name')
        _check_range("model.resolution_m", self.resolution_m)


@dataclass(frozen=True)
class HeldBack:
    """Which images of a data set are kept from training and measured instead: a file's, a number, or those of a place.

    By file: `annotations`, relative to the data folder, lists them, and the data set's own folder holds them; so
    does `training/prepare.py` split a data set. By number: `count` images drawn with `seed`. By place, for tiles that
    overlap their neighbours: `place` is a regular expression with two groups, x and y, in the file name; tiles with
    both inside `block` (x0, y0, x1, y1; the upper ends excluded) are held back, and tiles less than `margin` outside of
    it are dropped, as they show the same ground.
    """

    count: int | None = None
    seed: int = 0
    place: str | None = None
    block: tuple[float, float, float, float] | None = None
    margin: float = 0.0
    annotations: str | None = None

    def __post_init__(self) -> None:
        by_place = self.place is not None and self.block is not None
        ways = (self.count is not None, by_place, self.annotations is not None)
        _check(
            sum(ways) == 1 and (self.place is None) == (self.block is None),
            "held_back needs either annotations, or count, or place and block",
        )
        _check(
            self.count is None or self.count > 0, f"held_back.count is {self.count}: give 1 or more, or leave it out"
        )
        _check(self.seed >= 0, f"held_back.seed is {self.seed}: it cannot be negative")
        _check(self.margin >= 0, f"held_back.margin is {self.margin}: it cannot be negative")
        if self.place is not None:
            try:
                groups = re.compile(self.place).groups
            except re.error as error:
                raise RecipeError(f'held_back.place "{self.place}" is not a regular expression: {error}') from error
            _check(groups == 2, f'held_back.place "{self.place}" needs two groups, for x and y')


@dataclass(frozen=True)
class CocoData:
    """A data set in COCO form.

    Attributes:
        name: in logs and metrics.
        annotations, images: the file and the folder, relative to the data folder.
        weight: share of the samples drawn from this set, relative to the other weights.
        scale: smallest and largest factor on the images' pixels (large-scale jitter). Sets of different resolution
            need different ones to meet at the resolutions of the model.
        licence: as the source states it; goes into the card.
        class_map: names in the file -> names of the model's classes, where they differ.
        balanced: draw a class first, each as likely as any other, then an image that shows it, and a part of the image
            around an instance of it; else each image is as likely as any other.
        held_back: None uses every image for training and measures nothing on this set.
    """

    name: str
    annotations: str
    images: str
    weight: float
    scale: tuple[float, float]
    licence: str
    class_map: dict[str, str] = field(default_factory=dict)
    balanced: bool = False
    held_back: HeldBack | None = None

    def __post_init__(self) -> None:
        _check(self.weight > 0, f"datasets.{self.name}.weight is {self.weight}: give a number over 0")
        _check_range(f"datasets.{self.name}.scale", self.scale)


@dataclass(frozen=True)
class SyntheticData:
    """Generated scenes, a new one for every sample. Held-back scenes have seeds that training never draws.

    Attributes:
        name, weight, licence: as for `CocoData`.
        resolution_m: smallest and largest metres a pixel; each scene has its own.
        balanced: draw a class first, each as likely as any other, and then scenes until one shows it, at most
            `finetuning.data.MOST_TRIES`.
        held_back: the number of scenes to measure on (`count` and `seed`; a place has no meaning here).
    """

    name: str
    weight: float
    resolution_m: tuple[float, float]
    licence: str = "generated"
    balanced: bool = False
    held_back: HeldBack | None = None

    def __post_init__(self) -> None:
        _check(self.weight > 0, f"datasets.{self.name}.weight is {self.weight}: give a number over 0")
        _check_range(f"datasets.{self.name}.resolution_m", self.resolution_m)
        _check(
            self.held_back is None or self.held_back.count is not None,
            f"datasets.{self.name}.held_back needs count: generated scenes have no place and no file",
        )


@dataclass(frozen=True)
class Optimization:
    """All that shapes the weights besides model and data.

    Attributes:
        image_size: side of the square training images, pixels.
        batch: images a step, over all devices together.
        steps: optimizer steps of the whole run; the learning rate's cosine ends there.
        lr, final_lr, warmup_steps: linear rise from 0 to `lr`, then a cosine down to `final_lr`.
        weight_decay: on weight matrices only.
        ema_decay: of the averaged weights that are evaluated and written; 0 is no averaging.
        clip_norm: the gradients' largest norm.
        precision: "32", "bf16" (autocast), or "auto": whichever multiplies matrices faster on this machine.
        seed: of the first weights, the order of the data and every random draw.
    """

    image_size: int
    batch: int
    steps: int
    lr: float
    warmup_steps: int = 300
    final_lr: float = 1e-7
    weight_decay: float = 0.05
    ema_decay: float = 0.998
    clip_norm: float = 10.0
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        _check(
            self.image_size > 0 and self.image_size % SIZE_DIVISOR == 0,
            f"optimization.image_size is {self.image_size}: give a multiple of {SIZE_DIVISOR}",
        )
        for name in ("batch", "steps", "lr", "clip_norm"):
            _check(getattr(self, name) > 0, f"optimization.{name} is {getattr(self, name)}: give a number over 0")
        for name in ("final_lr", "weight_decay", "seed"):
            _check(getattr(self, name) >= 0, f"optimization.{name} is {getattr(self, name)}: it cannot be negative")
        _check(
            0 <= self.warmup_steps <= self.steps,
            f"optimization.warmup_steps is {self.warmup_steps}: give 0 to steps ({self.steps})",
        )
        _check(0 <= self.ema_decay < 1, f"optimization.ema_decay is {self.ema_decay}: give 0 or more, less than 1")
        _check(
            self.precision in PRECISIONS,
            f'optimization.precision is "{self.precision}": take one of {", ".join(PRECISIONS)}',
        )


@dataclass(frozen=True)
class Evaluation:
    """When the averaged weights are measured on the held-back images.

    Attributes:
        every: steps between two evaluations; the last step is always measured.
        images: at most so many of each held-back split while training runs; the last evaluation takes all of them.
    """

    every: int = 1000
    images: int | None = None

    def __post_init__(self) -> None:
        _check(self.every > 0, f"evaluation.every is {self.every}: give 1 step or more")
        _check(self.images is None or self.images > 0, f"evaluation.images is {self.images}: give 1 or more")


@dataclass(frozen=True)
class Running:
    """How the run uses its machine. A run may be resumed with other values of these.

    Attributes:
        checkpoint_steps, checkpoint_seconds: a checkpoint is written when either has passed since the last.
        log_every: steps between two lines of the log and of the metrics.
        threads: of torch in the training process; None takes what torch takes.
        workers: processes that load images; 0 loads in the training process.
        accelerator: "auto", "cpu" or "cuda".
        devices: how many of them share every batch.
    """

    checkpoint_steps: int = 500
    checkpoint_seconds: float = 600.0
    log_every: int = 20
    threads: int | None = None
    workers: int = 1
    accelerator: str = "auto"
    devices: int = 1

    def __post_init__(self) -> None:
        for name in ("checkpoint_steps", "checkpoint_seconds", "log_every", "devices"):
            _check(getattr(self, name) > 0, f"running.{name} is {getattr(self, name)}: give a number over 0")
        _check(self.threads is None or self.threads > 0, f"running.threads is {self.threads}: give 1 or more")
        _check(
            self.accelerator in ("auto", "cpu", "cuda"),
            f'running.accelerator is "{self.accelerator}": take auto, cpu or cuda',
        )
        _check(self.workers >= 0, f"running.workers is {self.workers}: give 0 or more")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: ModelChoice
    datasets: tuple[CocoData | SyntheticData, ...]
    optimization: Optimization
    evaluation: Evaluation = Evaluation()
    running: Running = Running()

    def __post_init__(self) -> None:
        _check(bool(self.datasets), "the recipe has no [[datasets]]: give at least one")
        names = [data.name for data in self.datasets]
        _check(len(set(names)) == len(names), f"two datasets have one name: {', '.join(names)}")
        for data in self.datasets:
            for source, target in getattr(data, "class_map", {}).items():
                _check(
                    target in self.model.classes,
                    f'datasets.{data.name}.class_map sends "{source}" to "{target}", which is not in model.classes',
                )
        _check(
            self.optimization.batch % self.running.devices == 0,
            f"optimization.batch ({self.optimization.batch}) must be a multiple of running.devices "
            f"({self.running.devices})",
        )
