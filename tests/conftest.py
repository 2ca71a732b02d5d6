"""Fixtures for all tiers. Nothing here imports torch or a geo wheel: the QGIS tests run where there are none."""

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

# Before anything imports torch or numpy: the tests share the machine, and a thread a core is seldom faster for them.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")

ROOT = Path(__file__).resolve().parent.parent
ENGINE = ROOT / ".venv" / "bin"

_GENERATE = """
import sys
from pathlib import Path
from rs4d_core.datasets.synthetic import generate_scene, truth_features, write_scene
scene = generate_scene(seed=2_000_000_002, width=640, height=512, resolution_m=0.5)
truth_features(scene, write_scene(scene, Path(sys.argv[1]))).to_file(sys.argv[2])
"""


@dataclass(frozen=True)
class SegmentedScene:
    """A generated scene and its truth, what the default model finds, doubtful things too, and what the command said."""

    scene: Path
    truth: Path
    layer: Path
    result: dict


@pytest.fixture
def soon_s() -> float:
    """Seconds that "within two seconds" may take, of a machine that has other things to do."""
    busy = os.getloadavg()[0] / os.cpu_count() if hasattr(os, "getloadavg") else 1.0
    return 4.0 * max(1.0, busy)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data, which does not travel with the repository. Tests skip where it is missing."""
    folder = Path(os.environ.get("RS4D_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set RS4D_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def segmented_scene(tmp_path_factory) -> SegmentedScene:
    """Made by the engine in a process of its own, as QGIS would have it made."""
    folder = tmp_path_factory.mktemp("segmented")
    scene, truth, layer = (folder / name for name in ("scene.tif", "truth.gpkg", "result.gpkg"))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJ_"))}
    subprocess.run([ENGINE / "python", "-c", _GENERATE, scene, truth], env=environment, check=True)
    done = subprocess.run(
        # A low score, so that there is enough to work on whatever model comes along.
        [ENGINE / "rs4d", "segment", scene, "-o", layer, "--score", "0.4", "--json"],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return SegmentedScene(scene, truth, layer, json.loads(done.stdout))
