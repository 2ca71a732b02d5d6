"""What a training run is made of: frozen dataclasses that check themselves when they are built.

`runs.tables.read_settings` reads them from TOML. Paths of data in a recipe are relative to the data folder that the
command line names, so that no recipe tells where a machine keeps its data. `model.start` and `model.encoder`, which are
no data, are relative to the working folder.
"""

import re
from dataclasses import dataclass, field
from typing import ClassVar

from rs4d_core.errors import RecipeError
from rs4d_core.models.config import HEADS, PRESETS
from rs4d_core.runs.settings import Optimization, Running, check, check_range, check_share
from rs4d_core.wording import counted

ALL = "all"
"""Name of the figures over all held-back images together."""


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
        encoder: an encoder file, as distillation writes it, that the encoder starts from, whatever `start` says of it.
    """

    name: str
    preset: str
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    resolution_m: tuple[float, float]
    head: str = "box"
    start: str = ""
    encoder: str = ""

    def __post_init__(self) -> None:
        check(bool(self.classes), "model.classes is empty: name at least one class")
        check(len(set(self.classes)) == len(self.classes), "model.classes names a class twice")
        check(
            len(self.colors) == len(self.classes),
            f"model.colors has {len(self.colors)} for {counted(len(self.classes), 'class', 'classes')}: give one each",
        )
        for color in self.colors:
            good = re.fullmatch(r"#[0-9a-fA-F]{6}", color) is not None
            check(good, f'model.colors has "{color}": write it as #rrggbb')
        check(self.preset in PRESETS, f'model.preset is "{self.preset}": take one of {", ".join(PRESETS)}')
        check(self.head in HEADS, f'model.head is "{self.head}": take one of {", ".join(HEADS)}')
        check(re.fullmatch(r"[\w.-]+", self.name) is not None, f'model.name "{self.name}" must be fit for a file name')
        check_range("model.resolution_m", self.resolution_m)


@dataclass(frozen=True)
class HeldBack:
    """Which images of a data set are kept from training and measured instead: a file's, a number, or those of a place.

    By file: `annotations`, relative to the data folder, lists them, and the data set's own folder holds them; so
    does `training/prepare.py` split a data set. By number: `count` images drawn with `seed`. By place, for tiles that
    overlap their neighbours: `place` is a regular expression that finds x and y of the upper left corner, in pixels, in
    the file name; tiles with that corner inside `block` (x0, y0, x1, y1; the upper ends excluded) are held back. Others
    that show ground of the block or of a tile in it, or lie nearer to that ground than `margin` pixels, are dropped.
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
        check(
            sum(ways) == 1 and (self.place is None) == (self.block is None),
            "held_back needs either annotations, or count, or place and block",
        )
        check(self.count is None or self.count > 0, f"held_back.count is {self.count}: give 1 or more, or leave it out")
        check(self.seed >= 0, f"held_back.seed is {self.seed}: it cannot be negative")
        check(self.margin >= 0, f"held_back.margin is {self.margin}: it cannot be negative")
        check(self.margin == 0 or by_place, "held_back.margin is for what is held back by place: leave it out")
        check(self.seed == 0 or self.count is not None, "held_back.seed is for a count: leave it out")
        if self.place is not None:
            try:
                groups = re.compile(self.place).groups
            except re.error as error:
                raise RecipeError(f'held_back.place "{self.place}" is not a regular expression: {error}') from error
            check(groups == 2, f'held_back.place "{self.place}" needs two groups, for x and y')


@dataclass(frozen=True)
class CocoData:
    """A data set in COCO form.

    Attributes:
        name: in logs and metrics.
        annotations, images: the file and the folder, relative to the data folder.
        weight: share of the samples drawn from this set, relative to the other weights.
        scale: smallest and largest factor on the images' pixels (large-scale jitter). Sets of different resolution
            need different ones to meet at the resolutions of the model.
        fit: scale each image first such that its longer side is the training images': `scale` comes on top, and the
            held-back images are measured so. It is how detection frameworks train, and forgets how large a pixel is.
        turn: turn by quarter turns too, besides mirroring: aerial images have no upright.
        color: strength of the changes of colour and light, 0 to 1.
        copy_paste: share of the views that get instances of another view put on their free ground, 0 to 1; only
            instances with an outline can be.
        licence: as the source states it; goes into the card.
        class_map: names in the file -> names of the model's classes, where they differ.
        balanced: draw a class first, each as likely as any other, then an image that shows it, and a part of the image
            around an instance of it; else each image is as likely as any other.
        labelled_where_shown: classes of the model that the set labels in some of its images only, such as cars that are
            marked where they are what the image was taken for. Training takes an image without an instance of such a
            class for one that does not label it, and so does the choice of scores on held-back images; a region to
            ignore is no instance. Average precision is by what the file says.
        held_back: None uses every image for training and measures nothing on this set.
    """

    KIND: ClassVar[str] = "coco"
    name: str
    annotations: str
    images: str
    weight: float
    scale: tuple[float, float]
    licence: str
    class_map: dict[str, str] = field(default_factory=dict)
    balanced: bool = False
    labelled_where_shown: tuple[str, ...] = ()
    held_back: HeldBack | None = None
    fit: bool = False
    turn: bool = True
    color: float = 0.5
    copy_paste: float = 0.0

    def __post_init__(self) -> None:
        check(self.weight > 0, f"datasets.{self.name}.weight is {self.weight}: give a number over 0")
        check_range(f"datasets.{self.name}.scale", self.scale)
        for setting in ("color", "copy_paste"):
            value = getattr(self, setting)
            check(0 <= value <= 1, f"datasets.{self.name}.{setting} is {value}: give 0 to 1")


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

    KIND: ClassVar[str] = "synthetic"
    name: str
    weight: float
    resolution_m: tuple[float, float]
    licence: str = "generated"
    balanced: bool = False
    held_back: HeldBack | None = None

    def __post_init__(self) -> None:
        check(self.weight > 0, f"datasets.{self.name}.weight is {self.weight}: give a number over 0")
        check_range(f"datasets.{self.name}.resolution_m", self.resolution_m)
        check(
            self.held_back is None or self.held_back.count is not None,
            f"datasets.{self.name}.held_back needs count: generated scenes have no place and no file",
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
        check(self.every > 0, f"evaluation.every is {self.every}: give 1 step or more")
        check(self.images is None or self.images > 0, f"evaluation.images is {self.images}: give 1 or more")


@dataclass(frozen=True)
class Recipe:
    """One training run."""

    model: ModelChoice
    datasets: tuple[CocoData | SyntheticData, ...]
    optimization: Optimization
    evaluation: Evaluation = field(default_factory=Evaluation)
    running: Running = field(default_factory=Running)

    def __post_init__(self) -> None:
        check(bool(self.datasets), "the recipe has no [[datasets]]: give at least one")
        names = [data.name for data in self.datasets]
        check(len(set(names)) == len(names), f"two datasets have one name: {', '.join(names)}")
        check(ALL not in names, f'a data set is named "{ALL}", as the figures over all of them are: name it otherwise')
        for data in self.datasets:
            for source, target in getattr(data, "class_map", {}).items():
                check(
                    target in self.model.classes,
                    f'datasets.{data.name}.class_map sends "{source}" to "{target}", which is not in model.classes',
                )
            for name in getattr(data, "labelled_where_shown", ()):
                check(
                    name in self.model.classes,
                    f'datasets.{data.name}.labelled_where_shown names "{name}", which is not in model.classes',
                )
        check_share(self.optimization.batch, self.running.devices)
