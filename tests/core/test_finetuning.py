import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from small_runs import FINETUNING, ROOT, RUNNING, kill_after, metrics_of, start, wait_for_steps, write_finetuning
from torch import nn
from training_script import run_script

from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.datasets.synthetic import SYNTHETIC_CLASSES
from rs4d_core.datasets.transforms import TransformSettings, load_training_image
from rs4d_core.errors import CheckpointError, DatasetError, DivergedError, OutputError, RecipeError
from rs4d_core.finetuning.data import CocoSource, SyntheticSource, fresh_scenes, load_batches, open_data
from rs4d_core.finetuning.loop import train
from rs4d_core.finetuning.recipe import HeldBack, Optimization, Recipe
from rs4d_core.finetuning.splits import split
from rs4d_core.models.card import read_card
from rs4d_core.models.checkpoint import load_model, save_model
from rs4d_core.runs.checkpoint import checkpoints
from rs4d_core.runs.journal import Journal
from rs4d_core.runs.schedule import WeightAverage, build_optimizer, learning_rate
from rs4d_core.runs.tables import differences, read_settings, to_toml

SHIPPED_RECIPE = ROOT / "training" / "recipes" / "tiny.toml"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_finetuning(folder)
    return folder


def recipe_of(data: Path, *overrides: str) -> Recipe:
    return read_settings(Recipe, data / "squares.toml", overrides)


# The recipe


def test_the_shipped_recipe_survives_being_written_as_run(tmp_path):
    recipe = read_settings(
        Recipe, SHIPPED_RECIPE, ["optimization.lr=1e-5", "model.preset=small", "datasets.nwpu.weight=2"]
    )
    assert recipe.optimization.lr == 1e-5
    assert recipe.model.preset == "small"
    (tmp_path / "again.toml").write_text(to_toml(recipe))
    assert read_settings(Recipe, tmp_path / "again.toml") == recipe
    assert differences(read_settings(Recipe, SHIPPED_RECIPE), recipe) == [
        "datasets.nwpu.weight",
        "model.preset",
        "optimization.lr",
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimization.warmup_step=3", 'unknown setting "optimization.warmup_step"; did you mean "warmup_steps"?'),
        ("datasets.square.weight=2", 'did you mean "squares"?'),
        ("optimization.batch=two", "optimization.batch is 'two': it must be of type int"),
        ("optimization.image_size=100", "give a multiple of 32"),
        ("optimization.precision=16", "optimization.precision"),
        ("optimization.optimizer=muom", 'optimization.optimizer is "muom": take one of adamw, muon'),
        ("model.preset=tinny", 'model.preset is "tinny": take one of'),
        ("datasets.squares.name=all", 'a data set is named "all"'),
        ("evaluation.every=0", "give 1 step or more"),
        ("datasets.squares.scale=[2.0, 1.0]", "the smaller first"),
        ("datasets.squares.held_back={count=2, place='a'}", "needs either annotations, or count, or place and block"),
        ("datasets.squares.held_back.annotations='val.json'", "needs either annotations, or count, or place and block"),
        ("datasets.squares.class_map={house='hut'}", '"hut", which is not in model.classes'),
        ("datasets.squares.labelled_where_shown=['hut']", 'names "hut", which is not in model.classes'),
        ("running.devices=3", "must be a multiple of running.devices"),
        ("datasets.squares.held_back.seed=-1", "held_back.seed is -1"),
        ("datasets.squares.held_back.margin=64", "held_back.margin is for what is held back by place"),
        ("datasets.squares.held_back={annotations='val.json', seed=3}", "held_back.seed is for a count"),
        ("model.classes.building.color=1", "nothing has this name"),
        ("optimization", "section.setting=value"),
    ],
)
def test_a_wrong_setting_is_named(data, override, message):
    with pytest.raises(RecipeError) as caught:
        recipe_of(data, override)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_setting_and_a_missing_file_are_named(data, tmp_path):
    (tmp_path / "short.toml").write_text((FINETUNING + RUNNING).replace('licence = "generated"', ""))
    with pytest.raises(RecipeError, match=r'lacks the setting "datasets\.squares\.licence"'):
        read_settings(Recipe, tmp_path / "short.toml")
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*nowhere\.toml"):
        read_settings(Recipe, tmp_path / "nowhere.toml")


