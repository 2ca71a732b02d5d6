"""The recipes that come along: their commands accept them, their models can be built, their data is as prepared."""

from pathlib import Path

import pytest
import torch

from rs4d_core.datasets.catalog import CATALOG
from rs4d_core.distillation.recipe import DistillationRecipe, SamChoice
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.models.config import HEADS, preset
from rs4d_core.models.encoder import Encoder
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.runs.tables import read_settings

RECIPES = sorted((Path(__file__).resolve().parents[2] / "training" / "recipes").glob("*.toml"))
DISTILLATIONS = [path for path in RECIPES if "[student]" in path.read_text(encoding="utf-8")]
PUBLIC = [path for path in RECIPES if path.stem in {f"{name}-{head}" for name in CATALOG for head in HEADS}]


def named(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=[path.stem for path in paths])


@named(DISTILLATIONS)
def test_a_distillation_has_a_student_that_can_be_built(path):
    recipe = read_settings(DistillationRecipe, path)
    with torch.device("meta"):
        encoder = Encoder(preset(recipe.student.preset, ("object",)).encoder)
    if isinstance(recipe.teacher, SamChoice):
        assert encoder.config.dim == 256  # SAM's maps: they are compared without a projection
    assert recipe.student.name == path.stem


@named([path for path in RECIPES if path not in DISTILLATIONS])
def test_a_fine_tuning_has_a_model_that_can_be_built(path):
    recipe = read_settings(Recipe, path)
    with torch.device("meta"):
        Segmenter(preset(recipe.model.preset, recipe.model.classes, recipe.model.head))
    assert any(data.held_back for data in recipe.datasets)


@named(PUBLIC)
def test_a_public_data_set_is_read_as_it_is_prepared_and_trained_by_the_public_settings(path):
    recipe, public = read_settings(Recipe, path), CATALOG[path.stem.split("-")[0]]
    (data,) = recipe.datasets
    assert recipe.model.classes == public.classes
    assert data.licence == public.licence
    folder = path.stem.split("-")[0]
    assert (data.annotations, data.images) == (f"{folder}/train.json", f"{folder}/images")
    assert data.held_back.annotations == f"{folder}/val.json"
    settings = recipe.optimization
    assert (settings.lr, settings.weight_decay, settings.final_lr) == (1e-4, 0.05, 1e-7)
    assert (settings.warmup_steps, settings.batch, settings.image_size) == (50, 4, 1024)
    assert (data.scale, data.fit, data.turn, data.color) == ((0.1, 2.0), True, False, 0.0)
    epochs = settings.steps * settings.batch / public.images["train"]
    assert epochs == 800 or public is CATALOG["whu"]


def test_each_public_data_set_has_a_recipe_for_both_heads():
    assert len(PUBLIC) == len(CATALOG) * len(HEADS)
    assert {f"distill-{size}" for size in ("base", "large", "huge")} <= {path.stem for path in DISTILLATIONS}
