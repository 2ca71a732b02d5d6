"""The dialogs "Check engine..." and "Set up engine...", with real engines and real set-ups."""

import sys
from pathlib import Path

import pytest
from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QGuiApplication
from qgis.PyQt.QtWidgets import QPushButton
from test_engine_setup import write_wheel

from rs4d_qgis import settings
from rs4d_qgis.engine import locate
from rs4d_qgis.engine.check_dialog import CheckDialog
from rs4d_qgis.engine.client import close_engine
from rs4d_qgis.engine.doctor import examine
from rs4d_qgis.engine.environment import UNFINISHED
from rs4d_qgis.engine.locate import EngineLocation, locate_engine, managed_folder
from rs4d_qgis.engine.pythons import Python
from rs4d_qgis.engine.setup_dialog import SetupDialog
from rs4d_qgis.engine.setup_source import Source

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv" / "bin" / "python"
_PATIENCE_MS = 120_000


@pytest.fixture(autouse=True)
def own_profile(qgis_app, tmp_path, monkeypatch):
    """A profile of its own, an installed plugin, and no engine that the machine happens to have."""
    monkeypatch.setattr(QgsApplication, "qgisSettingsDirPath", staticmethod(lambda: f"{tmp_path}/profile/"))
    monkeypatch.setattr(locate, "checkout_folder", lambda: None)
    for user in ("doctor", "setup_dialog"):
        monkeypatch.setattr(f"rs4d_qgis.engine.{user}.checkout_folder", lambda: None)
    monkeypatch.delenv(locate.VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    settings.set_interpreter("")
    settings.set_model_folders([])
    close_engine()
    yield
    settings.set_interpreter("")
    settings.set_model_folders([])
    close_engine()


@pytest.fixture
def check(qtbot):
    dialog = CheckDialog()
    qtbot.addWidget(dialog)
    yield dialog
    dialog.stop()


@pytest.fixture
def setup(qtbot):
    dialog = SetupDialog()
    qtbot.addWidget(dialog)
    yield dialog
    dialog.stop()


def click(qtbot, dialog, text):
    (button,) = (button for button in dialog.findChildren(QPushButton) if button.text().replace("&", "") == text)
    assert button.isEnabled()
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


def choose_python(qtbot, setup):
    """Wait until the Pythons are found, and take Debian's."""
    qtbot.waitUntil(lambda: isinstance(setup._python.itemData(0), Python), timeout=_PATIENCE_MS)
    setup._python.insertItem(0, "python", Python("/usr/bin/python3", "3", None))
    setup._python.setCurrentIndex(0)
    setup._python.activated.emit(0)


def choose_wheels(setup, folder):
    setup._package.setCurrentIndex(setup._package.findData(Source.WHEELS))
    setup._wheels.setFilePath(str(folder))


def test_without_an_engine_the_ways_to_one_are_told(qtbot, check):
    check.show()
    assert check._headline.text() == "There is no engine."
    assert "pip install FOLDER-WITH-THE-SOURCE-OF-RS4D; then choose" in check._text.toPlainText()
    with qtbot.waitSignal(check.setup_wanted):
        click(qtbot, check, "Set up engine...")


def test_choosing_the_interpreter_checks_it_and_the_report_can_be_copied(qtbot, check, tmp_path):
    (tmp_path / "broken.safetensors").write_text("no model")
    settings.set_model_folders([str(tmp_path)])
    check.show()
    with qtbot.waitSignal(check.engine_changed):
        check._interpreter.lineEdit().setText(str(ENGINE_PYTHON))
        check._interpreter.lineEdit().editingFinished.emit()
    assert settings.interpreter() == str(ENGINE_PYTHON)
    qtbot.waitUntil(lambda: check._task is None, timeout=_PATIENCE_MS)
    assert check._headline.text() == "The engine works."
    shown = check._text.toPlainText()
    for expected in ("chosen in the settings", "torch", "cpu (", "rs4d-tiny, the default: 11 classes"):
        assert expected in shown
    assert f"–\nmodel\n{tmp_path}/broken.safetensors is not a model file" in shown
    click(qtbot, check, "Copy report")
    copied = QGuiApplication.clipboard().text()
    assert copied.startswith("RS4D 0.")
    assert f"interpreter: {ENGINE_PYTHON} (chosen in the settings)" in copied
    assert "ok     rasters: rasterio" in copied


def test_a_python_without_engine_is_told_with_the_next_step(qtbot, check):
    settings.set_interpreter("/usr/bin/python3")
    check.show()
    qtbot.waitUntil(lambda: check._task is None, timeout=_PATIENCE_MS)
    assert "does not work" in check._headline.text()
    assert "has no engine in it" in check._text.toPlainText()
    assert "To mend: choose another interpreter above" in check._text.toPlainText()


@pytest.fixture
def bare_python(tmp_path):
    """The real doctor, in a Python that has nothing of what the engine needs."""
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nshift 3\nexec /usr/bin/python3 -I -c \"import runpy, sys; sys.path.insert(0, '{ROOT}'); "
        "runpy.run_module('rs4d_core.cli', run_name='__main__', alter_sys=True)\" \"$@\"\n"
    )
    python.chmod(0o755)
    return str(python)


