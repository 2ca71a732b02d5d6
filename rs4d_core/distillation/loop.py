"""Distil a teacher's encoder into a student's, by a recipe: resumable to the bit."""

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from rs4d_core.distillation.corruption import Difficulty, TokenErrors, add_noise, choose_hidden, hide_tokens
from rs4d_core.distillation.data import Batch, TrainingViews, show
from rs4d_core.distillation.map_cache import MapCache
from rs4d_core.distillation.pictures import draw_curve, draw_maps
from rs4d_core.distillation.recipe import DistillationRecipe
from rs4d_core.distillation.teacher import Teacher, open_teacher
from rs4d_core.distillation.views import ImageFile, View, find_images, images_as_json, saved_images, split, views_of
from rs4d_core.errors import OutputError, RS4DError
from rs4d_core.interruption import Interruption
from rs4d_core.models.config import PIXEL_MEAN, PIXEL_STD, preset
from rs4d_core.models.encoder import PATCH, Encoder
from rs4d_core.models.encoder_card import EncoderCard
from rs4d_core.models.encoder_file import save_encoder
from rs4d_core.runs.fabric import open_fabric
from rs4d_core.runs.folder import run_folder
from rs4d_core.runs.journal import Journal
from rs4d_core.runs.loading import load_numbered
from rs4d_core.runs.loop import Counters, TrainingRun
from rs4d_core.whole_file import write_whole

ENCODER_FILE = "encoder.safetensors"
RESULT_FILE = "result.json"
_FREE_SECTIONS = ("running.", "evaluation.", "ablation.", "teacher.cache")
"""Settings that a resumed run may change: they touch the weights only as far as other devices compute otherwise."""
_DRAWN_MAPS = 4


@dataclass(frozen=True)
class DistillationResult:
    """How a run ended.

    Attributes:
        step: optimizer steps done.
        encoder: file with the averaged weights, as last measured; None where nothing was written yet.
        start_l1, l1: of the held-back views without corruption, before the first step and as last measured; None where
            nothing is held back.
        images, views: that were trained on.
        unreadable: images that could not be read.
        reports: whether this process is the one, of all that trained together, that tells the result.
    """

    folder: Path
    step: int
    encoder: Path | None
    start_l1: float | None
    l1: float | None
    images: int
    views: int
    unreadable: int
    interrupted: bool
    reports: bool

    def to_json(self) -> dict[str, Any]:
        """The result as plain numbers and strings."""
        fields = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        return {name: value for name, value in fields.items() if name != "reports"}


@dataclass
class _State(Counters):
    difficulty: Difficulty = field(default_factory=Difficulty)
    failed: list[str] = field(default_factory=list)
    start_l1: float | None = None
    l1: float | None = None

    def __post_init__(self) -> None:
        if isinstance(self.difficulty, dict):  # as a checkpoint keeps it
            self.difficulty = Difficulty(**self.difficulty)