# Splits and data


def test_an_image_that_is_none_is_found_before_the_first_step(tmp_path):
    write_finetuning(tmp_path)
    (tmp_path / "images" / "4.png").write_text("not a picture")
    with pytest.raises(DatasetError, match=r"4\.png: not an image"):
        open_data(recipe_of(tmp_path), tmp_path)


def test_a_file_without_images_is_named(tmp_path):
    write_finetuning(tmp_path)
    (tmp_path / "squares.json").write_text('{"images": [], "annotations": [], "categories": []}')
    with pytest.raises(DatasetError, match=r"squares\.json lists no image"):
        open_data(recipe_of(tmp_path), tmp_path)


def test_a_class_map_names_classes_of_at_least_one_of_the_files(data, tmp_path):
    """One file of a set may well lack a class; a name that none has is misspelt, and would rename nothing."""
    content = json.loads((data / "squares.json").read_text())
    half = len(content["images"]) // 2
    for name, images, category in (
        ("train", content["images"][:half], "house"),
        ("val", content["images"][half:], "hut"),
    ):
        kept = {image["id"] for image in images}
        annotations = [row for row in content["annotations"] if row["image_id"] in kept]
        part = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": category}]}
        (data / f"{name}.json").write_text(json.dumps(part))
    files = "datasets.squares.annotations=train.json", "datasets.squares.held_back={annotations='val.json'}"
    read = open_data(recipe_of(data, *files, "datasets.squares.class_map={house='building', hut='building'}"), data)
    assert len(read.held_back["squares"]) == len(content["images"]) - half
    misspelt = recipe_of(data, *files, "datasets.squares.class_map={house='building', hut='building', shp='ship'}")
    with pytest.raises(DatasetError, match=r"val\.json: no category 'shp' to call 'ship'; .*there are: house, hut"):
        open_data(misspelt, data)


def test_a_class_can_be_one_that_is_labelled_only_where_it_is_shown(data, tmp_path):
    content = json.loads((data / "squares.json").read_text())
    content["categories"].append({"id": 2, "name": "ship"})
    shows_ship, ignores_ship = {1, 2, 3, 4}, {5, 6}
    for entry in content["annotations"][::2]:
        if entry["image_id"] in shows_ship | ignores_ship:
            entry |= {"category_id": 2, "iscrowd": int(entry["image_id"] in ignores_ship)}
    recipe = recipe_of(data, "datasets.squares.labelled_where_shown=['ship']")
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "squares.json").write_text((data / "squares.json").read_text())
    with pytest.raises(DatasetError, match=r"squares\.json: no category for 'ship', which labelled_where_shown"):
        open_data(recipe, tmp_path)
    (tmp_path / "squares.json").write_text(json.dumps(content))
    building, ship = (recipe.model.classes.index(name) for name in ("building", "ship"))
    opened = open_data(recipe, tmp_path)
    samples = [*opened.sources[0].samples, *opened.held_back["squares"]]
    taught = {}
    for sample in samples:
        _, target = load_training_image(sample, 64, np.random.default_rng(0), opened.sources[0].settings)
        taught[sample.image_id] = target.annotated[ship].item()
        assert target.annotated[building]
        assert sample.annotated[ship], "precision is by what the file says"
    assert {image for image, ship_is_taught in taught.items() if ship_is_taught} == shows_ship & set(taught)
    assert len(set(taught.values())) == 2


def tiles() -> list[Sample]:
    return [
        Sample(Path(f"tile_x{x}_y{y}.png"), 256, 256, 0, (), (True,))
        for x in range(0, 1280, 256)
        for y in (0, 256, 512)
    ]


