"""Bad input: exit 2, one line that names the input and the way out, nothing new on disk and nothing old lost."""

import json
import shutil
import struct
import subprocess
import sys

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import safetensors.torch
import torch
from rasterio.transform import from_origin
from shapely.geometry import box

from rs4d_core.cli import main

COMMAND = [sys.executable, "-m", "rs4d_core.cli"]


def write_raster(path, values, **options):
    options = {"crs": "EPSG:32631", "transform": from_origin(440_000, 4_640_000, 0.5, 0.5)} | options
    bands, height, width = values.shape
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=values.dtype, **options
    ) as raster:
        raster.write(values)
    return path


def said_of(capsys, *arguments) -> str:
    """What a command that must be refused says."""
    code = main([str(argument) for argument in arguments])
    output, errors = capsys.readouterr()
    assert (code, output) == (2, ""), errors
    return only_line(errors)


def only_line(errors: str) -> str:
    """The one line that a refusal is, apart from how far the run had come."""
    (line,) = [line for line in errors.splitlines() if " windows, " not in line]
    assert line.startswith("rs4d")
    return line


def snapshot(folder) -> dict:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def results(tmp_path, capsys, small_scene, untrained_model):
    """A folder with an earlier result in it, which must be there and the same after the test."""
    folder = tmp_path / "results"
    folder.mkdir()
    segment = ["segment", str(small_scene), "-o", str(folder / "earlier.gpkg"), "--model", str(untrained_model)]
    assert main(segment) == 0
    shutil.copy(folder / "earlier.gpkg", folder / "earlier.geojson")
    capsys.readouterr()
    before = snapshot(folder)
    yield folder
    assert snapshot(folder) == before


def refused_everywhere(capsys, results, model, scene, *options) -> str:
    """The refusal of a scene or of options, with a new output, one that is added to and one that is replaced."""
    said = {
        said_of(capsys, "segment", scene, "-o", results / name, "--model", model, *options)
        for name in ("new.gpkg", "earlier.gpkg", "earlier.geojson")
    }
    (line,) = said
    return line


def missing(folder):
    return folder / "missing.tif"


def not_a_raster(folder):
    path = folder / "letter.tif"
    path.write_text("Dear reader, this is no raster.")
    return path


def empty(folder):
    path = folder / "empty.tif"
    path.touch()
    return path


def truncated(folder):
    path = write_raster(folder / "cut.tif", np.random.default_rng(0).integers(0, 255, (3, 600, 300), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def complex_values(folder):
    return write_raster(folder / "complex.tif", np.ones((1, 64, 64), np.complex64))


def without_pixels(folder):
    path = folder / "flat.vrt"
    path.write_text('<VRTDataset rasterXSize="0" rasterYSize="9"><VRTRasterBand dataType="Byte"/></VRTDataset>')
    return path


@pytest.mark.parametrize("scene", [missing, not_a_raster, empty, truncated, complex_values, without_pixels])
def test_scenes(capsys, tmp_path, results, untrained_model, scene):
    path = scene(tmp_path)
    assert path.name in refused_everywhere(capsys, results, untrained_model, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--bands", "1,2,9"), "band 9"),
        (("--bands", "1,2"), "band"),
        (("--bbox", "0", "0", "10", "10"), "outside"),
        (("--bbox", "5", "5", "1", "1"), "W < E"),
        (("--bbox", "0", "0", "1", "1", "--bbox-crs", "EPSG:0"), "EPSG:0"),
        (("--window", "128", "--overlap", "128"), "overlap"),
        (("--window", "0"), "window"),
        (("--overlap", "-1"), "overlap"),
        (("--resolution", "-2"), "resolution"),
        (("--score", "1.5"), "score"),
        (("--classes", "ship,unicorn"), "'unicorn'"),
        (("--device", "abacus"), "'abacus'"),
    ],
)
def test_options(capsys, results, small_scene, untrained_model, options, message):
    assert message in refused_everywhere(capsys, results, untrained_model, small_scene, *options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "COMMAND"),
        (["segmint"], "segmint"),
        (["segment", "a.tif"], "-o/--output"),
        (["segment", "a.tif", "-o", "b.gpkg", "--bands", "red"], "'red'"),
        (["segment", "a.tif", "-o", "b.gpkg", "--wndow", "64"], "--wndow"),
        (["evaluate", "a.gpkg"], "REFERENCE"),
    ],
)
def test_command_lines(capsys, arguments, message):
    line = said_of(capsys, *arguments)
    assert message in line
    assert "--help" in line


def missing_model(folder, _model):
    return folder / "missing.safetensors"


def truncated_model(folder, model):
    path = folder / "cut.safetensors"
    content = model.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def foreign_model(folder, _model):
    path = folder / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.ones(3)}, path)
    return path


def no_model(folder, _model):
    path = folder / "header.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    return path


@pytest.mark.parametrize("model", [missing_model, truncated_model, foreign_model, no_model])
def test_model_files(capsys, tmp_path, results, small_scene, untrained_model, model):
    path = model(tmp_path, untrained_model)
    assert path.name in refused_everywhere(capsys, results, path, small_scene)
    if model is not truncated_model:  # its card is at the front, and whole
        assert path.name in said_of(capsys, "info", path)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("nowhere/result.gpkg", "does not exist"),
        ("result", "format"),
        ("result.shp", "'.shp'"),
        ("text.gpkg", "is no GeoPackage"),
    ],
)
def test_outputs(capsys, tmp_path, small_scene, untrained_model, output, message):
    (tmp_path / "text.gpkg").write_text("something else")
    before = sorted(tmp_path.rglob("*"))
    assert message in said_of(capsys, "segment", small_scene, "-o", tmp_path / output, "--model", untrained_model)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "text.gpkg").read_text() == "something else"


