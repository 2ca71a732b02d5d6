"""The plugin as it is installed from its zip, in a real QGIS desktop."""

import runpy
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
SCENARIOS = HERE / "plugin_scenarios.py"
ENTRIES = ["Check engine...", "Review...", "Segment...", "Set up engine..."]


def install(tmp_path: Path) -> None:
    """As the plugin manager does."""
    package = runpy.run_path(str(HERE.parents[1] / "package_plugin.py"))["build"](tmp_path / "dist")
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path / "profiles" / "profiles" / "default" / "python" / "plugins")


def test_it_starts_fast_shows_its_dialogs_and_leaves_nothing_behind(desk, tmp_path):
    install(tmp_path)
    told = desk(SCENARIOS, "whole_life")
    assert told["entries"] == ENTRIES
    assert told["on_toolbar"]
    assert told["provider"]
    assert told["process_at_start"] is None
    assert told["check"] == "The engine works."
    assert f"-m venv {tmp_path}/profiles/profiles/default/rs4d/engine" in told["commands"]
    assert told["left_after_unload"] == {"entries": [], "provider": False, "process": False, "modules": []}
    assert told["start_ms"] < 100
    assert told["entries_again"] == ENTRIES


def test_without_an_engine_qgis_starts_as_ever_and_the_dialog_says_what_to_do(desk, tmp_path):
    install(tmp_path)
    told = desk(SCENARIOS, "whole_life", engine=None, PATH="/usr/bin:/bin")
    assert told["check"] == "There is no engine."
    assert told["entries"] == ENTRIES
    assert "rs4d" not in told["stderr"].lower()