def test_a_split_by_number_is_the_same_each_time_and_loses_nothing():
    training, kept = split("tiles", tiles(), HeldBack(count=4, seed=1))
    again = split("tiles", tiles(), HeldBack(count=4, seed=1))
    assert [[s.image for s in part] for part in again] == [[s.image for s in part] for part in (training, kept)]
    assert len(kept) == 4
    assert {s.image for s in training} | {s.image for s in kept} == {s.image for s in tiles()}


def test_a_split_by_place_drops_the_neighbours_of_its_block():
    where = HeldBack(place=r"x(\d+)_y(\d+)", block=(0, 0, 256, 512), margin=256)
    training, kept = split("tiles", tiles(), where)
    assert {s.image.name for s in kept} == {"tile_x0_y0.png", "tile_x0_y256.png"}
    # The block ends at x = 256 and at y = 512: 256 px before the tile at x = 512, and where the one at y = 512 begins.
    assert {s.image.name for s in training if "_y0" in s.image.name} == {f"tile_x{x}_y0.png" for x in (512, 768, 1024)}
    assert "tile_x0_y512.png" not in {s.image.name for s in training}


def test_a_split_by_place_without_a_margin_shares_no_ground():
    overlapping = [Sample(Path(f"x{x}_y0.png"), 256, 256, 0, (), (True,)) for x in range(0, 2048, 128)]
    training, kept = split("tiles", overlapping, HeldBack(place=r"x(\d+)_y(\d+)", block=(600, 0, 1100, 1)))
    places = [[int(s.image.name[1:].partition("_")[0]) for s in part] for part in (training, kept)]
    # The last tile of the block ends at 1280.
    assert places == [[0, 128, 256, *range(1280, 2048, 128)], [640, 768, 896, 1024]]


def test_a_split_that_leaves_nothing_is_an_error():
    with pytest.raises(DatasetError, match="no image of 15 is left"):
        split("tiles", tiles(), HeldBack(count=15))
    with pytest.raises(DatasetError, match="finds no place in the file name"):
        split("tiles", tiles(), HeldBack(place=r"a(\d+)b(\d+)", block=(0, 0, 1, 1)))


def test_a_split_by_file_trains_on_one_and_measures_the_other(data, tmp_path):
    whole = json.loads((data / "squares.json").read_text())
    (tmp_path / "images").symlink_to(data / "images")

    def write(name: str, numbers: range) -> None:
        images = [image for image in whole["images"] if image["id"] in numbers]
        annotations = [entry for entry in whole["annotations"] if entry["image_id"] in numbers]
        (tmp_path / name).write_text(json.dumps(whole | {"images": images, "annotations": annotations}))

    write("squares.json", range(1, 6))
    write("val.json", range(6, 9))
    recipe = recipe_of(data, "datasets.squares.held_back={annotations='val.json'}")
    opened = open_data(recipe, tmp_path)
    assert [sample.image.name for sample in opened.held_back["squares"]] == ["6.png", "7.png", "8.png"]
    assert [sample.image.name for sample in opened.sources[0].samples] == [f"{number}.png" for number in range(1, 6)]
    write("val.json", range(5, 9))
    with pytest.raises(
        DatasetError, match=r"squares trains on what is held back: 1 image, such as 5\.png of data set sq"
    ):
        open_data(recipe, tmp_path)


def test_no_data_set_trains_on_what_another_holds_back(data, tmp_path):
    (tmp_path / "linked").symlink_to(data / "images")
    (tmp_path / "images").symlink_to(data / "images")
    (tmp_path / "squares.json").write_text((data / "squares.json").read_text())
    recipe = recipe_of(data)
    again = replace(recipe.datasets[0], name="again", images="linked", held_back=None)
    with pytest.raises(
        DatasetError, match=r"again trains on what is held back: 2 images, such as .* of data set squares"
    ):
        open_data(replace(recipe, datasets=(*recipe.datasets, again)), tmp_path)


