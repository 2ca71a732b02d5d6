"""A real QGIS desktop on a virtual screen, with the plugin of this checkout."""

import functools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from qgis_desktop import play


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., dict]:
    """`play` of `qgis_desktop`, in a folder of the test's own."""
    missing = [name for name in ("qgis", "xvfb-run") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: ./test.sh desktop installs it")
    return functools.partial(play, tmp_path)
