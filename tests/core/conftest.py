"""Settings and fixtures of the engine's tests."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from small_model import write_untrained_model

from rs4d_core.datasets.synthetic import generate_scene, write_scene
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.runs.tables import read_settings

# The first example of a property may compile a kernel, and the machine may be busy: time decides nothing here.
settings.register_profile("rs4d", deadline=None)
settings.load_profile("rs4d")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory) -> Path:
    """A model file that is whole and small. It finds noise: a few boxes in each window, filled."""
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    write_untrained_model(path)
    return path


@pytest.fixture(scope="session")
def small_scene(tmp_path_factory) -> Path:
    """A generated scene of 256 x 192 pixels of 0.5 m, in UTM."""
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    write_scene(generate_scene(3, 256, 192, 0.5), path)
    return path


@pytest.fixture(scope="session")
def default_classes() -> tuple[str, ...]:
    """The classes of the default model."""
    return read_settings(Recipe, ROOT / "training" / "recipes" / "tiny.toml").model.classes


@pytest.fixture(params=[1, 3])
def threads(request):
    """The test runs once with each of these numbers of threads for torch and for the compiled kernels."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def tiny_disk():
    """A disk of 2 MB."""
    folder = tempfile.mkdtemp()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if not mounted or mounted.returncode:
        os.rmdir(folder)
        pytest.skip("a small disk for this test can only be mounted by root")
    yield Path(folder)
    subprocess.run(["umount", folder], check=True)
    os.rmdir(folder)
