"""The algorithms in `qgis_process`: where QGIS's GDAL, GEOS and PROJ are in the process, as a Python test has not."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import geopandas
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / ".venv" / "bin"
# Debian's wrapper `qgis_process` passes an option that the program rejects.
PROGRAM = "/usr/bin/qgis_process.bin"


@pytest.fixture(scope="module")
def qgis_process(tmp_path_factory):
    """Runs an algorithm in a fresh profile, and gives what the program printed as JSON."""
    if shutil.which(PROGRAM) is None:
        pytest.skip(f"{PROGRAM} not installed: ./test.sh desktop installs it")
    folder = tmp_path_factory.mktemp("qgis_process")
    plugins = folder / "profiles" / "default" / "python" / "plugins"
    plugins.mkdir(parents=True)
    (plugins / "rs4d_qgis").symlink_to(ROOT / "rs4d_qgis")
    runtime = folder / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJ_", "QT_"))}
    environment |= {
        "QT_QPA_PLATFORM": "offscreen",
        "QGIS_CUSTOM_CONFIG_PATH": str(folder),
        "XDG_RUNTIME_DIR": str(runtime),
        "RS4D_ENGINE_PYTHON": str(ENGINE / "python"),
    }

    def call(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [PROGRAM, *arguments], env=environment, timeout=600, capture_output=True, text=True, check=False
        )

    enabled = call("plugins", "enable", "rs4d_qgis")
    assert enabled.returncode == 0, enabled.stderr

    def run(algorithm: str, **parameters: object) -> dict:
        done = call("--json", "run", algorithm, "--", *(f"{name}={value}" for name, value in parameters.items()))
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    run.call = call
    return run


def polygons(path: Path) -> list[tuple]:
    """Class, score, area and exact outline of all instances of a file, sorted."""
    frame = geopandas.read_file(path, layer=0)
    return sorted(zip(frame["class"], frame["score"], frame["area_m2"], frame.geometry.to_wkb(), strict=True))


def same_as_command(qgis_process, scene: Path, folder: Path, parameters: dict, options: list[str]) -> dict:
    ours, theirs = folder / "qgis.gpkg", folder / "command.gpkg"
    told = qgis_process("rs4d:segment", INPUT=scene, OUTPUT=ours, **parameters)
    subprocess.run([ENGINE / "rs4d", "segment", scene, "-o", theirs, *options], check=True, capture_output=True)
    assert len(polygons(theirs)) > 0
    assert polygons(ours) == polygons(theirs)
    assert geopandas.read_file(ours, layer=0).crs == geopandas.read_file(theirs, layer=0).crs
    return told


def test_it_finds_what_the_command_finds(qgis_process, segmented_scene, tmp_path):
    told = same_as_command(qgis_process, segmented_scene.scene, tmp_path, {"SCORE": 0.4}, ["--score", "0.4"])
    assert told["results"]["INSTANCES"] == segmented_scene.result["instances"]


def test_with_parameters_too(qgis_process, segmented_scene, tmp_path):
    box = (440_020.0, 440_250.0, 4_639_780.0, 4_639_980.0)  # of the scene's CRS, as QGIS orders it
    same_as_command(
        qgis_process,
        segmented_scene.scene,
        tmp_path,
        {
            "EXTENT": f"{','.join(map(str, box))} [EPSG:32631]",
            "CLASSES": "building,vehicle,ship",
            "SCORE": 0.3,
            "RESOLUTION": 0.6,
            "WINDOW": 256,
            "OVERLAP": 64,
            "REGULARIZE": "true",
            "DEVICE": "cpu",
        },
        [
            *("--bbox", str(box[0]), str(box[2]), str(box[1]), str(box[3])),
            *("--bbox-crs", "EPSG:32631", "--classes", "building,vehicle,ship", "--score", "0.3"),
            *("--resolution", "0.6", "--window", "256", "--overlap", "64", "--regularize", "--device", "cpu"),
        ],
    )


def test_on_a_real_scene_and_against_its_reference(qgis_process, data_folder, tmp_path):
    kampala = data_folder / "buildings" / "kampala"
    same_as_command(qgis_process, kampala / "scene_epsg3857.tif", tmp_path, {}, [])
    figures = qgis_process("rs4d:evaluate", PREDICTED=tmp_path / "qgis.gpkg", REFERENCE=kampala / "labels.geojson")
    done = subprocess.run(
        [ENGINE / "rs4d", "evaluate", tmp_path / "command.gpkg", kampala / "labels.geojson", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    command = json.loads(done.stdout)
    for name in ("ap50", "precision", "recall", "f1", "mean_iou"):
        assert figures["results"][name.upper()] == pytest.approx(command[name])


def test_a_refusal_is_told_and_the_exit_code_says_so(qgis_process, segmented_scene, tmp_path):
    done = qgis_process.call(
        *("run", "rs4d:segment", "--", f"INPUT={segmented_scene.scene}", "CLASSES=zebra", f"OUTPUT={tmp_path}/x.gpkg")
    )
    assert done.returncode != 0
    assert "class 'zebra' is not known" in done.stdout + done.stderr
    assert not (tmp_path / "x.gpkg").exists()


def test_all_algorithms_are_listed_and_explain_themselves(qgis_process):
    listed = qgis_process.call("list").stdout
    for name in ("segment", "evaluate", "postprocess", "export"):
        assert f"rs4d:{name}" in listed
    told = qgis_process.call("help", "rs4d:segment").stdout
    assert "RESOLUTION: Resolution to read at" in told