def test_balanced_draws_show_rare_classes_as_often_as_common_ones():
    def sample(number: int, label: int) -> Sample:
        return Sample(b"", 10, 10, number, (Annotation(label, (0.0, 0.0, 5.0, 5.0)),), (True, True, True))

    samples = [*(sample(number, 0) for number in range(99)), sample(99, 2)]
    rng = np.random.default_rng(0)
    drawn = [CocoSource(samples, TransformSettings(), balanced=True).draw(rng) for _ in range(400)]
    assert all(sample.annotations[0].label == label for sample, label in drawn)
    assert 150 < sum(label == 2 for _, label in drawn) < 250


def test_balanced_generated_scenes_show_every_class():
    source = SyntheticSource(256, (0.5, 0.5), SYNTHETIC_CLASSES, TransformSettings(), balanced=True)
    rng = np.random.default_rng(0)
    drawn = [source.draw(rng) for _ in range(40)]
    shown = sum(any(annotation.label == label for annotation in sample.annotations) for sample, label in drawn)
    assert {label for _, label in drawn} == set(range(len(SYNTHETIC_CLASSES)))
    assert shown >= 20


def test_the_views_of_a_step_do_not_depend_on_where_the_run_started_or_on_the_processes(data):
    recipe = recipe_of(data)
    run_data = open_data(recipe, data)
    batches = load_batches(run_data, recipe, 0, CPU)
    first, second = next(batches), next(batches)
    images, targets = next(load_batches(run_data, recipe, 1, CPU))
    assert torch.equal(images, second[0])
    assert not torch.equal(images, first[0])
    for target, expected in zip(targets, second[1], strict=True):
        assert torch.equal(target.masks, expected.masks)
        assert torch.equal(target.boxes_xyxy, expected.boxes_xyxy)
    parts = [next(load_batches(run_data, recipe, 1, CPU, rank, ranks=2)) for rank in range(2)]
    assert torch.equal(torch.cat([part[0] for part in parts]), images)


def test_an_unreadable_image_is_one_clear_line(data, tmp_path):
    recipe = recipe_of(data, "running.workers=1")
    for path in (data / "images").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes()[:200])
    (tmp_path / "squares.json").write_text((data / "squares.json").read_text())
    run_data = open_data(recipe_of(data, "datasets.squares.images=."), tmp_path)
    with pytest.raises(DatasetError) as caught:
        next(load_batches(run_data, recipe, 0, CPU))
    assert "\n" not in str(caught.value)


def test_held_back_scenes_are_the_same_for_a_seed():
    classes = read_settings(Recipe, SHIPPED_RECIPE).model.classes
    one, same, other = (fresh_scenes(1, seed, 64, (0.3, 0.5), classes)[0] for seed in (1, 1, 2))
    assert one.image == same.image
    assert one.image != other.image


# Schedule


