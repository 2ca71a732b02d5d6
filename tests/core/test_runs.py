"""What all training runs share: their folder, their end, and what their models' cards say."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
from lightning_fabric.utilities.rank_zero import rank_zero_only
from small_runs import ROOT, metrics_of, start, write_finetuning

from rs4d_core.errors import DatasetError, RecipeError
from rs4d_core.finetuning import loop
from rs4d_core.finetuning.data import open_data
from rs4d_core.finetuning.loop import train
from rs4d_core.finetuning.measuring import build_card, few_of, origins_of
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.models.card import default_model_path, read_card
from rs4d_core.models.config import preset
from rs4d_core.models.encoder_card import EncoderCard
from rs4d_core.runs.checkpoint import checkpoints
from rs4d_core.runs.fabric import resolve_precision
from rs4d_core.runs.folder import run_folder
from rs4d_core.runs.tables import differences, read_settings

SHIPPED_RECIPE = ROOT / "training" / "recipes" / "tiny.toml"


def recipe_of(data: Path, *overrides: str) -> Recipe:
    return read_settings(Recipe, data / "squares.toml", overrides)


def test_a_folder_without_a_checkpoint_keeps_nothing_of_the_run_before(tmp_path):
    recipe = read_settings(Recipe, SHIPPED_RECIPE)
    records = [tmp_path / name for name in ("metrics.jsonl", "images.json", "precision.json", "result.json")]
    for record in records:
        record.write_text("{}")
    with run_folder(tmp_path, recipe, ()) as resumed_from:
        assert resumed_from is None
        assert not any(record.exists() for record in records)


def test_of_several_processes_the_first_alone_writes_into_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with run_folder(tmp_path / "run", read_settings(Recipe, SHIPPED_RECIPE), ()):
        assert resolve_precision("auto", "cpu", tmp_path / "run" / "precision.json") in ("32", "bf16")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_text_may_look_like_a_number_and_the_order_of_data_sets_is_a_setting():
    recipe = read_settings(Recipe, SHIPPED_RECIPE, ["optimization.precision=32", "model.name=7.10"])
    assert (recipe.optimization.precision, recipe.model.name) == ("32", "7.10")
    assert differences(recipe, dataclasses.replace(recipe, datasets=recipe.datasets[::-1])) == ["order of datasets"]


def test_a_process_of_several_that_cannot_read_an_image_ends_the_run_with_one_line_and_a_checkpoint(tmp_path):
    write_finetuning(tmp_path)
    image = tmp_path / "images" / "2.png"  # of the second process, in the second step
    image.write_bytes(image.read_bytes()[:-2000])
    settings = "running.devices=2", "running.checkpoint_steps=100", "optimization.steps=100"
    words = (word for setting in settings for word in ("--set", setting))
    run = start("finetune", tmp_path / "squares.toml", tmp_path, tmp_path / "runs", *words)
    output, errors = run.communicate(timeout=240)
    told = [line for line in errors.splitlines() if line.startswith("error:")]
    assert (run.returncode, output, len(told)) == (2, "", 1), errors
    assert "2.png" in told[0]
    assert "Traceback" not in errors
    saved = checkpoints(tmp_path / "runs" / "squares" / "checkpoints")
    steps = [line["step"] for line in metrics_of(tmp_path / "runs" / "squares")]
    assert [path.name for path in saved] == [f"step-{steps[-1]:09d}.safetensors"]


@pytest.fixture(scope="module")
def started(tmp_path_factory) -> tuple[Path, Path]:
    """Data, and the folder of a run that starts from the default model, learns nothing, and measures twice."""
    data = tmp_path_factory.mktemp("data")
    write_finetuning(data)
    card = read_card(default_model_path())
    settings = "steps=2", "warmup_steps=0", "lr=1e-30", "weight_decay=0.0"
    recipe = recipe_of(
        data,
        *(f"optimization.{setting}" for setting in settings),
        f"model.start={json.dumps(str(default_model_path()))}",
        f"model.classes={json.dumps(card.classes)}",
        f"model.colors={json.dumps([color.upper() for color in card.colors])}",
        "evaluation.every=1",
        "evaluation.images=1",
    )
    # The one image that both measurements choose by has an instance that no model can find.
    chosen = few_of(open_data(recipe, data).held_back, 1)["squares"][0]
    content = json.loads((data / "squares.json").read_text())
    hidden = {"id": 1000, "image_id": chosen.image_id, "category_id": 1, "bbox": [31, 2, 12, 12], "iscrowd": 0}
    hidden |= {"segmentation": [[31, 2, 43, 2, 43, 14, 31, 14]], "area": 144}
    (data / "squares.json").write_text(json.dumps(content | {"annotations": [*content["annotations"], hidden]}))
    folder = tmp_path_factory.mktemp("runs") / "started"
    train(recipe, data, folder)
    return data, folder


def test_the_best_model_is_chosen_by_the_same_images_each_time(started):
    measured = [line["evaluation"] for line in metrics_of(started[1]) if "evaluation" in line]
    assert [figures["all"]["images"] for figures in measured] == [1, 2]
    few, every = (figures["all"]["mask"]["ap"] for figures in measured)
    assert 0 < few < every, "by all images, the model that is the same would seem better"
    assert read_card(started[1] / "best.safetensors").metrics["all"]["images"] == 1
    assert read_card(started[1] / "final.safetensors").metrics["all"]["images"] == 2


def test_as_many_of_any_lists_of_one_length_are_the_same_ones():
    numbers, letters = list(range(26)), [chr(97 + number) for number in range(26)]
    few = few_of({"numbers": numbers, "letters": letters, "short": [1]}, 4)
    assert few["letters"] == [chr(97 + number) for number in few["numbers"]]
    assert few["numbers"] == sorted(few["numbers"]) != numbers[:4]
    assert (len(few["numbers"]), few["short"]) == (4, [1])
    assert few_of({"numbers": numbers}, None) == {"numbers": numbers}


def test_a_card_tells_what_the_model_that_was_started_from_was_trained_on(started):
    card, default = read_card(started[1] / "final.safetensors"), read_card(default_model_path())
    own, *origins = card.training_data
    assert own == {"name": "squares", "licence": "generated"}
    assert origins == [{**data, "via": "rs4d-tiny"} for data in default.training_data]
    assert origins_of(card) == [{**own, "via": "squares"}, *origins]


def test_a_card_names_a_data_set_once(started):
    recipe, default = read_settings(Recipe, SHIPPED_RECIPE), read_card(default_model_path())
    assert build_card(recipe, default.config, {}, origins_of(default)).training_data == default.training_data


def test_a_card_tells_what_the_encoder_learned_from():
    card = EncoderCard("pupil", preset("tiny", ("ship",)).encoder, "distilled from teacher", 64, ("a", "b"))
    via = {"licence": "not told", "via": "pupil, distilled from teacher"}
    assert origins_of(card) == [{"name": "a", **via}, {"name": "b", **via}]


def test_a_run_that_began_as_another_model_is_not_gone_on_with(started, tmp_path, monkeypatch):
    data, folder = started
    shutil.copytree(folder, tmp_path / "run")
    monkeypatch.setattr(loop, "preset", lambda *names: dataclasses.replace(preset(*names), second_look=False))
    with pytest.raises(RecipeError, match="another model than preset 'tiny' makes"):
        train(read_settings(Recipe, folder / "recipe.toml"), data, tmp_path / "run")


def test_a_resumed_run_notices_that_its_data_has_changed(started, tmp_path):
    data, folder = started
    shutil.copytree(folder, tmp_path / "run")
    (tmp_path / "data").mkdir()
    os.symlink(data / "images", tmp_path / "data" / "images")
    content = json.loads((data / "squares.json").read_text())
    content["annotations"].pop()
    (tmp_path / "data" / "squares.json").write_text(json.dumps(content))
    recipe = read_settings(Recipe, folder / "recipe.toml")
    with pytest.raises(DatasetError, match=r"others than those that the run in .* began with"):
        train(recipe, tmp_path / "data", tmp_path / "run")
