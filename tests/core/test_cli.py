"""The command `rs4d` on good input."""

import json
import os
import re
import signal
import subprocess
import sys

import geopandas as gpd
import pyogrio
import pytest
import rasterio
from PIL import Image
from small_model import CLASSES, small_config

import rs4d_core
from rs4d_core.cli import main
from rs4d_core.datasets.synthetic import write_large_scene
from rs4d_core.models.encoder import Encoder
from rs4d_core.models.encoder_card import EncoderCard
from rs4d_core.models.encoder_file import save_encoder

COMMAND = [sys.executable, "-m", "rs4d_core.cli"]


def run(capsys, *arguments) -> tuple[str, str]:
    """Standard output and error of a command that must succeed."""
    code = main([str(argument) for argument in arguments])
    output, errors = capsys.readouterr()
    assert code == 0, errors
    return output, errors


def test_segment_writes_a_layer_and_one_json_object(capsys, tmp_path, small_scene, untrained_model):
    output = tmp_path / "result.gpkg"
    text, _ = run(capsys, "segment", small_scene, "-o", output, "--model", untrained_model, "--json")
    result = json.loads(text)
    named = {"output", "instances", "by_class", "windows", "seconds", "model_seconds", "device", "peak_rss_mb"}
    assert named <= result.keys()
    assert result["output"] == str(output)
    assert list(result["by_class"]) == list(CLASSES)
    layer = gpd.read_file(output, layer="instances")
    assert len(layer) == result["instances"] == sum(result["by_class"].values()) > 0
    assert layer.geometry.is_valid.all()
    with rasterio.open(small_scene) as scene:
        assert layer.crs == scene.crs
        assert layer.total_bounds[0] >= scene.bounds.left
        assert layer.total_bounds[3] <= scene.bounds.top


def test_options_of_segment_reach_the_run(capsys, tmp_path, small_scene, untrained_model):
    with rasterio.open(small_scene) as scene:
        west, south, _, _ = scene.bounds
    output = tmp_path / "result.gpkg"
    bbox = (west, south, west + 60, south + 40)
    text, errors = run(
        capsys, "segment", small_scene, "-o", output, "--model", untrained_model, "--bbox", *bbox, "--bands", "3,2,1",
        "--resolution", "0.6", "--window", "64", "--overlap", "16", "--score", "0.001", "--classes", "ship",
        "--regularize", "--device", "cpu",
    )  # fmt: skip
    assert text.startswith(f"{output}: ")
    assert "0.6 m" in errors
    layer = gpd.read_file(output, layer="instances")
    assert set(layer["class"]) <= {"ship"}
    assert layer.total_bounds[2] <= west + 61
    parameters = json.loads(pyogrio.read_dataframe(output, layer="runs")["parameters"][0])
    assert parameters["bands"] == [3, 2, 1]
    assert parameters["resolution_m"] == 0.6
    assert parameters["window"] == [64, 64]
    assert parameters["overlap_px"] == 16
    assert parameters["regularize"] is True


def test_a_picture_of_the_result(capsys, tmp_path, small_scene, untrained_model):
    picture = tmp_path / "result.png"
    run(capsys, "segment", small_scene, "-o", tmp_path / "r.geojson", "--model", untrained_model, "--picture", picture)
    with Image.open(picture) as image:
        assert image.width >= 256
        assert image.height >= 192


def test_a_second_run_is_added_to_a_geopackage(capsys, tmp_path, small_scene, untrained_model):
    output = tmp_path / "result.gpkg"
    command = ("segment", small_scene, "-o", output, "--model", untrained_model, "--json")
    (first, said_first), (second, said_second) = run(capsys, *command), run(capsys, *command)
    layer = gpd.read_file(output, layer="instances")
    assert len(layer) == sum(json.loads(result)["instances"] for result in (first, second))
    assert layer["run"].nunique() == 2
    note = f"{output} was there already: it now holds 2 runs, {len(layer)} instances in all"
    assert note in said_second
    assert note in json.loads(second)["notes"]
    assert "in all" not in said_first
    _, said = run(capsys, "evaluate", output, output)
    assert "it holds 2 runs, and all count" in said


def test_an_evaluation_of_a_result_with_itself_is_perfect(capsys, tmp_path, small_scene, untrained_model):
    output = tmp_path / "result.gpkg"
    run(capsys, "segment", small_scene, "-o", output, "--model", untrained_model)
    result = json.loads(run(capsys, "evaluate", output, output, "--json")[0])
    assert {"ap50", "precision", "recall", "f1", "mean_iou", "by_class"} <= result.keys()
    assert result["f1"] == 1
    text, _ = run(capsys, "evaluate", output, output, "--iou", "0.7")
    assert "IoU 0.7" in text
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["all", *sorted(result["by_class"])]


