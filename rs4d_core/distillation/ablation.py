"""How much noise and masking help: a grid of short distillations, alike but for their corruption, in one table."""

import csv
import io
import itertools
import json
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rs4d_core.distillation.loop import ENCODER_FILE, RESULT_FILE
from rs4d_core.distillation.recipe import DistillationRecipe
from rs4d_core.errors import OutputError, RunFailedError
from rs4d_core.runs.folder import one_run_at_a_time
from rs4d_core.runs.tables import read_settings, to_toml
from rs4d_core.whole_file import write_whole

_MASKING = {"constant": "uniform", "adaptive": "learned"}


@dataclass(frozen=True)
class Cell:
    """One distillation of the grid: noise and mask in percent, and how it differs from the recipe."""

    schedule: str
    noise: float
    mask: float

    @property
    def name(self) -> str:
        """Of its run folder. Without noise and mask there is nothing to schedule: one run stands for all."""
        if not self.noise and not self.mask:
            return "clean"
        return f"{self.schedule}-noise{self.noise:g}-mask{self.mask:g}"

    @property
    def overrides(self) -> list[str]:
        schedule = "constant" if self.name == "clean" else self.schedule
        settings = {"noise": self.noise, "mask": self.mask}
        settings |= {"schedule": json.dumps(schedule), "masking": json.dumps(_MASKING[schedule])}
        return [f"corruption.{name}={value}" for name, value in settings.items()]


@dataclass(frozen=True)
class AblationResult:
    """The tables, and whether the grid is complete."""

    folder: Path
    csv: Path
    markdown: Path
    cells: int
    interrupted: bool


def cells_of(recipe: DistillationRecipe) -> list[Cell]:
    """The grid, by schedule, noise and mask."""
    grid = recipe.ablation
    return [Cell(*place) for place in itertools.product(grid.schedules, grid.noise, grid.mask)]


def run_ablation(
    recipe: DistillationRecipe, recipe_path: Path, overrides: list[str], command: list[str], folder: Path
) -> AblationResult:
    """Run the grid's distillations that are not done yet, one after another, and rewrite the tables after each.

    A finished cell keeps its encoder, its figures and its curve, not its checkpoints; one that was stopped goes on from
    its last checkpoint.

    Args:
        recipe: what is read from `recipe_path` with `overrides`.
        command: distils by a recipe, `command + [recipe, "--set", ..., "--runs", ..., "--name", ...]`, in a process of
            its own: that frees its memory, and may launch others for more devices.

    Raises:
        BusyError: another process runs this grid.
        RunFailedError: a distillation failed.
        OutputError: the tables cannot be written.
    """
    with one_run_at_a_time(folder):
        return _run_cells(cells_of(recipe), recipe_path, overrides, command, folder)


def _run_cells(
    cells: list[Cell], recipe_path: Path, overrides: list[str], command: list[str], folder: Path
) -> AblationResult:
    results: dict[str, dict] = {}
    for cell in cells:
        own = folder / cell.name
        expected = read_settings(DistillationRecipe, recipe_path, [*overrides, *cell.overrides])
        if not _done(own, expected):
            settings = itertools.chain.from_iterable(("--set", entry) for entry in [*overrides, *cell.overrides])
            process = subprocess.Popen(
                [*command, str(recipe_path), *settings, "--runs", str(folder), "--name", cell.name],
                stdout=subprocess.DEVNULL,
            )
            try:
                status = process.wait()
            except BaseException:
                process.terminate()
                process.wait()
                raise
            if status == 130:
                return _result(folder, cells, results, interrupted=True)
            if status or not _done(own, expected):
                raise RunFailedError(f"the distillation {own} failed (exit status {status}): see the lines above")
            shutil.rmtree(own / "checkpoints", ignore_errors=True)
        results[cell.name] = json.loads((own / RESULT_FILE).read_text(encoding="utf-8"))
        _write_tables(folder, cells, results)
    return _result(folder, cells, results, interrupted=False)


def _done(folder: Path, recipe: DistillationRecipe) -> bool:
    files = folder / RESULT_FILE, folder / ENCODER_FILE, folder / "recipe.toml"
    return all(file.exists() for file in files) and files[2].read_text(encoding="utf-8") == to_toml(recipe)


def _result(folder: Path, cells: list[Cell], results: dict[str, dict], interrupted: bool) -> AblationResult:
    done = sum(cell.name in results for cell in cells)
    return AblationResult(folder, folder / "ablation.csv", folder / "ablation.md", done, interrupted)


def _write_tables(folder: Path, cells: list[Cell], results: dict[str, dict]) -> None:
    try:
        write_whole(folder / "ablation.csv", _csv(cells, results).encode())
        write_whole(folder / "ablation.md", ("\n".join(_markdown(cells, results)) + "\n").encode())
    except OSError as error:
        raise OutputError(f"cannot write the tables in {folder} ({error}); make room, then start again") from error


def _csv(cells: list[Cell], results: dict[str, dict]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["schedule", "noise", "mask", "start_l1", "l1", "steps", "views"])
    for cell in cells:
        if cell.name in results:
            found = results[cell.name]
            figures = [found[name] for name in ("start_l1", "l1", "step", "views")]
            rows.writerow([cell.schedule, f"{cell.noise:g}", f"{cell.mask:g}", *figures])
    return text.getvalue()


def _markdown(cells: list[Cell], results: dict[str, dict]) -> Iterator[str]:
    first = next(iter(results.values()))
    yield (
        f"L1 of held-back views without corruption after {first['step']} steps; "
        f"{_shown(first['start_l1'])} before the first."
    )
    noises, masks = _values(cell.noise for cell in cells), _values(cell.mask for cell in cells)
    for schedule in dict.fromkeys(cell.schedule for cell in cells):
        yield from ("", f"| {schedule} | " + " | ".join(f"noise {noise:g} %" for noise in noises) + " |")
        yield "|---|" + "---|" * len(noises)
        for mask in masks:
            found = [results.get(Cell(schedule, noise, mask).name, {}).get("l1") for noise in noises]
            yield f"| mask {mask:g} % | " + " | ".join(map(_shown, found)) + " |"


def _values(values: Iterable[float]) -> list[float]:
    return list(dict.fromkeys(values))


def _shown(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:.4f}"