def test_the_learning_rate_rises_then_falls_to_its_end():
    settings = Optimization(64, 2, steps=110, lr=1.0, warmup_steps=10, final_lr=0.01)
    rates = [learning_rate(step, settings) for step in range(111)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[60] == pytest.approx((1 + 0.01) / 2)
    assert rates[110] == pytest.approx(0.01)


def test_only_weight_matrices_decay():
    class Scan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.A_log, self.D = nn.Parameter(torch.ones(4, 2)), nn.Parameter(torch.ones(4))
            self.proj, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

    model = Scan()
    decayed, kept = build_optimizer(model, Optimization(64, 2, steps=400, lr=1.0)).param_groups
    assert decayed["weight_decay"] == 0.05
    assert [id(p) for p in decayed["params"]] == [id(model.proj.weight)]
    assert kept["weight_decay"] == 0
    assert len(kept["params"]) == 5


def test_the_average_follows_fast_at_first_and_slowly_later():
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    average = WeightAverage(model, decay=0.99)
    nn.init.ones_(model.weight)
    average.update(model, 0)
    assert average.model.weight.item() == pytest.approx(0.9)
    nn.init.zeros_(model.weight)
    average.update(model, 100_000)
    assert average.model.weight.item() == pytest.approx(0.9 * 0.99)


# The loop


def test_a_run_that_is_killed_and_stopped_ends_as_the_unbroken_one(data, tmp_path):
    threads = torch.get_num_threads()
    whole = train(recipe_of(data), data, tmp_path / "whole" / "squares")
    folder = tmp_path / "broken" / "squares"

    command = "finetune", data / "squares.toml", data, tmp_path / "broken"
    kill_after(start(*command), folder, 5)
    assert not (folder / "final.safetensors").exists()

    stopped = start(*command)
    wait_for_steps(stopped, folder, 9)
    stopped.terminate()
    errors = stopped.communicate()[1]
    done = [line["step"] for line in metrics_of(folder)][-1]
    assert stopped.returncode == (130 if done < 14 else 0), errors
    assert "Traceback" not in errors
    if done < 14:
        # Stopped, unlike killed, it loses no step.
        assert checkpoints(folder / "checkpoints")[-1].name == f"step-{done:09d}.safetensors"

    result = train(recipe_of(data, "running.log_every=1"), data, folder)
    torch.set_num_threads(threads)
    assert metrics_of(folder) == metrics_of(whole.folder)
    assert result.metrics == whole.metrics
    assert result.final.read_bytes() == whole.final.read_bytes()

    losses = [line["loss"] for line in metrics_of(folder) if "loss" in line]
    assert len(losses) == 14
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    card = read_card(result.final)
    assert card.training_data == ({"name": "squares", "licence": "generated"},)
    assert card.metrics["squares"]["images"] == 2
    assert not math.isnan(card.metrics["all"]["box"]["ap50"])


@pytest.fixture(scope="module")
def short_run(data, tmp_path_factory) -> Path:
    """The folder of a finished run of two steps."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    train(recipe_of(data, "optimization.steps=2", "optimization.warmup_steps=1"), data, folder)
    return folder


def test_a_run_folder_takes_no_other_recipe_but_another_way_of_running(data, short_run):
    recipe = "optimization.steps=2", "optimization.warmup_steps=1"
    with pytest.raises(RecipeError, match=r"other settings \(optimization\.lr\)"):
        train(recipe_of(data, *recipe, "optimization.lr=1e-4"), data, short_run)
    again = train(recipe_of(data, *recipe, "running.checkpoint_steps=9"), data, short_run)
    assert again.step == 2
    assert again.final == short_run / "final.safetensors"


def test_a_damaged_checkpoint_says_what_to_do(data, short_run, tmp_path):
    newest = checkpoints(short_run / "checkpoints")[-1]
    damaged = tmp_path / "run" / "checkpoints" / newest.name
    damaged.parent.mkdir(parents=True)
    damaged.write_bytes(newest.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="is damaged: remove it to go on from the one before"):
        train(recipe_of(data), data, tmp_path / "run")


def test_a_garbled_line_of_the_metrics_is_forgotten(tmp_path):
    metrics = tmp_path / "metrics.jsonl"
    metrics.write_bytes(b'12\n{"step": 1}\n{}\n{"step": "1"}\n{"step": 2}\n{"ste' + b"\0\xff" * 9 + b'\n{"step": 3')
    with Journal(tmp_path, steps=9, step=1) as journal:
        journal.record({"step": 2, "loss": 1.0})
    assert metrics.read_text() == '{"step": 1}\n{"step": 2, "loss": 1.0}\n'


def test_a_run_folder_that_cannot_be_made_is_named(data, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(OutputError, match=r"cannot write to the run folder .*file"):
        train(recipe_of(data), data, tmp_path / "file" / "run")


def test_a_run_that_diverges_gives_up(data, tmp_path):
    recipe = recipe_of(data, "optimization.steps=40", "optimization.lr=1e30", "optimization.clip_norm=1e30")
    with pytest.raises(DivergedError, match=r"20 steps in a row, .* lower optimization\.lr"):
        train(recipe, data, tmp_path / "run")
    assert "skipped: not finite" in (tmp_path / "run" / "log.txt").read_text()


# The commands


def test_evaluate_prints_the_figures_as_json(data, short_run, monkeypatch, capsys):
    arguments = "--model", short_run / "final.safetensors", "--images", data / "images"
    arguments += "--annotations", data / "squares.json", "--json"
    assert run_script(monkeypatch, "evaluate", *arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["images"] == 8
    assert 0 <= figures["mask"]["ap50"] <= 1
    assert figures["box"]["large"] is None
    assert figures["by_class"]["building"]["instances"] == 16


def test_a_page_that_cannot_be_written_costs_no_figures(data, short_run, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    page.mkdir()
    arguments = "--model", short_run / "final.safetensors", "--images", data / "images"
    arguments += "--annotations", data / "squares.json", "--page", page, "--json"
    assert run_script(monkeypatch, "evaluate", *arguments) == 2
    told = capsys.readouterr()
    assert json.loads(told.out)["images"] == 8
    assert "cannot write the page" in told.err


def test_what_a_recipe_holds_back_is_measured_and_put_on_the_card(data, short_run, tmp_path, monkeypatch, capsys):
    model = tmp_path / "model.safetensors"
    trained = read_card(short_run / "final.safetensors")
    save_model(model, load_model(short_run / "final.safetensors", "cpu").segmenter, replace(trained, metrics={}))
    stored = load_file(model)
    arguments = "--model", model, "--recipe", data / "squares.toml", "--data", data, "--card", "--json"
    assert run_script(monkeypatch, "evaluate", *arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures.keys() == {"squares", "all"}
    assert figures["squares"]["images"] == 2
    card = read_card(model)
    assert card.metrics["squares"]["by_class"]["building"]["instances"] == 4
    assert card.metrics["all"]["box"]["ap"] == round(figures["all"]["box"]["ap"], 4)
    assert replace(card, metrics={}, default_scores=trained.default_scores) == replace(trained, metrics={})
    assert load_file(model).keys() == stored.keys()
    after = load_file(model)
    assert all(
        torch.equal(after[name], tensor) and after[name].dtype == tensor.dtype for name, tensor in stored.items()
    )


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("finetune", ["nowhere.toml", "--data", "."], "cannot read the recipe nowhere.toml"),
        ("finetune", ["{data}/squares.toml", "--data", "{data}/nowhere", "--runs", "{tmp}"], "squares.json"),
        ("evaluate", ["--model", "nowhere.safetensors", "--synthetic", "1"], "nowhere.safetensors"),
        ("evaluate", ["--model", "{run}/final.safetensors", "--synthetic", "1", "--seed", "-1"], "--seed is -1"),
        ("evaluate", ["--model", "{run}/final.safetensors"], "give either --images and --annotations, or --synthetic"),
        ("evaluate", ["--model", "x", "--recipe", "{data}/squares.toml"], "--recipe and --data go together"),
        ("evaluate", ["--model", "x", "--synthetic", "1", "--card"], "--card needs --recipe"),
        ("evaluate", ["--model", "x", "--recipe", "r", "--data", "d", "--classes", "a=b"], "--classes is for --annota"),
        ("evaluate", ["--model", "x", "--recipe", "r", "--data", "d", "--seed", "3"], "--seed is for --synthetic"),
        ("evaluate", ["--model", "x", "--synthetic", "1", "--pictures", "{tmp}/no"], "/no is no folder"),
        (
            "evaluate",
            ["--model", "{run}/final.safetensors", "--recipe", str(SHIPPED_RECIPE), "--data", "{data}"],
            "has other classes",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    script, arguments, message, data, short_run, tmp_path, monkeypatch, capsys
):
    arguments = [argument.format(data=data, run=short_run, tmp=tmp_path) for argument in arguments]
    assert run_script(monkeypatch, script, *arguments) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