def test_a_picture_that_cannot_be_written_is_refused_before_the_run(capsys, results, small_scene, untrained_model):
    picture = results / "nowhere" / "picture.png"
    line = refused_everywhere(capsys, results, untrained_model, small_scene, "--picture", picture)
    assert "nowhere" in line


def on_a_disk(mount_options: str, script: str, *arguments) -> subprocess.CompletedProcess:
    """Run a script in its first argument, a folder on which a disk is mounted for as long as it runs."""
    unshare = shutil.which("unshare")
    if not unshare or subprocess.run([unshare, "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk can be mounted for the test: unshare is missing or not allowed")
    mount = f'mount -t tmpfs -o {mount_options} tmpfs "$0" && cd "$0" && {script}'
    command = [unshare, "-rm", "sh", "-c", mount, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["new.gpkg", "earlier.gpkg", "earlier.geojson"])
def test_a_full_disk(tmp_path, results, small_scene, untrained_model, name):
    script = 'cp "$1"/* . && shift && "$@"; code=$?; cat * | md5sum; exit $code'
    segment = [*COMMAND, "segment", small_scene, "-o", name, "--model", untrained_model]
    size = sum(len(content) for content in snapshot(results).values()) + 60_000
    disk = tmp_path / "disk"
    disk.mkdir()
    done = on_a_disk(f"size={size}", script, disk, results, *segment)
    assert done.returncode == 2, done.stderr
    assert "disk is full" in only_line(done.stderr)
    untouched = subprocess.run("cat * | md5sum", shell=True, cwd=results, capture_output=True, text=True, check=True)
    assert done.stdout == untouched.stdout


def test_a_read_only_folder(tmp_path, small_scene, untrained_model):
    segment = [*COMMAND, "segment", small_scene, "-o", "result.gpkg", "--model", untrained_model]
    done = on_a_disk("ro", '"$@"; code=$?; ls -A; exit $code', tmp_path, *segment)
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert "Read-only" in only_line(done.stderr)


def test_a_scene_without_a_crs_is_done_with_a_warning(capsys, tmp_path, untrained_model):
    scene = write_raster(tmp_path / "plain.tif", np.full((3, 80, 120), 90, np.uint8), crs=None, transform=None)
    output = tmp_path / "result.gpkg"
    assert main(["segment", str(scene), "-o", str(output), "--model", str(untrained_model)]) == 0
    assert "no CRS" in capsys.readouterr().err
    layer = gpd.read_file(output, layer="instances")
    assert layer.crs is None
    # QGIS shows such a scene below the x axis, a pixel a unit.
    assert box(0, -80, 120, 0).buffer(0.01).covers(box(*layer.total_bounds))


def test_layers(capsys, tmp_path, results):
    layer = results / "earlier.gpkg"
    text = tmp_path / "text.gpkg"
    text.write_text("not a layer")
    for wrong in (tmp_path / "missing.gpkg", text):
        assert wrong.name in said_of(capsys, "evaluate", layer, wrong)
        assert wrong.name in said_of(capsys, "evaluate", wrong, layer)
        assert wrong.name in said_of(capsys, "export", wrong, "-o", tmp_path / "out.geojson")
    assert "IoU" in said_of(capsys, "evaluate", layer, layer, "--iou", "2")
    assert "'.xyz'" in said_of(capsys, "export", layer, "-o", tmp_path / "out.xyz")
    assert "is there already" in said_of(capsys, "export", layer, "-o", layer)


def test_what_is_wrong_is_told_before_torch_is_loaded(tmp_path, small_scene):
    scene = str(small_scene)
    refused = [
        (["missing.tif"], "missing.tif does not exist"),
        (["@"], "names no list"),
        ([scene, "-o", "out.xyz"], "'.xyz'"),
        ([scene, "-o", "missing/out.gpkg"], "does not exist"),
        ([scene, "--bands", "9"], "band 9"),
        ([scene, "--window", "100"], "multiple of 32"),
        ([scene, "--overlap", "8"], "overlap of 8 px"),
        ([scene, "--score", "7"], "least score 7"),
        ([scene, "--resolution", "-1"], "-1 m a pixel"),
        ([scene, "--bbox", "0", "0", "1", "1"], "outside"),
        ([scene, "--cluster", "local:none"], "local:"),
        ([scene, "--picture", "out.jpg"], ".png"),
        ([scene, "--model", "missing.safetensors"], "no model file missing.safetensors"),
        ([scene, "--model", scene], "not a model file"),
        ([scene, "--classes", "ship,unicorn"], "'unicorn' is not known"),
        ([scene, "--device", "toaster"], "unknown device 'toaster'"),
    ]
    code = (
        "import json, sys, rs4d_core.cli as cli\n"
        "for arguments in json.loads(sys.argv[1]):\n"
        "    print(cli.main(['segment', '-o', 'out.gpkg', *arguments]), 'torch' in sys.modules)"
    )
    arguments = json.dumps([arguments for arguments, _ in refused])
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["2 False"] * len(refused), done.stderr
    for line, (_, words) in zip(done.stderr.splitlines(), refused, strict=True):
        assert words in line
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_says_one_line_too(tmp_path, untrained_model):
    done = subprocess.run(
        [*COMMAND, "segment", "missing.tif", "-o", "out.gpkg", "--model", untrained_model],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.tif" in only_line(done.stderr)
    assert list(tmp_path.iterdir()) == []
