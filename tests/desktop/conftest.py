"""A real QGIS desktop on a virtual screen, with the plugin of this checkout."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
ENGINE_PYTHON = ROOT / ".venv" / "bin" / "python"


@pytest.fixture
def desk(tmp_path: Path) -> Callable[..., dict]:
    """Plays a scenario of a file in QGIS, and returns its report. QGIS has to end by itself, and without an error."""
    missing = [name for name in ("qgis", "xvfb-run") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: ./test.sh desktop installs it")

    def play(scenarios: Path, scenario: str, engine: str | None = str(ENGINE_PYTHON), **variables: str) -> dict:
        profile = tmp_path / "profiles" / "profiles" / "default"
        plugins = profile / "python" / "plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        if not (plugins / "rs4d_qgis").exists():
            (plugins / "rs4d_qgis").symlink_to(ROOT / "rs4d_qgis")
        settings = profile / "QGIS" / "QGIS3.ini"
        settings.parent.mkdir(exist_ok=True)
        if not settings.exists():
            settings.write_text("[PythonPlugins]\nrs4d_qgis=true\n")
        home, runtime = tmp_path / "home", tmp_path / "runtime"
        home.mkdir(exist_ok=True)
        runtime.mkdir(mode=0o700, exist_ok=True)
        report = tmp_path / "report.json"
        report.unlink(missing_ok=True)
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "PROJ_", "QT_", "RS4D_", "XDG_"))
        }
        environment |= {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(runtime),
            "RS4D_DESK_FOLDER": str(tmp_path),
            "RS4D_DESK_SCENARIOS": str(scenarios),
            "RS4D_DESK_SCENARIO": scenario,
            **variables,
        }
        if engine is not None:
            environment["RS4D_ENGINE_PYTHON"] = engine
        screen = ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24"]
        qgis = ["qgis", "--nologo", "--noversioncheck", "--profiles-path", str(tmp_path / "profiles")]
        done = subprocess.run(
            [*screen, *qgis, "--profile", "default", "--code", str(HERE / "driver.py")],
            env=environment,
            timeout=400,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        told = json.loads(report.read_text())
        assert "error" not in told, f"{told['error']}\n{done.stderr[-2000:]}"
        return {**told, "stderr": done.stderr}

    return play
