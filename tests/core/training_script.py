"""Run a training script as the command line does, in the tests' own process."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run_script(monkeypatch, script: str, *arguments: object) -> int:
    """The exit status of `training/SCRIPT.py ARGUMENTS...`."""
    spec = importlib.util.spec_from_file_location(f"training_{script}", ROOT / "training" / f"{script}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [script, *map(str, arguments)])
    return module.main()
