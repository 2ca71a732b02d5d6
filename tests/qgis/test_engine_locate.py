"""Which Python the plugin takes for the engine."""

import os
import sys
import time
from pathlib import Path

import pytest
from qgis.core import QgsApplication

from rs4d_qgis import settings
from rs4d_qgis.engine import locate
from rs4d_qgis.engine.environment import UNFINISHED, clean_environment
from rs4d_qgis.engine.errors import EngineNotFound
from rs4d_qgis.engine.locate import EngineLocation, locate_engine, managed_folder, missing_engine


@pytest.fixture(autouse=True)
def bare_machine(qgis_app, tmp_path, monkeypatch):
    """A profile of its own, an installed plugin, an empty PATH: nowhere an engine."""
    monkeypatch.setattr(QgsApplication, "qgisSettingsDirPath", staticmethod(lambda: f"{tmp_path}/profile/"))
    monkeypatch.setattr(locate, "checkout_folder", lambda: None)
    monkeypatch.delenv(locate.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    before = settings.interpreter()
    settings.set_interpreter("")
    yield
    settings.set_interpreter(before)


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def test_without_any_the_next_step_is_told():
    with pytest.raises(EngineNotFound, match="Set up engine"):
        locate_engine()
    assert "Set up engine..." in missing_engine()


def test_each_place_comes_before_the_next(tmp_path, monkeypatch):
    on_path = program(tmp_path / "env" / "bin" / "python")
    program(tmp_path / "bin" / "rs4d", f"#!{on_path}\n")
    assert locate_engine() == EngineLocation(str(on_path), "path")
    managed = program(managed_folder() / "bin" / "python")
    assert locate_engine() == EngineLocation(str(managed), "managed")
    checkout = program(tmp_path / "checkout" / ".venv" / "bin" / "python")
    monkeypatch.setattr(locate, "checkout_folder", lambda: checkout.parents[2])
    assert locate_engine() == EngineLocation(str(checkout), "checkout")
    named = program(tmp_path / "named" / "python")
    monkeypatch.setenv(locate.VARIABLE, str(named))
    assert locate_engine() == EngineLocation(str(named), "environment")
    chosen = program(tmp_path / "chosen" / "python")
    settings.set_interpreter(str(chosen))
    assert locate_engine() == EngineLocation(str(chosen), "setting")
    assert missing_engine() is None


def test_what_the_user_named_is_not_replaced_silently(tmp_path, monkeypatch):
    program(managed_folder() / "bin" / "python")
    monkeypatch.setenv(locate.VARIABLE, str(tmp_path / "gone"))
    with pytest.raises(EngineNotFound, match=r"gone, does not exist: correct that variable"):
        locate_engine()
    settings.set_interpreter(str(tmp_path / "lost"))
    with pytest.raises(EngineNotFound, match=r"lost, does not exist: choose another"):
        locate_engine()


def test_a_half_made_environment_is_not_taken(tmp_path):
    program(managed_folder() / "bin" / "python")
    (managed_folder() / UNFINISHED).touch()
    with pytest.raises(EngineNotFound, match=r"was not finished: .*to go on with it"):
        locate_engine()


@pytest.mark.parametrize(
    "script",
    [
        "#!{python}\nimport rs4d_core.cli\n",
        # What pip writes where the path is too long for a first line, or has blanks.
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\nimport rs4d_core.cli\n",
    ],
)
def test_a_command_on_path_tells_its_interpreter(tmp_path, script):
    python = program(tmp_path / "an environment" / "bin" / "python3.12")
    installed = program(tmp_path / "elsewhere" / "rs4d", script.format(python=python))
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rs4d").symlink_to(installed)
    assert locate_engine() == EngineLocation(str(python), "path")


def test_the_real_command_of_a_checkout_tells_its_interpreter(monkeypatch):
    folder = Path(__file__).resolve().parents[2] / ".venv" / "bin"
    monkeypatch.setenv("PATH", str(folder))
    located = locate_engine()
    assert located.source == "path"
    assert Path(located.python).parent == folder


def test_it_is_fast_enough_to_be_asked_at_any_time(tmp_path):
    program(managed_folder() / "bin" / "python")
    start = time.perf_counter()
    for _ in range(20):
        locate_engine()
    assert (time.perf_counter() - start) / 20 < 0.02


def test_nothing_of_qgis_reaches_the_engine(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "PROJ_LIB", "PROJ_DATA", "GDAL_DATA"):
        monkeypatch.setenv(name, "/of/qgis")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    environment = clean_environment()
    assert "/of/qgis" not in environment.values()
    assert environment["PYTHONNOUSERSITE"] == "1"
    assert environment["HTTPS_PROXY"] == "http://proxy:3128"
    assert os.environ["PYTHONPATH"] == "/of/qgis"
    assert sys.modules.keys().isdisjoint({"torch", "rasterio", "shapely", "geopandas"})
