"""The frame of a training run: steps, averaged weights, evaluations, checkpoints; resumable to the bit."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rs4d_core.errors import DivergedError, OptionError, RS4DError
from rs4d_core.interruption import Interruption
from rs4d_core.runs.checkpoint import restore_checkpoint, save_checkpoint
from rs4d_core.runs.journal import Journal, Pace
from rs4d_core.runs.schedule import WeightAverage, build_optimizer, learning_rate
from rs4d_core.runs.tables import to_table

MOST_SKIPPED = 20
"""Steps in a row without a finite gradient before a run gives up."""


@dataclass
class Counters:
    """What JSON can hold of a run's state. All else is a function of it, of the recipe, and of the tensors."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    evaluated_step: int = -1
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0


class TrainingRun(ABC):
    """A run of a recipe in its folder. Subclasses say what a batch teaches and how the model is measured.

    Attributes:
        state: the counters.
        average: the averaged weights, as a model in evaluation mode.
        memory: tensors that a checkpoint keeps besides the weights.
        measures_start: whether the model is measured before the first step as well.
    """

    measures_start = False

    def __init__(
        self, fabric: Fabric, recipe: Any, folder: Path, model: nn.Module, losses: nn.Module, state: Counters
    ) -> None:
        """
        Args:
            recipe: settings with the sections `optimization`, `evaluation` and `running`.
            model: what is averaged and kept.
            losses: the module that is called in training: `model` itself, or one that holds it.
        """
        self._fabric, self._recipe, self._folder, self._model = fabric, recipe, folder, model
        losses.to(fabric.device).train()
        self._average = WeightAverage(model, recipe.optimization.ema_decay)
        self._optimizer = build_optimizer(model, recipe.optimization)
        self._wrapped, self._stepper = fabric.setup(losses, self._optimizer)
        self.state = state
        self.memory: dict[str, Tensor] = {}

    @property
    def average(self) -> nn.Module:
        return self._average.model

    @abstractmethod
    def losses(self, batch: Any) -> dict[str, Tensor]:
        """The losses of this process's part of a batch, each a scalar, to be summed. Calls `self._wrapped`."""

    @abstractmethod
    def measure(self, journal: Journal, stop: Interruption) -> bool:
        """Measure the averaged weights; False where `stop` asked for the end before. One process alone does it."""

    @abstractmethod
    def measures(self) -> bool:
        """Whether there is anything to measure on."""

    def learned(self, values: dict[str, float], journal: Journal) -> None:  # noqa: B027 (not every run has a use for it)
        """Told after every step that was taken: the losses, as means over all processes."""

    def restore(self, checkpoint: Path) -> None:
        """Take over the tensors and counters of a checkpoint."""
        saved, self.memory = restore_checkpoint(checkpoint, self._model, self.average, self._optimizer)
        self.state = type(self.state)(**saved["state"])

    def run(self, batches: Iterator[Any], journal: Journal, stop: Interruption) -> bool:
        """Go on to the last step, or until `stop` asks for the end. A checkpoint is written in either case, and where
        an image cannot be read or the measuring fails.

        Of several processes, the first alone raises such an error, of whichever process it is.

        Returns:
            Whether the run has finished.

        Raises:
            DivergedError: `MOST_SKIPPED` steps in a row had no finite gradient.
            DatasetError: an image cannot be read.
            OptionError: the device's memory is too small.
            OutputError: the folder cannot be written.
        """
        try:
            return self._run(batches, journal, stop)
        except torch.OutOfMemoryError as error:
            raise OptionError(
                f"the memory of {self._fabric.device} was too small at step {self.state.step}: lower "
                "optimization.batch or optimization.image_size, and train under another --name"
            ) from error

    def _run(self, batches: Iterator[Any], journal: Journal, stop: Interruption) -> bool:
        settings, running, state = self._recipe.optimization, self._recipe.running, self.state
        pace = Pace(settings.batch)
        saved_step, saved_time = state.step, time.monotonic()
        values, stopped, failed = None, False, None
        while True:
            try:
                if values is not None:
                    self._tell(values, journal)
                    if state.step % running.log_every == 0 or state.step == settings.steps:
                        self._log(journal, pace)
                if self._evaluation_due():
                    stopped = not self._evaluate(journal, stop)
                # After the evaluation, which a run that goes on from here would else do again.
                waited = time.monotonic() - saved_time
                if state.step - saved_step >= running.checkpoint_steps or waited >= running.checkpoint_seconds:
                    self._save()
                    saved_step, saved_time = state.step, time.monotonic()
                started = time.monotonic()
                batch = next(batches) if state.step < settings.steps else None
            except RS4DError as error:
                # Not raised yet: the other processes would wait for this one in the midst of a step.
                failed = error
            if self._any(stop.requested or stopped or failed is not None) or state.step == settings.steps:
                break
            values = self._step(batch)
            pace.add(time.monotonic() - started)
        failed = self._first(failed)
        self._save()
        if failed is not None and self._fabric.is_global_zero:
            raise failed
        finished = state.step == settings.steps and not self._evaluation_due()
        if not finished:
            journal.say(f"stopped at step {state.step}, checkpoint written: the same command goes on from there")
        return finished

    def _step(self, batch: Any) -> dict[str, float]:
        """One optimizer step, or none where the losses or gradients are not finite; the losses and their sum, and the
        gradients' norm, as means over all processes."""
        settings, state = self._recipe.optimization, self.state
        # Random draws depend on seed and step alone: there is no state to save, and an evaluation disturbs nothing.
        words = np.random.SeedSequence([settings.seed, state.step, self._fabric.global_rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        rate = learning_rate(state.step, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        losses = self.losses(batch)
        total = torch.stack(list(losses.values())).sum()
        self._stepper.zero_grad()
        self._fabric.backward(total)
        norm = nn.utils.clip_grad_norm_(self._model.parameters(), settings.clip_norm)
        values = {**self._mean({"loss": total, **losses}), "grad_norm": float(norm)}
        # Gradients are the same in every process, and these are means over all: all skip the same steps.
        if _finite(values):
            with self._fabric.autocast():  # Muon multiplies matrices
                self._stepper.step()
            self._average.update(self._model, state.step)
            state.skipped_in_a_row = 0
            for name, value in values.items():
                state.sums[name] = state.sums.get(name, 0.0) + value
            state.summed += 1
        else:
            state.skipped += 1
            state.skipped_in_a_row += 1
        state.step += 1
        return values

    def _tell(self, values: dict[str, float], journal: Journal) -> None:
        """What follows from a step's `values`."""
        state = self.state
        if _finite(values):
            self.learned(values, journal)
        else:
            bad = [name for name in values if name not in ("loss", "grad_norm") and not np.isfinite(values[name])]
            journal.say(f"step {state.step} skipped: not finite: {', '.join(bad or ['gradients'])}")
        if state.skipped_in_a_row >= MOST_SKIPPED:
            raise DivergedError(
                f"{MOST_SKIPPED} steps in a row, up to step {state.step}, had no finite losses and gradients: "
                "lower optimization.lr or lengthen optimization.warmup_steps, and train under another name"
            )

    def progress(self) -> dict[str, Any]:
        """What a line of the metrics tells besides the losses."""
        return {}

    def _log(self, journal: Journal, pace: Pace) -> None:
        """The mean losses since the last time."""
        state = self.state
        means = {name: total / state.summed for name, total in state.sums.items()}
        rate = learning_rate(state.step - 1, self._recipe.optimization)
        entry = {"step": state.step, "lr": rate, "skipped": state.skipped, **self.progress(), **means}
        journal.steps_done(entry, pace)
        state.sums, state.summed = {}, 0

    def _save(self) -> None:
        if self._fabric.is_global_zero:
            state = {"state": asdict(self.state), "recipe": to_table(self._recipe)}
            folder, optimizer = self._folder / "checkpoints", self._optimizer
            save_checkpoint(folder, self.state.step, self._model, self.average, optimizer, state, self.memory)

    def _evaluation_due(self) -> bool:
        step, settings = self.state.step, self._recipe
        due = step == settings.optimization.steps or step % settings.evaluation.every == 0
        due = due and (step > 0 or self.measures_start)
        return due and self.state.evaluated_step != step and self.measures()

    def _evaluate(self, journal: Journal, stop: Interruption) -> bool:
        """Measure the averaged weights, in the first process; the others wait for it where they next agree. False where
        stopped before the end."""
        if self._fabric.is_global_zero and not self.measure(journal, stop):
            return False
        self.state.evaluated_step = self.state.step
        return True

    def _any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self._fabric.world_size == 1:
            return flag
        return bool(self._fabric.all_reduce(torch.tensor(float(flag), device=self._fabric.device), reduce_op="sum") > 0)

    def _first(self, failed: RS4DError | None) -> RS4DError | None:
        """The error of the first process that had one, for every process to know."""
        if self._fabric.world_size == 1:
            return failed
        errors = [None] * self._fabric.world_size
        torch.distributed.all_gather_object(errors, failed)
        return next(filter(None, errors), None)

    def _mean(self, values: dict[str, Tensor]) -> dict[str, float]:
        """Scalars as their means over all processes."""
        stacked = torch.stack([value.detach().float() for value in values.values()])
        if self._fabric.world_size > 1:
            stacked = self._fabric.all_reduce(stacked, reduce_op="mean")
        return dict(zip(values, stacked.tolist(), strict=True))


def _finite(values: dict[str, float]) -> bool:
    return bool(np.isfinite(values["loss"]) and np.isfinite(values["grad_norm"]))
