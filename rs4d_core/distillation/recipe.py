"""What a distillation is made of: frozen dataclasses that check themselves when they are built.

Folders of images are relative to the data folder that the command line names; a teacher's folder or file, and the cache
of its maps, to the folder that the command is started in.
"""

import re
from dataclasses import dataclass, field
from typing import ClassVar

from rs4d_core.models.config import PRESETS
from rs4d_core.runs.settings import Optimization, Running, check, check_share

SCHEDULES = ("adaptive", "constant")
TEACHER_MAPS = ("heads", "last")
MASKINGS = ("learned", "uniform")


@dataclass(frozen=True)
class Student:
    """The encoder that learns.

    Attributes:
        name: of the encoder, in its card and for its run folder.
        preset: the model whose encoder it is: a name in `rs4d_core.models.config.PRESETS`.
    """

    name: str
    preset: str

    def __post_init__(self) -> None:
        check(
            re.fullmatch(r"[\w.-]+", self.name) is not None, f'student.name "{self.name}" must be fit for a file name'
        )
        check(self.preset in PRESETS, f'student.preset is "{self.preset}": take one of {", ".join(PRESETS)}')


@dataclass(frozen=True)
class SamChoice:
    """SAM's image encoder as the teacher.

    Attributes:
        source: a folder with a model that transformers saved (SamModel or SamVisionModel), or a name on its hub, such
            as "facebook/sam-vit-base", which is then downloaded.
        cache: a folder for the teacher's maps, which other runs can use as well; empty to compute them in every step.
    """

    KIND: ClassVar[str] = "sam"
    source: str
    cache: str = ""


@dataclass(frozen=True)
class SegmenterChoice:
    """A model of our own as the teacher.

    Attributes:
        source: the model file.
        map: "heads": the map at stride 16 that its heads read, or "last": its encoder's last map.
        cache: as for `SamChoice`.
    """

    KIND: ClassVar[str] = "segmenter"
    source: str
    map: str = "heads"
    cache: str = ""

    def __post_init__(self) -> None:
        check(self.map in TEACHER_MAPS, f'teacher.map is "{self.map}": take one of {", ".join(TEACHER_MAPS)}')


@dataclass(frozen=True)
class Images:
    """What is shown to teacher and student.

    Attributes:
        folders: searched for images with all that is inside; relative to the data folder.
        bands: of rasters, the bands that are read as red, green and blue, from 1, or one for all; None takes what the
            file says, else the first three.
        held_back: images that are not trained on but measured.
        seed: decides which.
    """

    folders: tuple[str, ...] = (".",)
    bands: tuple[int, ...] | None = None
    held_back: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        check(bool(self.folders), "images.folders is empty: name at least one folder")
        check(
            self.bands is None or (len(self.bands) in (1, 3) and min(self.bands) > 0),
            f"images.bands is {list(self.bands or ())}: give three bands, counted from 1, or one for all",
        )
        for name in ("held_back", "seed"):
            check(getattr(self, name) >= 0, f"images.{name} is {getattr(self, name)}: it cannot be negative")


@dataclass(frozen=True)
class Corruption:
    """How the student's view of an image differs from the teacher's. See `distillation.corruption` for the definitions.

    Attributes:
        noise: standard deviation of the noise, in percent of that of natural images.
        mask: share of an image's tokens that is hidden, in percent.
        schedule: "constant": both as given, from the first step; "adaptive": both rise from 0 as the loss falls.
        masking: "uniform": every token is as likely to be hidden; "learned": the better reconstructed, the likelier.
        full_at: the running loss, as a part of its start, at which the adaptive schedule arrives at `noise` and `mask`.
    """

    noise: float = 20.0
    mask: float = 20.0
    schedule: str = "adaptive"
    masking: str = "learned"
    full_at: float = 0.25

    def __post_init__(self) -> None:
        check(0 <= self.noise <= 1000, f"corruption.noise is {self.noise}: give percent, 0 to 1000")
        check(0 <= self.mask < 100, f"corruption.mask is {self.mask}: give percent, 0 to less than 100")
        check(
            self.schedule in SCHEDULES,
            f'corruption.schedule is "{self.schedule}": take one of {", ".join(SCHEDULES)}',
        )
        check(self.masking in MASKINGS, f'corruption.masking is "{self.masking}": take one of {", ".join(MASKINGS)}')
        check(0 <= self.full_at < 1, f"corruption.full_at is {self.full_at}: give 0 or more, less than 1")


@dataclass(frozen=True)
class Evaluation:
    """When the averaged student is measured on held-back images, without corruption.

    Attributes:
        every: steps between two measurements; the start and the last step are always measured.
        views: at most so many views of the held-back images.
    """

    every: int = 1000
    views: int = 64

    def __post_init__(self) -> None:
        for name in ("every", "views"):
            check(getattr(self, name) > 0, f"evaluation.{name} is {getattr(self, name)}: give 1 or more")


@dataclass(frozen=True)
class Ablation:
    """The grid of `training/distill.py --ablation`: every noise with every mask under every schedule.

    Attributes:
        noise, mask: percent.
        schedules: "constant" goes with uniform, "adaptive" with learned masking.
    """

    noise: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0)
    mask: tuple[float, ...] = (0.0, 10.0, 20.0, 30.0)
    schedules: tuple[str, ...] = ("constant", "adaptive")

    def __post_init__(self) -> None:
        for name in ("noise", "mask", "schedules"):
            check(bool(getattr(self, name)), f"ablation.{name} is empty: give at least one value")
        for schedule in self.schedules:
            check(
                schedule in SCHEDULES,
                f'ablation.schedules has "{schedule}": take one or both of {", ".join(SCHEDULES)}',
            )


@dataclass(frozen=True)
class DistillationRecipe:
    """One distillation. `optimization.batch` counts views."""

    student: Student
    teacher: SamChoice | SegmenterChoice
    optimization: Optimization
    images: Images = field(default_factory=Images)
    corruption: Corruption = field(default_factory=Corruption)
    evaluation: Evaluation = field(default_factory=Evaluation)
    running: Running = field(default_factory=Running)
    ablation: Ablation = field(default_factory=Ablation)

    def __post_init__(self) -> None:
        check_share(self.optimization.batch, self.running.devices)
