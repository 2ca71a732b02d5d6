"""`./run.sh SCENE`: where its results go, and what becomes of those that were there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import geopandas as gpd
import pytest

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = Path(sys.prefix)

pytestmark = pytest.mark.skipif(
    sys.platform == "win32" or not (ENVIRONMENT / "bin/python").exists(), reason="run.sh is for Linux"
)


@pytest.fixture
def checkout(tmp_path):
    """A folder with run.sh in it whose environment is the one that the tests run in, up to date as it is."""
    folder = tmp_path / "checkout"
    (folder / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / "run.sh", folder)
    text = (ROOT / ".ci/environment.sh").read_text()
    (folder / ".ci/environment.sh").write_text(f"{text}\nengine_environment() {{ :; }}\n")
    (folder / ".venv").symlink_to(ENVIRONMENT)
    return folder


def run(checkout, *arguments):
    return subprocess.run(
        ["bash", checkout / "run.sh", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )


def test_a_second_run_takes_the_place_of_the_first_and_keeps_it_beside(checkout, small_scene, untrained_model):
    found = checkout / "out" / f"{small_scene.stem}.gpkg"
    first = run(checkout, small_scene, "--model", untrained_model)
    assert first.returncode == 0, first.stderr
    assert "earlier" not in first.stderr
    alone = gpd.read_file(found, layer="instances")
    second = run(checkout, small_scene, "--model", untrained_model)
    assert second.returncode == 0, second.stderr
    assert f"{small_scene.stem}-earlier.gpkg" in second.stderr
    again = gpd.read_file(found, layer="instances")
    assert len(again) == len(alone) > 0
    assert again["run"].nunique() == 1
    kept = gpd.read_file(found.with_stem(f"{small_scene.stem}-earlier"), layer="instances")
    assert set(kept["run"]) == set(alone["run"])


def test_an_output_of_ones_own_is_added_to(checkout, small_scene, untrained_model):
    mine = checkout / "mine.gpkg"
    for _ in range(2):
        done = run(checkout, small_scene, "--model", untrained_model, "-o", mine)
        assert done.returncode == 0, done.stderr
    assert gpd.read_file(mine, layer="instances")["run"].nunique() == 2


@pytest.mark.parametrize("scene", ["", "/"])
def test_a_scene_without_a_name_is_refused(checkout, scene):
    done = run(checkout, scene)
    assert done.returncode == 1
    assert "./run.sh SCENE" in done.stderr
