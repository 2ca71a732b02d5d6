"""What can be checked of security without a network; see docs/security.md."""

import json
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path
from sysconfig import get_path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
OURS = "rs4d"


def test_bandit_has_nothing_of_weight_to_say():
    code = ("rs4d_core", "rs4d_qgis", "training", "setup.py", "package_plugin.py")
    command = [sys.executable, "-m", "bandit", "-q", "-ll", "-f", "json", "-r", *(str(ROOT / part) for part in code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(done.stdout)
    assert len(report["metrics"]) > 200
    assert report["errors"] == []
    assert [f"{one['filename']}:{one['line_number']} {one['issue_text']}" for one in report["results"]] == []


def test_all_that_is_installed_is_pinned():
    pins: dict[str, set[str]] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            (version,) = pin.specifier
            assert version.operator == "==", line
            if pin.marker is None or pin.marker.evaluate():
                pins.setdefault(_normal(pin.name), set()).add(version.version)
    # Of the environment itself: setuptools, once it is imported, adds the copies that it brings along to the path.
    for found in distributions(path=[get_path("purelib"), get_path("platlib")]):
        name, version = _normal(found.metadata["Name"]), found.version.partition("+")[0]
        if name not in (OURS, "pip", "setuptools", "wheel"):
            assert pins.get(name) == {version}, (
                f"{name} {found.version} is installed, constraints.txt has {pins.get(name)}"
            )


def test_what_is_installed_fits_together():
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def _normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()
