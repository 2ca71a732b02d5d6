"""What a user does with the plugin as a whole, played in QGIS by `driver.py`."""

import os
import sys
import time
from pathlib import Path

from qgis import utils
from qgis.core import QgsApplication


def _menu(desk):
    """The entries under Raster > RS4D; none where that is not there."""
    entries = [entry for entry in desk.iface.rasterMenu().actions() if entry.menu() and entry.text() == "RS4D"]
    return {action.text(): action for entry in entries for action in entry.menu().actions()}


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def whole_life(desk):
    """Loaded, looked at, turned off, and on again."""
    report = desk.report
    report["entries"] = sorted(_menu(desk))
    report["on_toolbar"] = any(a.objectName() == "rs4dSegment" for a in desk.iface.pluginToolBar().actions())
    report["process_at_start"] = desk.engine_pid()
    report["provider"] = QgsApplication.processingRegistry().providerById("rs4d") is not None

    _menu(desk)["Check engine..."].trigger()
    check = desk.plugin._dialogs["check"]
    yield lambda: check.isVisible() and check._task is None
    report["check"] = check._headline.text()
    check.grab().save(os.environ["RS4D_DESK_FOLDER"] + "/check.png")
    _menu(desk)["Set up engine..."].trigger()
    setup = desk.plugin._dialogs["setup"]
    setup._package_file.setFilePath(str(Path(__file__).resolve().parents[2]))
    yield lambda: setup.isVisible() and setup.options() is not None
    report["commands"] = setup._log.toPlainText()
    setup.grab().save(os.environ["RS4D_DESK_FOLDER"] + "/setup.png")
    desk.shot("desk")

    pid = desk.engine_pid()
    utils.unloadPlugin("rs4d_qgis")
    yield lambda: True  # what is to be deleted later is deleted
    report["left_after_unload"] = {
        "entries": sorted(_menu(desk)),
        "provider": QgsApplication.processingRegistry().providerById("rs4d") is not None,
        "process": pid is not None and _alive(pid),
        # Packages without code of their own escape QGIS's book-keeping, and may stay.
        "modules": [n for n, m in sys.modules.items() if n.startswith("rs4d_qgis") and not hasattr(m, "__path__")],
    }
    start = time.perf_counter()
    utils.loadPlugin("rs4d_qgis")
    utils.startPlugin("rs4d_qgis")
    report["start_ms"] = 1000 * (time.perf_counter() - start)
    report["entries_again"] = sorted(_menu(desk))
    yield lambda: True
