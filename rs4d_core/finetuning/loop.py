"""Train a segmenter by a recipe: resumable to the bit, on the devices that Lightning Fabric knows."""

import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rs4d_core.device import choose_device
from rs4d_core.errors import DivergedError, OutputError, RecipeError
from rs4d_core.finetuning.checkpoint import checkpoints, read_state, restore_checkpoint, save_checkpoint
from rs4d_core.finetuning.data import RunData, load_batches, open_data
from rs4d_core.finetuning.journal import Journal, Pace
from rs4d_core.finetuning.measuring import build_card, measure_held_back, selection_score
from rs4d_core.finetuning.precision import resolve_precision
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.finetuning.recipe_file import differences, recipe_from_table, recipe_to_table, recipe_to_toml
from rs4d_core.finetuning.schedule import WeightAverage, build_optimizer, learning_rate
from rs4d_core.interruption import Interruption
from rs4d_core.models.checkpoint import load_weights_that_fit, save_model
from rs4d_core.models.config import preset
from rs4d_core.models.instances import Instances, Target
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.whole_file import write_whole

MOST_SKIPPED = 20
"""Steps in a row without a finite gradient before the run gives up."""
_FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}
_FREE_SECTIONS = ("running.", "evaluation.")
"""Settings that a resumed run may change: they do not touch the weights."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        step: optimizer steps done.
        final: model file with the averaged weights of the last step; None where the run was interrupted.
        best: model file with the averaged weights that measured best; None where nothing was measured.
        metrics: the last measured figures, as `CocoMetrics.to_json`, by data set.
        reports: whether this process is the one, of all that trained together, that tells the result.
    """

    folder: Path
    step: int
    final: Path | None
    best: Path | None
    metrics: dict[str, Any]
    interrupted: bool
    reports: bool


