"""The folder of a run: its recipe as run, the checkpoint that the same recipe goes on from, and one run at a time."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning_fabric.utilities.rank_zero import rank_zero_only

from rs4d_core.errors import OutputError, RecipeError
from rs4d_core.runs.checkpoint import checkpoints, read_state
from rs4d_core.runs.tables import differences, from_table, to_toml
from rs4d_core.sole_use import sole_use
from rs4d_core.whole_file import write_whole

LOCK_FILE = ".lock"
_RECORDS = ("metrics.jsonl", "precision.json", "images.json", "result.json")
"""What a run has found and decided so far. Without a checkpoint it begins anew, perhaps by another recipe."""


@contextmanager
def run_folder(folder: Path, recipe: Any, free: tuple[str, ...]) -> Iterator[Path | None]:
    """The run folder, made or checked to be this recipe's, and no other run's while the context is open.

    Args:
        recipe: a dataclass of settings.
        free: beginnings of the settings that a resumed run may change, as they do not touch the weights.

    Yields:
        The checkpoint to go on from.

    Raises:
        BusyError: another run is at work in it.
        RecipeError: the folder holds a run of another recipe.
        CheckpointError: the last checkpoint is damaged.
        OutputError: the folder cannot be written.
    """
    with one_run_at_a_time(folder):
        yield _prepare(folder, recipe, free)


def one_run_at_a_time(folder: Path) -> AbstractContextManager[None]:
    """Make the folder, and hold it for this run. Of several processes of one run, the first holds it for all.

    Raises:
        BusyError: another run is at work in it.
        OutputError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(folder, error) from error
    if rank_zero_only.rank:
        return nullcontext()
    return sole_use(
        folder / LOCK_FILE, f"another process is at work in {folder}: wait for its end, or give another --name"
    )


def _unwritable(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write to the run folder {folder} ({error}): give another one with --runs")


def _prepare(folder: Path, recipe: Any, free: tuple[str, ...]) -> Path | None:
    """Check that the folder is this recipe's; the checkpoint to go on from. Only the first process writes."""
    saved = checkpoints(folder / "checkpoints")
    if saved:
        before = from_table(type(recipe), read_state(saved[-1])["recipe"])
        changed = [name for name in differences(before, recipe) if not name.startswith(free)]
        if changed:
            raise RecipeError(
                f"{folder} holds a run with other settings ({', '.join(changed)}): give another --name, or remove it"
            )
    if not rank_zero_only.rank:
        try:
            write_whole(folder / "recipe.toml", to_toml(recipe).encode())
            for name in () if saved else _RECORDS:
                (folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise _unwritable(folder, error) from error
    return saved[-1] if saved else None
