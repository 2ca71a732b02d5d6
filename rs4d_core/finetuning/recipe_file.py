"""Fine-tuning recipes from TOML files."""

from collections.abc import Iterable
from pathlib import Path

from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.runs.tables import read_settings


def read_recipe(path: Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe and apply overrides such as `optimization.lr=1e-4` or `datasets.nwpu.weight=0.5`.

    Raises:
        RecipeError: no such file, not TOML, an unknown key, or a value that cannot work.
    """
    return read_settings(Recipe, path, overrides)
