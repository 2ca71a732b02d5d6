"""Distillation runs, as a user starts them."""

import csv
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_runs import kill_after, metrics_of, start, wait_for_steps, write_distillation
from training_script import run_script

from rs4d_core.cli import main
from rs4d_core.distillation.ablation import cells_of, run_ablation
from rs4d_core.distillation.loop import distil
from rs4d_core.distillation.map_cache import MapCache, map_key
from rs4d_core.distillation.recipe import DistillationRecipe
from rs4d_core.distillation.teacher import open_teacher
from rs4d_core.distillation.views import find_images, read_view, views_of
from rs4d_core.errors import DatasetError, ModelFileError, RecipeError, RunFailedError
from rs4d_core.models.card import read_card
from rs4d_core.models.config import preset
from rs4d_core.models.encoder import Encoder
from rs4d_core.models.encoder_card import read_encoder_card
from rs4d_core.models.encoder_file import load_encoder_weights
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.runs.tables import read_settings


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_distillation(folder)
    return folder


def recipe_of(data: Path, *overrides: str) -> DistillationRecipe:
    return read_settings(DistillationRecipe, data / "recipe.toml", overrides)


def losses_of(folder: Path) -> list[float]:
    return [line["l1"] for line in metrics_of(folder) if "l1" in line]


def distill(data: Path, runs: Path, *arguments: str) -> subprocess.Popen:
    return start("distill", data / "recipe.toml", data / "images", runs, *arguments)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> Path:
    """The folder of an unbroken run."""
    threads = torch.get_num_threads()
    folder = tmp_path_factory.mktemp("whole") / "pupil"
    distil(recipe_of(data), data / "images", folder)
    torch.set_num_threads(threads)
    return folder


def test_a_run_learns_and_leaves_what_it_promises(data, whole):
    result = json.loads((whole / "result.json").read_text())
    assert result["step"] == 16
    assert result["images"] == 8 + 1
    assert result["unreadable"] == 1  # found when it was decoded: its header is whole
    assert result["l1"] < result["start_l1"]
    lines = [line for line in metrics_of(whole) if "l1" in line]
    assert lines[0]["noise"] == lines[0]["mask"] == 0
    assert lines[-1]["noise"] > 0
    assert lines[-1]["mask"] / lines[-1]["noise"] == pytest.approx(25 / 30, rel=0.01)
    assert "skipped:" in (whole / "log.txt").read_text()
    assert (whole / "log.txt").read_text().count("cut.png") == 1
    for picture in ("curve.png", "maps.png"):
        with Image.open(whole / picture) as drawn:
            assert min(drawn.size) > 200


def test_info_shows_where_an_encoder_comes_from(whole, capsys):
    result = json.loads((whole / "result.json").read_text())
    assert main(["info", str(whole / "encoder.safetensors")]) == 0
    shown = capsys.readouterr().out
    for said in ("pupil", "tiny", "rs4d-tiny", "noise 30 %, mask 25 %", "adaptive", "learned", "after 16 steps"):
        assert said in shown
    assert f"L1 {result['l1']:.4g}" in shown
    assert main(["info", str(whole / "encoder.safetensors"), "--json"]) == 0
    card = json.loads(capsys.readouterr().out)
    assert (card["kind"], card["presets"], card["source"]) == ("encoder", ["tiny"], "distilled from rs4d-tiny")
    assert card["metrics"] == {"step": 16, "start_l1": result["start_l1"], "l1": result["l1"]}


def test_a_segmenter_starts_from_the_distilled_encoder(whole):
    card = read_encoder_card(whole / "encoder.safetensors")
    assert card.source == "distilled from rs4d-tiny"
    segmenter = Segmenter(preset("tiny", ("ship",)))
    before = segmenter.encoder.layers[3].mixer.in_proj.weight.clone()
    load_encoder_weights(whole / "encoder.safetensors", segmenter.encoder)
    assert not torch.equal(before, segmenter.encoder.layers[3].mixer.in_proj.weight)
    with pytest.raises(ModelFileError, match="holds an encoder alone"):
        read_card(whole / "encoder.safetensors")
    with pytest.raises(ModelFileError, match="other dimensions"):
        load_encoder_weights(whole / "encoder.safetensors", Encoder(preset("small", ("ship",)).encoder))


def test_a_run_that_is_killed_twice_goes_on_as_the_unbroken_one(data, whole, tmp_path):
    folder = tmp_path / "pupil"
    for steps in (4, 11):
        kill_after(distill(data, tmp_path), folder, steps)
    threads = torch.get_num_threads()
    distil(recipe_of(data), data / "images", folder)
    torch.set_num_threads(threads)
    assert metrics_of(folder) == metrics_of(whole)
    assert (folder / "encoder.safetensors").read_bytes() == (whole / "encoder.safetensors").read_bytes()


