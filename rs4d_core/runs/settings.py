"""What all training runs have in common: how the weights are optimised, and how the machine is used."""

from dataclasses import dataclass

from rs4d_core.errors import RecipeError
from rs4d_core.models.config import SIZE_DIVISOR

PRECISIONS = ("auto", "32", "bf16")
OPTIMIZERS = ("adamw", "muon")


def check(good: bool, message: str) -> None:
    """Raises RecipeError with the message unless `good`."""
    if not good:
        raise RecipeError(message)


def check_range(name: str, low_high: tuple[float, float]) -> None:
    """Raises RecipeError unless the two numbers are positive and rise."""
    low, high = low_high
    check(0 < low <= high, f"{name} is [{low}, {high}]: give two positive numbers, the smaller first")


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
        optimizer: "adamw" or "muon", which learns more from as many images (`rs4d_core/runs/muon.py`); the same rates
            do for both.
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
    optimizer: str = "adamw"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        check(
            self.image_size > 0 and self.image_size % SIZE_DIVISOR == 0,
            f"optimization.image_size is {self.image_size}: give a multiple of {SIZE_DIVISOR}",
        )
        for name in ("batch", "steps", "lr", "clip_norm"):
            check(getattr(self, name) > 0, f"optimization.{name} is {getattr(self, name)}: give a number over 0")
        for name in ("final_lr", "weight_decay", "seed"):
            check(getattr(self, name) >= 0, f"optimization.{name} is {getattr(self, name)}: it cannot be negative")
        check(
            0 <= self.warmup_steps <= self.steps,
            f"optimization.warmup_steps is {self.warmup_steps}: give 0 to steps ({self.steps})",
        )
        check(0 <= self.ema_decay < 1, f"optimization.ema_decay is {self.ema_decay}: give 0 or more, less than 1")
        check(
            self.optimizer in OPTIMIZERS,
            f'optimization.optimizer is "{self.optimizer}": take one of {", ".join(OPTIMIZERS)}',
        )
        check(
            self.precision in PRECISIONS,
            f'optimization.precision is "{self.precision}": take one of {", ".join(PRECISIONS)}',
        )


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
            check(getattr(self, name) > 0, f"running.{name} is {getattr(self, name)}: give a number over 0")
        check(self.threads is None or self.threads > 0, f"running.threads is {self.threads}: give 1 or more")
        check(
            self.accelerator in ("auto", "cpu", "cuda"),
            f'running.accelerator is "{self.accelerator}": take auto, cpu or cuda',
        )
        check(self.workers >= 0, f"running.workers is {self.workers}: give 0 or more")


def check_share(batch: int, devices: int) -> None:
    """Raises RecipeError unless the devices can share a batch evenly."""
    check(batch % devices == 0, f"optimization.batch ({batch}) must be a multiple of running.devices ({devices})")
