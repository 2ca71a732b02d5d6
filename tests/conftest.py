"""Fixtures for all tiers. Nothing here imports torch or a geo wheel: the QGIS tests run where there are none."""

import os
from pathlib import Path

import pytest

# Before anything imports torch or numpy: the tests share the machine, and a thread a core is seldom faster for them.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "2")
# A thread that waits for another must let it have the processor: on a busy machine spinning costs a hundredfold.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data, which does not travel with the repository. Tests skip where it is missing."""
    folder = Path(os.environ.get("RS4D_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set RS4D_TEST_DATA to its folder")
    return folder