def test_a_run_folder_serves_one_run_at_a_time(data, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "pupil"
    first = distill(data, tmp_path, "--set", "optimization.steps=4000")
    wait_for_steps(first, folder, 1)
    second = "distill", data / "recipe.toml", "--data", data / "images", "--runs", tmp_path
    assert run_script(monkeypatch, *second) == 2
    errors = capsys.readouterr().err.splitlines()
    assert errors == [f"error: another process is at work in {folder}: wait for its end, or give another --name"]
    before = losses_of(folder)
    wait_for_steps(first, folder, len(before) + 1)  # the first goes on
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert losses_of(folder)[: len(before)] == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="children are listed by Linux alone")
def test_no_process_that_loads_outlives_a_killed_run(data, tmp_path):
    settings = "running.workers=1", "optimization.batch=8", "optimization.steps=4000"
    killed = distill(data, tmp_path, *(word for setting in settings for word in ("--set", setting)))
    wait_for_steps(killed, tmp_path / "pupil", 1)
    children = [
        Path("/proc") / pid for pid in Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
    ]
    loading = [child for child in children if b"spawn_main" in (child / "cmdline").read_bytes()]
    assert loading
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    deadline = time.monotonic() + 10
    while any(child.exists() for child in loading):
        assert time.monotonic() < deadline, "a process still waits to hand on its views"
        time.sleep(0.1)


def test_two_processes_have_the_losses_of_one_with_the_doubled_batch(data, whole, tmp_path):
    both = distill(data, tmp_path, "--set", "running.devices=2", "--json")
    output, errors = both.communicate(timeout=200)
    assert both.returncode == 0, errors
    assert json.loads(output)["step"] == 16
    assert losses_of(tmp_path / "pupil") == pytest.approx(losses_of(whole), rel=1e-4)


def test_the_teacher_sees_the_clean_image_and_its_kept_maps_serve_another_student(data, tmp_path):
    short = "optimization.steps=3", f"teacher.cache={json.dumps(str(tmp_path / 'maps'))}"
    corrupted = "corruption.schedule=constant", "corruption.noise=100", "corruption.mask=50"
    recipe = recipe_of(data, *short, *corrupted)
    one = distil(recipe, data / "images", tmp_path / "one")
    teacher = open_teacher(recipe.teacher, 64, "cpu", "32")
    cache = MapCache(tmp_path / "maps", teacher.identity)
    views = [view for image in find_images(data / "images", (".",), None)[0] for view in views_of(image, 64)]
    kept = 0
    for view in views:
        try:
            pixels = read_view(view, 64, None)
        except DatasetError:
            continue
        found = cache.get(map_key(pixels.rgb.tobytes()))
        if found is not None:
            kept += 1
            clean = teacher.maps(torch.from_numpy(pixels.rgb)[None].float())[0]
            assert torch.allclose(found.float(), clean, rtol=2e-3, atol=2e-3)
    assert kept >= 6
    shards = {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.safetensors")}
    other = distil(recipe_of(data, *short, "corruption.mask=0"), data / "images", tmp_path / "other")
    assert other.start_l1 == one.start_l1
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "maps").rglob("*.safetensors")} == shards


def test_a_grid_has_one_run_without_corruption(data):
    cells = cells_of(recipe_of(data, "ablation.noise=[0, 30]", "ablation.mask=[0]"))
    names = ["clean", "constant-noise30-mask0", "clean", "adaptive-noise30-mask0"]
    assert [cell.name for cell in cells] == names
    assert len(cells_of(recipe_of(data))) == 2 * 4 * 4


def test_a_grid_of_corruptions_is_one_table_and_goes_on_where_it_was(data, tmp_path, monkeypatch, capsys):
    grid = ["ablation.noise=[0, 20]", "ablation.mask=[0]", 'ablation.schedules=["adaptive"]']
    overrides = [*grid, "optimization.steps=2", "optimization.warmup_steps=1"]
    settings = [word for override in overrides for word in ("--set", override)]
    first = "distill", data / "recipe.toml", "--data", data / "images", "--runs", tmp_path, *settings
    assert run_script(monkeypatch, *first, "--ablation", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["cells"] == 2
    rows = list(csv.DictReader(Path(result["csv"]).read_text().splitlines()))
    assert [(row["schedule"], row["noise"], row["mask"]) for row in rows] == [
        ("adaptive", "0", "0"),
        ("adaptive", "20", "0"),
    ]
    assert rows[0]["start_l1"] == rows[1]["start_l1"]
    assert "| adaptive | noise 0 % | noise 20 % |" in Path(result["markdown"]).read_text()

    # Nothing is left to run: a command that fails is not called.
    again = recipe_of(data, *overrides), data / "recipe.toml", overrides, ["false"], Path(result["folder"])
    assert run_ablation(*again).cells == 2
    (Path(result["folder"]) / "clean" / "result.json").unlink()
    with pytest.raises(RunFailedError, match=r"clean failed \(exit status 1\)"):
        run_ablation(*again)


def test_a_run_folder_takes_no_other_recipe(data, whole):
    with pytest.raises(RecipeError, match=r"other settings \(corruption\.noise\)"):
        distil(recipe_of(data, "corruption.noise=10"), data / "images", whole)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "images.folders=['nowhere']"], "there is no folder"),
        (["--set", "teacher.source=nowhere.safetensors"], "nowhere.safetensors"),
        (["--set", "images.held_back=99"], "hold back fewer"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(arguments, message, data, tmp_path, monkeypatch, capsys):
    command = "distill", data / "recipe.toml", "--data", data / "images", "--runs", tmp_path, *arguments
    assert run_script(monkeypatch, *command) == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1
    assert message in errors[0]
