"""Starts a QGIS desktop on a virtual screen, with a profile of its own and the plugin of this checkout."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENGINE_PYTHON = ROOT / ".venv" / "bin" / "python"


def play(
    folder: Path, scenarios: Path, scenario: str, engine: str | None = str(ENGINE_PYTHON), **variables: str
) -> dict:
    """Plays a scenario of a file by `driver.py`, and returns its report. Profile, home and pictures are in `folder`.

    QGIS has to end by itself, and without an error.
    """
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command, environment = _prepare(folder, scenarios, scenario, engine, variables)
    done = subprocess.run(command, env=environment, timeout=400, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(report.read_text())
    assert "error" not in told, f"{told['error']}\n{done.stderr[-2000:]}"
    return {**told, "stderr": done.stderr}


def play_and_kill(folder: Path, scenarios: Path, scenario: str, until: Callable[[], bool], **variables: str) -> float:
    """Plays a scenario until that is true, then kills QGIS (SIGKILL). Returns when, in seconds since the epoch."""
    pid = folder / "pid.txt"
    pid.unlink(missing_ok=True)
    command, environment = _prepare(folder, scenarios, scenario, None, variables)
    with (
        (folder / "killed.log").open("w") as log,
        subprocess.Popen(command, env=environment, stdout=log, stderr=log) as running,
    ):
        deadline = time.monotonic() + 120
        while not until():
            assert running.poll() is None, (folder / "killed.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        killed = time.time()
        os.kill(int(pid.read_text()), signal.SIGKILL)
    return killed


def _prepare(
    folder: Path, scenarios: Path, scenario: str, engine: str | None, variables: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The command that starts QGIS, and its environment."""
    profile = folder / "profiles" / "profiles" / "default"
    plugins = profile / "python" / "plugins"
    plugins.mkdir(parents=True, exist_ok=True)
    if not (plugins / "rs4d_qgis").exists():
        (plugins / "rs4d_qgis").symlink_to(ROOT / "rs4d_qgis")
    settings = profile / "QGIS" / "QGIS3.ini"
    settings.parent.mkdir(exist_ok=True)
    if not settings.exists():
        settings.write_text("[PythonPlugins]\nrs4d_qgis=true\n")
    home, runtime = folder / "home", folder / "runtime"
    home.mkdir(exist_ok=True)
    runtime.mkdir(mode=0o700, exist_ok=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "PROJ_", "QT_", "RS4D_", "XDG_"))
    }
    environment |= {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(runtime),
        "RS4D_DESK_FOLDER": str(folder),
        "RS4D_DESK_SCENARIOS": str(scenarios),
        "RS4D_DESK_SCENARIO": scenario,
        **variables,
    }
    if engine is not None:
        environment["RS4D_ENGINE_PYTHON"] = engine
    screen = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
    qgis = ["qgis", "--nologo", "--noversioncheck", "--profiles-path", str(folder / "profiles")]
    return [*screen, *qgis, "--profile", "default", "--code", str(HERE / "driver.py")], environment
