"""Train a segmenter by a recipe: resumable to the bit, on the devices that Lightning Fabric knows."""

import hashlib
import json
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rs4d_core.errors import DatasetError, RecipeError
from rs4d_core.finetuning.data import CocoSource, RunData, load_batches, open_data
from rs4d_core.finetuning.measuring import (
    build_card,
    few_of,
    measure_held_back,
    origins_of,
    predict_held_back,
    selection_score,
)
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.interruption import Interruption
from rs4d_core.models.card import read_card
from rs4d_core.models.checkpoint import load_weights_that_fit, save_model
from rs4d_core.models.config import SegmenterConfig, preset
from rs4d_core.models.encoder_file import load_encoder_weights
from rs4d_core.models.instances import Instances, Target
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.runs.fabric import open_fabric
from rs4d_core.runs.folder import run_folder
from rs4d_core.runs.journal import Journal
from rs4d_core.runs.loop import Counters, TrainingRun
from rs4d_core.wording import counted

_FREE_SECTIONS = ("running.", "evaluation.every")
"""Settings that a resumed run may change: they touch the weights only as far as other devices compute otherwise. How
many images are measured stays: the best model is chosen by the same ones each time."""


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
class _State(Counters):
    best_score: float = -1.0
    metrics: dict[str, Any] = field(default_factory=dict)
    origins: list[dict[str, str]] = field(default_factory=list)
    data: str = ""
    model: dict[str, Any] = field(default_factory=dict)


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
        BusyError: another run is at work in the folder.
        RecipeError: the folder holds a run of another recipe, or of a model that the preset no longer makes.
        CheckpointError: the last checkpoint is damaged.
        DatasetError: the data is missing or broken, or is not what the run began with.
        ModelFileError: the model file to start from is missing or damaged.
        DivergedError: `MOST_SKIPPED` steps in a row had no finite gradient.
        OutputError: the folder cannot be written.
    """
    with run_folder(folder, recipe, _FREE_SECTIONS) as resumed_from:
        return _train(recipe, data_root, folder, resumed_from)


def _train(recipe: Recipe, data_root: Path, folder: Path, resumed_from: Path | None) -> TrainingResult:
    torch.manual_seed(recipe.optimization.seed)
    config = preset(recipe.model.preset, recipe.model.classes, recipe.model.head)
    segmenter = Segmenter(config).to(memory_format=torch.channels_last)
    started, origins = ([], []) if resumed_from else _start(recipe, segmenter)
    data = open_data(recipe, data_root)
    # After what the input may lack: it is told once, as there are no other processes yet. Which heads a batch trains
    # depends on what it shows.
    fabric, precision = open_fabric(recipe.running, recipe.optimization, folder, unused_parameters=True)
    state = _State(origins=origins, data=_digest(data), model=config.to_json())
    run = _Run(fabric, recipe, folder, segmenter, data, state)
    if resumed_from is not None:
        run.restore(resumed_from)
        # Older checkpoints tell neither what the model was nor what the data was.
        if run.state.model and SegmenterConfig.from_json(run.state.model) != config:
            raise RecipeError(
                f"the run in {folder} began as another model than preset {recipe.model.preset!r} makes in this version "
                "of rs4d: finish it with the version that it began with, or give another --name"
            )
        if run.state.data not in ("", _digest(data)):
            raise DatasetError(
                f"the images or annotations are others than those that the run in {folder} began with: put these back, "
                "or give another --name"
            )
    with Journal(folder, recipe.optimization.steps, run.state.step, speaks=fabric.is_global_zero) as journal:
        sizes = ", ".join(f"{name} {len(samples)}" for name, samples in data.held_back.items())
        journal.say(
            f"{recipe.model.name}: {sum(p.numel() for p in segmenter.parameters()) / 1e6:.2f} M parameters, "
            f"{fabric.device}, precision {precision}, from step {run.state.step}; held back: {sizes or 'nothing'}"
        )
        for message in started:
            journal.say(message)
        with Interruption() as stop:
            # A step is not left half done, and a checkpoint is written before the run ends.
            stop.be_graceful()
            batches = load_batches(data, recipe, run.state.step, fabric.device, fabric.global_rank, fabric.world_size)
            # Closed: on the way out through an error, its workers would else be waited for, and never end.
            with closing(batches):
                finished = run.run(batches, journal, stop)
    final, best = folder / "final.safetensors", folder / "best.safetensors"
    if finished and fabric.is_global_zero:
        run.write_model(final)
    return TrainingResult(
        folder,
        run.state.step,
        final if finished else None,
        best if run.state.best_score >= 0 else None,
        run.state.metrics,
        interrupted=not finished,
        reports=fabric.is_global_zero,
    )


def _digest(data: RunData) -> str:
    """Another one where images have come, gone or got another name, or annotations have come or gone."""
    lists = [source.samples for source in data.sources if isinstance(source, CocoSource)]
    named = [
        [(Path(sample.name).name, len(sample.annotations)) for sample in samples]
        for samples in (*lists, *data.held_back.values())
    ]
    return hashlib.sha256(json.dumps(named).encode()).hexdigest()


def _start(recipe: Recipe, segmenter: Segmenter) -> tuple[list[str], list[dict[str, str]]]:
    """Take over the weights that the recipe starts from; what was taken, in words, and what it was trained on."""
    messages, origins, taken = [], [], []
    start, encoder = recipe.model.start, recipe.model.encoder
    if start:
        taken = load_weights_that_fit(Path(start), segmenter)
        messages.append(f"{len(taken)} of {len(segmenter.state_dict())} tensors start from {start}")
    if taken:
        origins += origins_of(read_card(Path(start)))
    if encoder:
        origins += origins_of(load_encoder_weights(Path(encoder), segmenter.encoder))
        replaced = any(name.startswith("encoder.") for name in taken)
        instead = f", in place of the trained one of {start}" if replaced else ""
        messages.append(f"the encoder starts from {encoder}{instead}")
    return messages, origins


class _Run(TrainingRun):
    def __init__(
        self, fabric: Fabric, recipe: Recipe, folder: Path, segmenter: Segmenter, data: RunData, state: _State
    ) -> None:
        super().__init__(fabric, recipe, folder, segmenter, _Losses(segmenter), state)
        self._data = data

    def losses(self, batch: tuple[Tensor, list[Target]]) -> dict[str, Tensor]:
        images, targets = batch
        return self._wrapped(
            images.float(),
            [{name: getattr(target, name) for name in Target.__dataclass_fields__} for target in targets],
        )

    def measures(self) -> bool:
        return bool(self._data.held_back)

    def measure(self, journal: Journal, stop: Interruption) -> bool:
        """The best model so far is kept: by the same images each time, even where more are measured at the end."""
        state, started, classes = self.state, time.monotonic(), self._recipe.model.classes
        most, last = self._recipe.evaluation.images, state.step == self._recipe.optimization.steps
        few = few_of(self._data.held_back, most)
        held_back = self._data.held_back if last else few
        predictions = predict_held_back(self._predict, held_back, self._data.fit_px, lambda: stop.requested)
        if predictions is None:
            return False
        metrics = measure_held_back(predictions, held_back, classes)
        state.metrics = {name: entry.to_json() for name, entry in metrics.items()}
        seconds = round(time.monotonic() - started, 1)
        journal.record({"step": state.step, "evaluation": state.metrics, "seconds": seconds})
        for name, entry in metrics.items():
            journal.say(
                f"step {state.step}, {name} ({counted(entry.images, 'image')}): "
                f"box AP50 {_shown(entry.box.ap50)}, mask AP50 {_shown(entry.mask.ap50)}, "
                f"box AP {_shown(entry.box.ap)}, mask AP {_shown(entry.mask.ap)}"
            )
        score = selection_score(metrics)
        if last and most is not None:
            score = selection_score(measure_held_back(few_of(predictions, most), few, classes))
        if score > state.best_score:
            state.best_score = score
            self.write_model(self._folder / "best.safetensors")
        return True

    def write_model(self, path: Path) -> None:
        """The averaged weights with their card."""
        card = build_card(self._recipe, self.average.config, self.state.metrics, self.state.origins)
        # Half the size, and what is lost lies below what bfloat16 loses in use.
        save_model(path, self.average, card, torch.float16)

    def _predict(self, images: Tensor) -> list[Instances]:
        # As many instances in a large image as the finished model finds there: its windows will be of this size.
        with self._fabric.autocast():
            return self.average.predict(
                images.to(self._fabric.device), usual_area_px=self._recipe.optimization.image_size**2
            )


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
