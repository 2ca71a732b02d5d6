"""The set-up of the engine's environment: its plan, and real runs of it with a wheel that takes no network."""

import os
import threading
import time
import zipfile
from pathlib import Path

import pytest
from qgis.core import QgsSettings

from rs4d_qgis.engine.environment import UNFINISHED, environment_python
from rs4d_qgis.engine.errors import Cancelled
from rs4d_qgis.engine.proxy import proxy_url, proxy_variables, proxy_words
from rs4d_qgis.engine.pythons import find_pythons, probe
from rs4d_qgis.engine.setup_plan import BROKEN, SetupOptions, plan
from rs4d_qgis.engine.setup_run import SetupFailed, set_up
from rs4d_qgis.engine.setup_source import Source, package, problem

CONSTRAINTS = Path(__file__).resolve().parents[2] / "constraints.txt"


def options(folder: Path, **changes) -> SetupOptions:
    defaults = {"folder": folder, "python": "/usr/bin/python3", "package": "rs4d==0.1.0", "constraints": CONSTRAINTS}
    return SetupOptions(**{**defaults, **changes})


def write_wheel(folder: Path, version: str, doctor: str) -> Path:
    """A package of the engine's name whose doctor is the given code."""
    folder.mkdir(exist_ok=True)
    info = f"rs4d-{version}.dist-info"
    files = {
        "rs4d_core/__init__.py": f"__version__ = '{version}'\n",
        "rs4d_core/cli.py": f"import sys\nassert sys.argv[1:] == ['doctor']\n{doctor}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: rs4d\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    path = folder / f"rs4d-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(name, text)
    return path


def never() -> bool:
    return False


# --- the plan


def test_the_plan_makes_an_environment_installs_pinned_versions_and_checks(tmp_path):
    python = str(environment_python(tmp_path))
    make, install, check = (step.command for step in plan(options(tmp_path, package="/home/me/rs4d")))
    assert make == ("/usr/bin/python3", "-I", "-m", "venv", str(tmp_path))
    assert install[:5] == (python, "-I", "-m", "pip", "install")
    assert install[-3:] == ("--constraint", str(CONSTRAINTS), "/home/me/rs4d")
    assert check == (python, "-I", "-m", "rs4d_core.cli", "doctor")


def test_pytorch_and_nothing_else_comes_from_the_index_that_the_user_names(tmp_path):
    index = "https://wheels.example.org/cpu"
    _make, torch, engine, _check = (step.command for step in plan(options(tmp_path, torch_index=index)))
    assert torch[-4:-1] == ("--no-deps", "--index-url", index)
    assert torch[-1] in CONSTRAINTS.read_text().splitlines()
    assert not any("://" in part for part in engine)


def test_a_folder_of_wheels_takes_no_index(tmp_path):
    install = plan(options(tmp_path, wheels=Path("/media/wheels")))[1].command
    assert install[-4:] == ("--no-index", "--find-links", "/media/wheels", "rs4d==0.1.0")
    assert not any("://" in part for part in install)


def test_a_source_that_does_not_exist_is_told_before_anything_starts(tmp_path, monkeypatch):
    source, empty = tmp_path / "source", tmp_path / "empty"
    empty.mkdir()
    (source / "rs4d_core").mkdir(parents=True)
    (source / "rs4d_core" / "__init__.py").touch()
    wheel = str(write_wheel(tmp_path / "wheels", "0.1.0", ""))
    wheels = str(tmp_path / "wheels")
    assert problem(Source.FOLDER, "", "").startswith("Choose the folder")
    for folder in ("/nope", str(source)):
        assert problem(Source.FOLDER, folder, "").startswith(f"{folder} is not the source of RS4D")
    (source / "pyproject.toml").touch()
    assert problem(Source.FOLDER, str(source), "") is None
    assert problem(Source.FOLDER, str(source), str(empty)).startswith(f"{empty} has no wheels in it")
    assert problem(Source.WHEEL, wheels, "").startswith(f"{wheels} is not a wheel")
    assert problem(Source.WHEEL, wheel, "") is None
    assert problem(Source.WHEELS, "", "").startswith("Choose the folder with all wheels")
    assert problem(Source.WHEELS, "", str(empty)).startswith(f"{empty} has no wheel of RS4D 0.")
    assert problem(Source.WHEELS, "", wheels) is None
    monkeypatch.chdir(tmp_path)
    assert package(Source.FOLDER, "source") == str(source)  # pip would take the bare word for a name


def test_commands_are_shown_as_they_are_typed(tmp_path):
    step = plan(options(tmp_path / "my profile", package="/home/me/my checkout"))[1]
    assert f"'{tmp_path}/my profile/bin/python' -I -m pip install" in step.text("Linux")
    assert '"/home/me/my checkout"' in step.text("Windows")


def test_the_proxy_of_qgis_reaches_pip(qgis_app):
    assert proxy_url("HttpProxy", "proxy.org", "3128", "me", "p@ss:word") == "http://me:p%40ss%3Aword@proxy.org:3128"
    assert proxy_url("DefaultProxy", "", "", "", "") is None
    settings = QgsSettings()
    values = {"proxyEnabled": True, "proxyType": "HttpProxy", "proxyHost": "proxy.org", "proxyPort": "3128"}
    values |= {"proxyUser": "me", "proxyPassword": "secret"}
    for name, value in values.items():
        settings.setValue(f"proxy/{name}", value)
    try:
        assert proxy_variables()["HTTPS_PROXY"] == "http://me:secret@proxy.org:3128"
        assert proxy_words() == "http://proxy.org:3128"
    finally:
        settings.remove("proxy")
    assert proxy_variables() == {}


def test_pythons_are_looked_at_by_running_them(tmp_path):
    assert any(python.problem is None for python in find_pythons())
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho '[\"/opt/old/python3\", [3, 8, 18], 64, []]'\n")
    old.chmod(0o755)
    assert probe(str(old)).problem == "it is older than 3.10: choose a newer one"
    assert "does not run as a Python" in probe("/bin/true").problem
    assert "does not run as a Python" in probe(str(tmp_path / "none")).problem


# --- real runs


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> Path:
    """A finished environment, and the ground for what is done to it afterwards."""
    folder = tmp_path_factory.mktemp("profile") / "rs4d" / "engine"
    wheels = folder.parent / "wheels"
    folder.parent.mkdir()
    write_wheel(wheels, "0.1.0", "print('all that is needed works')")
    heard = []
    set_up(options(folder, wheels=wheels), heard.append, never)
    text = "\n".join(heard)
    assert "[1/3] Make the environment" in text
    assert "Successfully installed rs4d-0.1.0" in text
    assert heard[-1] == "all that is needed works"
    return folder


def test_a_finished_set_up_leaves_no_mark_and_a_second_one_changes_nothing(environment):
    assert not (environment / UNFINISHED).exists()
    heard = []
    set_up(options(environment, wheels=environment.parent / "wheels"), heard.append, never)
    assert any("Requirement already satisfied: rs4d==0.1.0" in line for line in heard)
    assert not (environment / UNFINISHED).exists()


def test_what_pip_cannot_find_is_told_and_the_next_set_up_goes_on_from_there(environment):
    wheels = environment.parent / "wheels"
    with pytest.raises(SetupFailed, match=r"“Install the engine” failed with exit code 1: .*rs4d==0\.2\.0"):
        set_up(options(environment, wheels=wheels, package="rs4d==0.2.0"), print, never)
    assert (environment / UNFINISHED).exists()
    wheel = write_wheel(environment.parent / "more", "0.2.0", "print('works')")
    heard = []
    set_up(options(environment, wheels=wheels, package=str(wheel)), heard.append, never)
    assert any("Successfully installed rs4d-0.2.0" in line for line in heard)
    assert not (environment / UNFINISHED).exists()


def test_an_environment_that_does_not_work_is_made_afresh_the_next_time(environment):
    wheel = write_wheel(environment.parent / "bad", "0.3.0", "sys.exit('FAILED: torch does not load')")
    with pytest.raises(SetupFailed, match="“Check it” failed with exit code 1: FAILED: torch does not load"):
        set_up(options(environment, package=str(wheel), wheels=wheel.parent), print, never)
    assert (environment / UNFINISHED).read_text() == BROKEN
    heard = []
    set_up(options(environment, wheels=environment.parent / "wheels"), heard.append, never)
    assert "--clear" in heard[1]
    assert any("Successfully installed rs4d-0.1.0" in line for line in heard)
    assert not (environment / UNFINISHED).exists()


def test_a_cancel_ends_all_that_runs_and_the_next_set_up_repairs(environment, soon_s):
    # The check starts a process of its own and waits for it, as pip does with compilers.
    pids = environment.parent / "pids"
    wheel = write_wheel(
        environment.parent / "slow",
        "0.4.0",
        "import os, subprocess\n"
        "child = subprocess.Popen(['sleep', '1000'])\n"
        f"open({str(pids)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\n"
        "child.wait()",
    )
    stopped = threading.Event()
    answered = []

    def cancelled() -> bool:
        if pids.exists() and pids.read_text().count(" "):
            answered.append(time.monotonic())
            stopped.set()
        return stopped.is_set()

    with pytest.raises(Cancelled):
        set_up(options(environment, package=str(wheel), wheels=wheel.parent), print, cancelled)
    assert time.monotonic() - answered[0] < soon_s
    for pid in map(int, pids.read_text().split()):
        assert _gone(pid)
    assert (environment / UNFINISHED).exists()
    # As if stopped at a worse moment: the interpreter and a part of the package are missing.
    environment_python(environment).unlink()
    next(environment.glob("lib/python3*/site-packages/rs4d_core/cli.py")).unlink()
    set_up(options(environment, wheels=environment.parent / "wheels"), print, never)
    assert not (environment / UNFINISHED).exists()


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SetupFailed, match="choose another folder"):
        set_up(options(tmp_path / "file" / "engine"), print, never)


def _gone(pid: int) -> bool:
    for _ in range(50):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        # A child of a process that has ended stays in the list until init takes note.
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False