@dataclass
class _State:
    """The counters of a run. Everything else is a function of them, of the recipe, and of the tensors."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    evaluated_step: int = -1
    best_score: float = -1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    sums: dict[str, float] = field(default_factory=dict)
    summed: int = 0


class _Losses(nn.Module):
    """What Fabric wraps. Its wrappers search the arguments for tensors and refuse frozen dataclasses: hence dicts."""

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return self.segmenter.losses(images, [Target(**target) for target in targets])


def train(recipe: Recipe, data_root: Path, folder: Path) -> TrainingResult:
    """Run the recipe in the run folder `folder`, or go on from its last checkpoint.

    The folder holds the recipe as run, `log.txt`, `metrics.jsonl`, `checkpoints/`, `best.safetensors` and, at the end,
    `final.safetensors`. The first Ctrl-C or SIGTERM ends the run after the step at hand, with a checkpoint.

    Raises:
        RecipeError: the folder holds a run of another recipe.
        CheckpointError: the last checkpoint is damaged.
        DatasetError: the data is missing or broken.
        ModelFileError: the model file to start from is missing or damaged.
        DivergedError: `MOST_SKIPPED` steps in a row had no finite gradient.
        OutputError: the folder cannot be written.
    """
    running = recipe.running
    if running.threads is not None:
        torch.set_num_threads(running.threads)
    resumed_from = _prepare_folder(folder, recipe)
    device = choose_device(running.accelerator).name
    precision = resolve_precision(recipe.optimization.precision, device, folder / "precision.json")
    fabric = Fabric(
        accelerator=device.split(":")[0],
        devices=running.devices,
        # Which heads a batch trains depends on what it shows.
        strategy="ddp_find_unused_parameters_true" if running.devices > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    data = open_data(recipe, data_root)
    torch.manual_seed(recipe.optimization.seed)
    config = preset(recipe.model.preset, recipe.model.classes, recipe.model.head)
    segmenter = Segmenter(config).to(memory_format=torch.channels_last)
    taken = None
    if recipe.model.start and resumed_from is None:
        taken = load_weights_that_fit(Path(recipe.model.start), segmenter)
    run = _Run(fabric, recipe, data, segmenter, folder)
    if resumed_from is not None:
        run.restore(resumed_from)
    with Journal(folder, recipe.optimization.steps, run.state.step, speaks=fabric.is_global_zero) as journal:
        sizes = ", ".join(f"{name} {len(samples)}" for name, samples in data.held_back.items())
        journal.say(
            f"{recipe.model.name}: {sum(p.numel() for p in segmenter.parameters()) / 1e6:.2f} M parameters, "
            f"{fabric.device}, precision {precision}, from step {run.state.step}; held back: {sizes or 'nothing'}"
        )
        if taken is not None:
            journal.say(f"{len(taken)} of {len(segmenter.state_dict())} tensors start from {recipe.model.start}")
        with Interruption() as stop:
            # A step is not left half done, and a checkpoint is written before the run ends.
            stop.be_graceful()
            return run.run(journal, stop)


def _prepare_folder(folder: Path, recipe: Recipe) -> Path | None:
    """Make the run folder, or check that it is this recipe's; the checkpoint to go on from."""
    saved = checkpoints(folder / "checkpoints")
    if saved:
        before = recipe_from_table(read_state(saved[-1])["recipe"])
        changed = [name for name in differences(before, recipe) if not name.startswith(_FREE_SECTIONS)]
        if changed:
            raise RecipeError(
                f"{folder} holds a run with other settings ({', '.join(changed)}): give another --name, or remove it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "recipe.toml", recipe_to_toml(recipe).encode())
    except OSError as error:
        raise OutputError(f"cannot write to the run folder {folder} ({error}): give another one with --runs") from error
    return saved[-1] if saved else None


class _Run:
    def __init__(self, fabric: Fabric, recipe: Recipe, data: RunData, segmenter: Segmenter, folder: Path) -> None:
        self._fabric, self._recipe, self._data, self._folder = fabric, recipe, data, folder
        self._segmenter = segmenter.to(fabric.device).train()
        self._average = WeightAverage(self._segmenter, recipe.optimization.ema_decay)
        self._optimizer = build_optimizer(self._segmenter, recipe.optimization)
        self._wrapped, self._stepper = fabric.setup(_Losses(self._segmenter), self._optimizer)
        self.state = _State()

    def restore(self, checkpoint: Path) -> None:
        """Take over the tensors and counters of a checkpoint."""
        saved = restore_checkpoint(checkpoint, self._segmenter, self._average.model, self._optimizer)
        self.state = _State(**saved["state"])

    def run(self, journal: Journal, stop: Interruption) -> TrainingResult:
        settings, running, state = self._recipe.optimization, self._recipe.running, self.state
        rank, ranks = self._fabric.global_rank, self._fabric.world_size
        batches = load_batches(self._data, self._recipe, state.step, rank, ranks)
        pace = Pace(settings.batch)
        saved_step, saved_time = state.step, time.monotonic()
        while True:
            if self._evaluation_due() and not self._evaluate(journal, stop):
                break
            if state.step == settings.steps or self._any(stop.requested):
                break
            started = time.monotonic()
            images, targets = next(batches)
            self._step(images, targets, journal)
            pace.add(time.monotonic() - started)
            if state.step % running.log_every == 0 or state.step == settings.steps:
                self._log(journal, pace)
            waited = time.monotonic() - saved_time
            if state.step - saved_step >= running.checkpoint_steps or waited >= running.checkpoint_seconds:
                self._save()
                saved_step, saved_time = state.step, time.monotonic()
        self._save()
        finished = state.step == settings.steps and not self._evaluation_due()
        if not finished:
            journal.say(f"stopped at step {state.step}, checkpoint written: the same command goes on from there")
        elif self._fabric.is_global_zero:
            self._write_model("final.safetensors")
        final, best = self._folder / "final.safetensors", self._folder / "best.safetensors"
        return TrainingResult(
            self._folder,
            state.step,
            final if finished else None,
            best if best.exists() else None,
            state.metrics,
            interrupted=not finished,
            reports=self._fabric.is_global_zero,
        )

    def _step(self, images: Tensor, targets: list[Target], journal: Journal) -> None:
        """One optimizer step, or none where the losses or gradients are not finite."""
        settings, state = self._recipe.optimization, self.state
        # Random draws depend on seed and step alone: there is no state to save, and an evaluation disturbs nothing.
        words = np.random.SeedSequence([settings.seed, state.step, self._fabric.global_rank]).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))
        rate = learning_rate(state.step, settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        device = self._fabric.device
        losses = self._wrapped(
            images.to(device, torch.float32),
            [{name: getattr(target.to(device), name) for name in Target.__dataclass_fields__} for target in targets],
        )
        total = torch.stack(list(losses.values())).sum()
        self._stepper.zero_grad()
        self._fabric.backward(total)
        norm = nn.utils.clip_grad_norm_(self._segmenter.parameters(), settings.clip_norm)
        # Gradients are the same in every process, losses are not: all processes must skip the same steps.
        finite = bool(torch.isfinite(norm)) and not self._any(not bool(torch.isfinite(total)))
        if finite:
            self._stepper.step()
            self._average.update(self._segmenter, state.step)
            state.skipped_in_a_row = 0
            values = {"loss": total, **losses, "grad_norm": norm}
            for name, value in values.items():
                state.sums[name] = state.sums.get(name, 0.0) + float(value.detach())
            state.summed += 1
        else:
            state.skipped += 1
            state.skipped_in_a_row += 1
            bad = [name for name, value in losses.items() if not bool(torch.isfinite(value))] or ["gradients"]
            journal.say(f"step {state.step + 1} skipped: not finite: {', '.join(bad)}")
        state.step += 1
        if state.skipped_in_a_row >= MOST_SKIPPED:
            raise DivergedError(
                f"{MOST_SKIPPED} steps in a row, up to step {state.step}, had no finite losses and gradients: "
                "lower optimization.lr or lengthen optimization.warmup_steps, and train under another name"
            )

    def _log(self, journal: Journal, pace: Pace) -> None:
        """The mean losses since the last time."""
        state = self.state
        means = {name: total / state.summed for name, total in state.sums.items()}
        rate = learning_rate(state.step - 1, self._recipe.optimization)
        journal.steps_done({"step": state.step, "lr": rate, "skipped": state.skipped, **means}, pace)
        state.sums, state.summed = {}, 0

    def _save(self) -> None:
        if self._fabric.is_global_zero:
            state = {"state": asdict(self.state), "recipe": recipe_to_table(self._recipe)}
            folder = self._folder / "checkpoints"
            save_checkpoint(folder, self.state.step, self._segmenter, self._average.model, self._optimizer, state)

    def _evaluation_due(self) -> bool:
        step, settings = self.state.step, self._recipe
        due = step == settings.optimization.steps or (step > 0 and step % settings.evaluation.every == 0)
        return due and self.state.evaluated_step != step and bool(self._data.held_back)

    def _evaluate(self, journal: Journal, stop: Interruption) -> bool:
        """Measure the averaged weights; keep them if they are the best so far. False where stopped before the end."""
        done = True
        if self._fabric.is_global_zero:
            done = self._measure(journal, stop)
        # The others wait here for the first process to measure.
        stopped = self._any(not done)
        if not stopped:
            self.state.evaluated_step = self.state.step
        return not stopped

    def _measure(self, journal: Journal, stop: Interruption) -> bool:
        state, started = self.state, time.monotonic()
        limit = None if state.step == self._recipe.optimization.steps else self._recipe.evaluation.images
        metrics = measure_held_back(
            self._predict, self._data.held_back, self._recipe.model.classes, limit, lambda: stop.requested
        )
        if metrics is None:
            return False
        state.metrics = {name: entry.to_json() for name, entry in metrics.items()}
        seconds = round(time.monotonic() - started, 1)
        journal.record({"step": state.step, "evaluation": state.metrics, "seconds": seconds})
        for name, entry in metrics.items():
            journal.say(
                f"step {state.step}, {name} ({entry.images} images): "
                f"box AP50 {_shown(entry.box.ap50)}, mask AP50 {_shown(entry.mask.ap50)}, "
                f"box AP {_shown(entry.box.ap)}, mask AP {_shown(entry.mask.ap)}"
            )
        score = selection_score(metrics)
        if score > state.best_score:
            state.best_score = score
            self._write_model("best.safetensors")
        return True

    def _predict(self, images: Tensor) -> list[Instances]:
        with self._fabric.autocast():
            return self._average.model.predict(images.to(self._fabric.device))

    def _write_model(self, name: str) -> None:
        card = build_card(self._recipe, self._average.model.config, self.state.metrics)
        # Half the size, and what is lost lies below what bfloat16 loses in use.
        save_model(self._folder / name, self._average.model, card, torch.float16)

    def _any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self._fabric.world_size == 1:
            return flag
        return bool(self._fabric.all_reduce(torch.tensor(float(flag), device=self._fabric.device), reduce_op="sum") > 0)


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
