"""The folder of a run: its recipe as run, and the checkpoint that the same recipe goes on from."""

from pathlib import Path
from typing import Any

from rs4d_core.errors import OutputError, RecipeError
from rs4d_core.runs.checkpoint import checkpoints, read_state
from rs4d_core.runs.tables import differences, from_table, to_toml
from rs4d_core.whole_file import write_whole


def prepare_folder(folder: Path, recipe: Any, free: tuple[str, ...]) -> Path | None:
    """Make the run folder, or check that it is this recipe's; the checkpoint to go on from.

    Args:
        recipe: a dataclass of settings.
        free: beginnings of the settings that a resumed run may change, as they do not touch the weights.

    Raises:
        RecipeError: the folder holds a run of another recipe.
        CheckpointError: the last checkpoint is damaged.
        OutputError: the folder cannot be written.
    """
    saved = checkpoints(folder / "checkpoints")
    if saved:
        before = from_table(type(recipe), read_state(saved[-1])["recipe"])
        changed = [name for name in differences(before, recipe) if not name.startswith(free)]
        if changed:
            raise RecipeError(
                f"{folder} holds a run with other settings ({', '.join(changed)}): give another --name, or remove it"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / "recipe.toml", to_toml(recipe).encode())
        if not saved:
            # Of a run that ended before its first checkpoint, and now begins again.
            (folder / "metrics.jsonl").unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write to the run folder {folder} ({error}): give another one with --runs") from error
    return saved[-1] if saved else None
