"""Fixtures of the tests with real QGIS objects and the real engine, which runs as a process of its own."""

import os
import subprocess
from pathlib import Path

import pytest
from qgis.core import QgsApplication

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv" / "bin" / "python"
os.environ.setdefault("RS4D_ENGINE_PYTHON", str(ENGINE_PYTHON))

_MODEL = "import sys; from pathlib import Path; from small_model import write_untrained_model as w; w(Path(sys.argv[1]))"


def run_engine_python(code: str, *arguments: object) -> str:
    """What `code` prints in the engine's Python, in an environment that is not QGIS's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJ_"))}
    environment["PYTHONPATH"] = str(ROOT / "tests" / "core")
    return subprocess.run(
        [ENGINE_PYTHON, "-c", code, *map(str, arguments)],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory) -> Path:
    """A small model file that finds noise: a few boxes in each window of 128 pixels, of ships and vehicles."""
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    run_engine_python(_MODEL, path)
    return path


@pytest.fixture(scope="session")
def provider(qgis_app):
    """The algorithms, as the plugin adds them to QGIS. The engine that they start ends with the tests."""
    from rs4d_qgis.engine.client import engine_client
    from rs4d_qgis.provider import RS4DProvider

    provider = RS4DProvider()
    QgsApplication.processingRegistry().addProvider(provider)
    yield provider
    engine_client().close()
    QgsApplication.processingRegistry().removeProvider(provider)