def test_info_shows_the_card(capsys, untrained_model):
    card = json.loads(run(capsys, "info", untrained_model, "--json")[0])
    assert card["name"] == "untrained"
    assert tuple(card["config"]["classes"]) == CLASSES
    text, _ = run(capsys, "info", untrained_model)
    for said in ("untrained", "0.3 to 1 m a pixel", "128 px", *CLASSES):
        assert said in text


def test_info_shows_the_measured_accuracy_in_tables(capsys):
    card = json.loads(run(capsys, "info", "--json")[0])
    lines = run(capsys, "info")[0].splitlines()
    sets = lines.index(next(line for line in lines if line.startswith("measured on")))
    classes = lines.index(next(line for line in lines if line.startswith("mask AP50 by class")))
    rows = [line.split() for line in lines[sets + 1 : classes] if "every detection" not in line]
    for row, (name, measured) in zip(rows, card["metrics"].items(), strict=False):
        found = [measured[kind][key] for kind in ("box", "mask") for key in ("ap", "ap50")]
        assert row == [name, str(measured["images"]), *("-" if value is None else f"{value:.3f}" for value in found)]
    for line, name in zip(lines[classes + 1 :], card["config"]["classes"], strict=True):
        found = [measured["by_class"].get(name, {}).get("mask_ap50") for measured in card["metrics"].values()]
        assert line.split()[0] == name
        assert line.split()[1:-1] == ["-" if value is None else f"{value:.3f}" for value in found]


def test_counts_agree_with_their_nouns(capsys, tmp_path, small_scene, untrained_model):
    command = ("segment", small_scene, "-o", tmp_path / "r.gpkg", "--model", untrained_model)
    text, errors = run(capsys, *command, "--window", "512", "--score", "1")
    assert text.startswith(f"{tmp_path}/r.gpkg: 0 instances, from 1 window in ")
    assert "rs4d: 1 of 1 window, 0 instances" in errors.splitlines()


def test_doctor_finds_this_installation_in_order(capsys):
    diagnosis = json.loads(run(capsys, "doctor", "--json")[0])
    assert diagnosis["ok"]
    checks = {check["name"]: check for check in diagnosis["checks"]}
    assert {"python", "torch", "device", "numba", "projections", "default model", "temporary folder"} <= checks.keys()
    text, _ = run(capsys, "doctor")
    assert all(name in text for name in checks)


def test_doctor_says_how_to_mend_what_is_broken(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "FAILED: FileNotFoundError" in text
    assert "set TMPDIR to a writable folder" in text


def test_help_answers_without_the_heavy_libraries():
    code = (
        "import sys, rs4d_core.cli as cli\n"
        "cli.main(['--help'])\n"
        "heavy = {'torch', 'numpy', 'rasterio', 'geopandas', 'rich', 'numba'} & sys.modules.keys()\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for command in ("segment", "evaluate", "export", "info", "doctor", "serve"):
        assert command in done.stdout


def test_info_answers_without_torch(tmp_path, untrained_model):
    encoder = Encoder(small_config().encoder)
    save_encoder(tmp_path / "encoder.safetensors", encoder, EncoderCard("small", encoder.config, "nothing"))
    code = (
        "import sys, rs4d_core.cli as cli\n"
        "codes = [cli.main(['info', path]) for path in sys.argv[1:]]\n"
        "print(codes, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, untrained_model, tmp_path / "encoder.safetensors"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "[0, 0] False", done.stderr
    for name in ("untrained", "small"):
        assert name in done.stdout


def test_version(capsys):
    assert run(capsys, "--version")[0] == f"rs4d {rs4d_core.__version__}\n"


def test_a_reader_that_goes_away_is_no_error(untrained_model):
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run([*COMMAND, "info", untrained_model], stdout=write_end, stderr=subprocess.PIPE, check=False)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_finished_windows(tmp_path, untrained_model, stop):
    scene, output = tmp_path / "scene.tif", tmp_path / "result.gpkg"
    write_large_scene(scene, 512, 512, seed=1)
    running = subprocess.Popen(
        [*COMMAND, "segment", scene, "-o", output, "--model", untrained_model, "--overlap", "112", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = next(line for line in running.stderr if "windows" in line)
        running.send_signal(stop)
        text, errors = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == 130, said + errors
    assert re.search(r"interrupted: what \d+ finished windows? showed is in ", errors.splitlines()[-1])
    result = json.loads(text)
    assert result["interrupted"]
    assert 0 < result["windows"] < 625
    assert len(gpd.read_file(output, layer="instances")) == result["instances"] > 0


def test_a_fault_of_the_program_is_one_line(capsys, monkeypatch):
    monkeypatch.delenv("RS4D_DEBUG", raising=False)
    monkeypatch.setattr("rs4d_core.doctor.diagnose", lambda: {}["missing"])
    assert main(["doctor"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "internal error" in line
    assert "KeyError" in line