def test_what_fails_comes_with_the_command_that_mends_it(qtbot, check, bare_python):
    settings.set_interpreter(bare_python)
    check.show()
    qtbot.waitUntil(lambda: check._task is None, timeout=_PATIENCE_MS)
    assert "FAILED torch: ModuleNotFoundError: No module named 'torch'" in check._report_text
    shown = check._text.toPlainText()
    assert f"To mend: install the engine anew: /usr/bin/python3 -m pip install --force-reinstall {ROOT}" in shown
    assert "✗" in shown
    assert "–\nmamba-ssm" in shown  # absent is no success
    assert "If you want it: /usr/bin/python3 -m pip install" in shown


def test_an_engine_that_the_set_up_made_is_mended_by_it(bare_python):
    report = examine(EngineLocation(bare_python, "managed"), lambda: False)
    mend = {finding.name: finding.mend for finding in report.findings if not finding.ok}
    assert mend["torch"] == "Raster > RS4D > Set up engine..., which repairs it"
    assert mend["default model"] == f"{mend['torch']}; or name a model file with --model"


def test_nothing_can_be_started_before_there_is_a_source(qtbot, setup):
    setup.show()
    choose_python(qtbot, setup)
    assert setup._package.currentData() is Source.FOLDER
    assert not setup._start.isEnabled()
    setup._package_file.setFilePath("/nope")
    assert not setup._start.isEnabled()
    assert setup._status.text().startswith("/nope is not the source of RS4D")
    setup._package_file.setFilePath(str(ROOT))
    assert setup._start.isEnabled()
    assert setup._log.toPlainText().count(f" {ROOT}\n") == 1


def test_the_set_up_shows_its_commands_runs_them_and_is_found(qtbot, setup, tmp_path):
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "0.1.0", "print('all that is needed works')")
    setup.show()
    choose_python(qtbot, setup)
    choose_wheels(setup, wheels)
    planned = setup._log.toPlainText()
    assert f"/usr/bin/python3 -I -m venv {managed_folder()}" in planned
    assert f"--no-index --find-links {wheels} rs4d==0.1.0" in planned
    assert not managed_folder().exists()
    with qtbot.waitSignal(setup.engine_changed, timeout=_PATIENCE_MS):
        click(qtbot, setup, "Set up")
        assert not setup._start.isEnabled()
    assert "Successfully installed rs4d-0.1.0" in setup._log.toPlainText()
    assert setup._status.text() == "The engine is ready."
    assert locate_engine() == EngineLocation(f"{managed_folder()}/bin/python", "managed")


def test_a_set_up_is_cancelled_and_gone_on_with(qtbot, setup, tmp_path):
    wheels = tmp_path / "wheels"
    write_wheel(wheels, "0.1.0", "print('all that is needed works')")
    settings.set_interpreter(str(ENGINE_PYTHON))
    setup.show()
    choose_python(qtbot, setup)
    choose_wheels(setup, wheels)
    click(qtbot, setup, "Set up")
    qtbot.waitUntil(lambda: "[1/3]" in setup._log.toPlainText(), timeout=_PATIENCE_MS)
    click(qtbot, setup, "Cancel")
    qtbot.waitUntil(lambda: setup._task is None, timeout=5_000)
    assert setup._status.text().startswith("Stopped.")
    assert (managed_folder() / UNFINISHED).exists()
    setup.close()
    setup.show()
    choose_python(qtbot, setup)
    assert "goes on from there" in setup._status.text()
    with qtbot.waitSignal(setup.engine_changed, timeout=_PATIENCE_MS):
        click(qtbot, setup, "Set up")
    # The interpreter of the settings comes first, and that is said.
    assert f"another one comes before it: {ENGINE_PYTHON}, chosen in the settings" in setup._status.text()
    click(qtbot, setup, "Use this engine")
    assert locate_engine() == EngineLocation(f"{managed_folder()}/bin/python", "setting")


def test_nothing_of_the_engine_is_in_this_process():
    assert not {"torch", "rasterio", "shapely", "geopandas", "rs4d_core"} & sys.modules.keys()