class _Learner(nn.Module):
    """The student encoder, and where the teacher's maps have another number of channels, a projection to them that
    lives in training only."""

    def __init__(self, encoder: Encoder, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        own = encoder.config.dim
        self.projection = nn.Identity() if own == dim else nn.Conv2d(own, dim, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images `(B, 3, S, S)` to maps `(B, dim, S/16, S/16)`."""
        return self.projection(self.encoder(images).last)


def distil(recipe: DistillationRecipe, data_root: Path, folder: Path) -> DistillationResult:
    """Run the recipe in the run folder `folder`, or go on from its last checkpoint.

    The folder holds the recipe as run, `images.json` (the images found when the run began), `log.txt`,
    `metrics.jsonl`, `checkpoints/`, `curve.png`, `maps.png`, `encoder.safetensors` and, at the end, `result.json`. The
    first Ctrl-C or SIGTERM ends the run after the step at hand, with a checkpoint.

    Raises:
        BusyError: another run is at work in the folder.
        RecipeError: the folder holds a run of another recipe.
        CheckpointError: the last checkpoint is damaged.
        DatasetError: there are no images.
        ModelFileError: the teacher is missing or damaged.
        DivergedError: the losses or gradients have become infinite or undefined, and stay so.
        OutputError: the folder or the cache cannot be written.
    """
    with run_folder(folder, recipe, _FREE_SECTIONS) as resumed_from:
        return _distil(recipe, data_root, folder, resumed_from)


def _distil(recipe: DistillationRecipe, data_root: Path, folder: Path, resumed_from: Path | None) -> DistillationResult:
    fabric, precision = open_fabric(recipe.running, recipe.optimization, folder, unused_parameters=False)
    size, bands = recipe.optimization.image_size, recipe.images.bands
    teacher = open_teacher(recipe.teacher, size, str(fabric.device), precision)
    images, unreadable = _images(fabric, recipe, data_root, folder)
    training, held_back = split(images, recipe.images.held_back, recipe.images.seed)
    views = [view for image in training for view in views_of(image, size)]
    torch.manual_seed(recipe.optimization.seed)
    encoder = Encoder(preset(recipe.student.preset, ("none",)).encoder).to(memory_format=torch.channels_last)
    learner = _Learner(encoder, teacher.dim)
    run = _Run(fabric, recipe, folder, learner, teacher, views, _held_back_views(held_back, recipe))
    if resumed_from is not None:
        run.restore(resumed_from)
    with Journal(folder, recipe.optimization.steps, run.state.step, speaks=fabric.is_global_zero) as journal:
        journal.say(
            f"{recipe.student.name}: {sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters, learns "
            f"from {teacher.name}, {fabric.device}, precision {precision}, from step {run.state.step}; "
            f"{len(training)} images in {len(views)} views, {len(held_back)} held back, {len(unreadable)} left out"
        )
        for reason in unreadable.values() if resumed_from is None else ():
            journal.say(f"left out: {reason}")
        with Interruption() as stop:
            # A step is not left half done, and a checkpoint is written before the run ends.
            stop.be_graceful()
            settings = recipe.optimization
            numbered = TrainingViews(views, size, bands, settings.batch, settings.seed)
            rank, ranks, workers = fabric.global_rank, fabric.world_size, recipe.running.workers
            loaded = load_numbered(numbered, settings, run.state.step, workers, rank, ranks)
            # Closed: on the way out through an error, its workers would else be waited for, and never end.
            with closing(loaded):
                finished = run.run(map(Batch.of, loaded), journal, stop)
            run.close()
            if finished and fabric.is_global_zero:
                run.write_encoder()
    state = run.state
    result = DistillationResult(
        folder,
        state.step,
        folder / ENCODER_FILE if finished or state.l1 is not None else None,
        state.start_l1,
        state.l1,
        len(training),
        len(views),
        len(unreadable) + len(state.failed),
        interrupted=not finished,
        reports=fabric.is_global_zero,
    )
    if finished and result.reports:
        _write(folder / RESULT_FILE, json.dumps(result.to_json(), indent=1).encode())
    return result


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error}): make room, then start again") from error


def _images(
    fabric: Fabric, recipe: DistillationRecipe, data_root: Path, folder: Path
) -> tuple[list[ImageFile], dict[str, str]]:
    """The run's images. The first process finds them, once; the others, and resumed runs, read what it found."""
    listed = folder / "images.json"
    with fabric.rank_zero_first():
        if not listed.exists():
            found = find_images(data_root, recipe.images.folders, recipe.images.bands)
            _write(listed, images_as_json(*found, data_root))
        return saved_images(listed, data_root)


def _held_back_views(held_back: list[ImageFile], recipe: DistillationRecipe) -> list[View]:
    """At most as many as are measured: some of every image, rather than all of a few."""
    size, most = recipe.optimization.image_size, recipe.evaluation.views
    views = [view for image in held_back for view in views_of(image, size)]
    if len(views) > most:
        chosen = np.random.default_rng(recipe.images.seed).permutation(len(views))[:most]
        views = [views[index] for index in sorted(chosen.tolist())]
    return views


class _Run(TrainingRun):
    measures_start = True

    def __init__(
        self,
        fabric: Fabric,
        recipe: DistillationRecipe,
        folder: Path,
        learner: _Learner,
        teacher: Teacher,
        views: list[View],
        held_back: list[View],
    ) -> None:
        super().__init__(fabric, recipe, folder, learner, learner, _State())
        self._teacher, self._views, self._held_back = teacher, views, held_back
        cache = recipe.teacher.cache
        self._cache = MapCache(Path(cache), teacher.identity) if cache else None
        if self._cache is not None:
            self._cache.prepare()
        self._pixel_mean = torch.tensor(PIXEL_MEAN, device=fabric.device).view(1, 3, 1, 1)
        self._pixel_std = torch.tensor(PIXEL_STD, device=fabric.device).view(1, 3, 1, 1)
        self._errors: TokenErrors | None = None
        self._batch: Batch | None = None
        self._batch_errors: Tensor | None = None
        if recipe.corruption.masking == "learned":
            self._errors = TokenErrors(len(views), recipe.optimization.image_size // PATCH)
            self.memory["errors"] = self._errors.grid

    def restore(self, checkpoint: Path) -> None:
        super().restore(checkpoint)
        if self._errors is not None:
            self._errors.grid = self.memory["errors"]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        device = self._fabric.device
        images, shown = batch.images.to(device, torch.float32), batch.shown.to(device)
        target = self._teacher_maps(images, [entry.key for entry in batch.entries])
        noise, mask = self._percentages()
        # Each view has a generator of its own, so that what it gets does not depend on the processes.
        generators = [self._generator(entry.place) for entry in batch.entries]
        corrupted = add_noise(self._normalised(images), noise, generators)
        errors = None
        if self._errors is not None:
            errors = self._errors.of([entry.view for entry in batch.entries], *shown.shape[1:]).to(device)
        corrupted = hide_tokens(corrupted, choose_hidden(shown, mask, errors, generators))
        token_errors = (self._wrapped(corrupted).float() - target).abs().mean(1)
        self._batch, self._batch_errors = batch, token_errors.detach()
        return {"l1": _mean_over_shown(token_errors, shown).mean()}

    def learned(self, values: dict[str, float], journal: Journal) -> None:
        self.state.difficulty.learn(values["l1"])
        entries = self._batch.entries
        if self._errors is not None:
            coarse = self._errors.coarse(self._batch_errors)
            views = torch.tensor([entry.view for entry in entries], device=coarse.device)
            if self._fabric.world_size > 1:
                # In the order of their places: it matters where a small set shows a view twice in a batch.
                coarse, views = _gathered(coarse), _gathered(views)
            self._errors.learn(views.tolist(), coarse)
        for view, reason in (failure for entry in entries for failure in entry.failed):
            name = str(self._views[view].image.path)
            if name not in self.state.failed:
                self.state.failed.append(name)
                journal.say(f"skipped: {reason}")

    def progress(self) -> dict[str, float]:
        noise, mask = self._percentages()
        return {"noise": round(noise, 3), "mask": round(mask, 3), "unreadable": len(self.state.failed)}

    def measures(self) -> bool:
        return bool(self._held_back)

    def measure(self, journal: Journal, stop: Interruption) -> bool:
        started, size, bands = time.monotonic(), self._recipe.optimization.image_size, self._recipe.images.bands
        errors, drawn = [], []
        for shown in _readable(self._held_back, size, bands, journal):
            if stop.requested:
                return False
            images = shown.images.to(self._fabric.device, torch.float32)
            target = self._teacher_maps(images, [entry.key for entry in shown.entries])
            with torch.inference_mode(), self._fabric.autocast():
                found = self.average(self._normalised(images)).float()
            error = _mean_over_shown((found - target).abs().mean(1), shown.shown.to(found.device))
            errors.append(float(error))
            drawn.append((shown.images, target.cpu(), found.cpu()))
        if not errors:
            journal.say("no held-back image can be read: nothing is measured")
            return True
        self.state.l1 = float(np.mean(errors))
        if self.state.step == 0:
            self.state.start_l1 = self.state.l1
        entry = {"step": self.state.step, "held_back_l1": self.state.l1, "views": len(errors)}
        journal.record({**entry, "seconds": round(time.monotonic() - started, 1)})
        journal.say(f"step {self.state.step}: L1 {self.state.l1:.4f} on {len(errors)} held-back views, clean")
        every = max(1, len(drawn) // _DRAWN_MAPS)
        draw_maps(
            *(torch.cat(part) for part in zip(*drawn[::every][:_DRAWN_MAPS], strict=True)), self._folder / "maps.png"
        )
        draw_curve(self._folder / "metrics.jsonl", self._folder / "curve.png")
        self.write_encoder()
        return True

    def write_encoder(self) -> None:
        """The averaged encoder with its card."""
        state = self.state
        card = EncoderCard(
            name=self._recipe.student.name,
            config=self.average.encoder.config,
            source=f"distilled from {self._teacher.name}",
            image_size=self._recipe.optimization.image_size,
            training_data=self._recipe.images.folders,
            corruption=asdict(self._recipe.corruption),
            metrics={"step": state.step, "start_l1": state.start_l1, "l1": state.l1},
        )
        # Half the size, and what is lost lies below what bfloat16 loses in use.
        save_encoder(self._folder / ENCODER_FILE, self.average.encoder, card, torch.float16)

    def close(self) -> None:
        """Keep the teacher maps that are not on the disk yet."""
        if self._cache is not None:
            self._cache.flush()

    def _teacher_maps(self, images: Tensor, keys: list[str]) -> Tensor:
        """The teacher's maps of clean images `(B, 3, S, S)`, 0..255."""
        cache = self._cache
        if cache is None:
            return self._teacher.maps(images)
        maps = []
        for image, key in zip(images, keys, strict=True):
            found = cache.get(key)
            if found is None:
                # Alone and rounded, as it will be read again: a map must not depend on what else was in its batch.
                found = self._teacher.maps(image[None])[0].to("cpu", torch.float16)
                cache.put(key, found)
            maps.append(found)
        return torch.stack(maps).to(images.device, torch.float32)

    def _percentages(self) -> tuple[float, float]:
        """Noise and mask of the next step."""
        settings = self._recipe.corruption
        level = 1.0 if settings.schedule == "constant" else self.state.difficulty.level(settings.full_at)
        return level * settings.noise, level * settings.mask

    def _generator(self, place: int) -> torch.Generator:
        words = np.random.SeedSequence([self._recipe.optimization.seed, self.state.step, place]).generate_state(2)
        return torch.Generator(self._fabric.device).manual_seed(int(words[0]) << 31 | int(words[1]) >> 1)

    def _normalised(self, images: Tensor) -> Tensor:
        return (images - self._pixel_mean) / self._pixel_std


def _gathered(part: Tensor) -> Tensor:
    """Every process's `(n, ...)`, in the order of the processes, as one tensor."""
    parts = [torch.empty_like(part) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)


def _readable(views: list[View], size: int, bands: tuple[int, ...] | None, journal: Journal) -> Iterator[Batch]:
    """Held-back views, one at a time, so that the figure does not depend on a batch."""
    for number in range(len(views)):
        try:
            yield Batch.of([show(views, number, 0, size, bands)])
        except RS4DError as error:
            journal.say(f"not measured: {error}")


def _mean_over_shown(token_errors: Tensor, shown: Tensor) -> Tensor:
    """Of each image `(B, h, w)`, the mean over its shown tokens: `(B,)`."""
    return (token_errors * shown).sum((1, 2)) / shown.sum((1, 2))
