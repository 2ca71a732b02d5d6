"""Work that is on while what it is for goes away: its layer, its panel, the plugin, QGIS."""

import json
import threading
import time

import pytest
from qgis.core import QgsField, QgsProject
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QCoreApplication, QEvent
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QApplication
from review_dock import on_screen
from review_layer import opened, statuses, write_layer

from rs4d_qgis.compat import FIELD_TEXT
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.errors import Cancelled
from rs4d_qgis.engine.tasks import EngineTask, end_tasks
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING
from rs4d_qgis.plugin import RS4DPlugin
from rs4d_qgis.review.keeping.keeper import kept_file
from rs4d_qgis.review.outcome.work_line import WorkLine


@pytest.fixture
def layer(qgis_app, tmp_path):
    write_layer(tmp_path / "objects.gpkg", 60)
    yield QgsProject.instance().addMapLayer(opened(tmp_path / "objects.gpkg"))
    QgsProject.instance().clear()


@pytest.fixture
def dock(layer, qgis_iface, qgis_canvas):
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        yield dock


def until_cancelled(task):
    while not task.isCanceled():
        time.sleep(0.01)
    raise Cancelled("cancelled")


def test_ending_all_work_leaves_no_thread_and_no_engine(qtbot, provider):
    before = threading.active_count()
    engine_client().request("hello", {})
    tasks = [EngineTask("wait", until_cancelled).start() for _ in range(3)]
    qtbot.waitUntil(lambda: any(task.begun for task in tasks))
    end_tasks()
    assert all(task.over.is_set() for task in tasks if task.begun)  # those that had no thread yet get none
    assert not engine_client().running()
    QTest.qWait(100)
    assert threading.active_count() <= before


def test_work_that_outlives_its_panel_tells_nobody(qtbot, qgis_app):
    line, told, go_on = WorkLine(), [], threading.Event()
    line.start("work", lambda task: go_on.wait(10), told.append)
    task = line._task
    sip.delete(line)
    go_on.set()
    with qtbot.waitSignal(task.succeeded, timeout=10_000):
        pass
    assert told == []


def test_work_that_is_given_up_is_cancelled_and_tells_nothing(qtbot, qgis_app):
    line, told = WorkLine(), []
    qtbot.addWidget(line)
    line.start("work", until_cancelled, told.append)
    task = line._task
    qtbot.waitUntil(lambda: task.begun)
    line.give_up()
    assert not line.busy
    with qtbot.waitSignal(task.failed, timeout=10_000):
        pass
    assert (told, line.told) == ([], "")


def test_a_report_is_given_up_with_its_panel(dock, tmp_path):
    dock.export.write_report(str(tmp_path / "report.pdf"))
    job = dock.export._report._job
    dock.tear_down()
    assert not job.isActive()
    QApplication.processEvents()
    assert not (tmp_path / "report.pdf").exists()


def test_another_file_under_review_is_not_written_to_by_what_was_decided_before(dock, layer, tmp_path):
    dock.desk.decide([1, 2], ACCEPTED)
    write_layer(tmp_path / "other.gpkg", 5)
    layer.setDataSource(f"{tmp_path / 'other.gpkg'}|layername=instances", "other", "ogr")
    assert dock.reviewed is None
    QApplication.processEvents()
    assert dock.reviewed.layer is layer
    assert set(statuses(layer).values()) == {PENDING}
    assert dock.session.left == 5
    dock.desk.undo()
    assert set(statuses(layer).values()) == {PENDING}
    assert statuses(opened(tmp_path / "objects.gpkg"))[1] == ACCEPTED


def test_a_field_that_goes_ends_the_review_and_one_that_comes_does_not(dock, layer):
    layer.dataProvider().addAttributes([QgsField("note", FIELD_TEXT)])
    layer.updateFields()
    assert dock.reviewed is not None
    layer.dataProvider().deleteAttributes([layer.fields().indexOf("status")])
    layer.updateFields()
    QApplication.processEvents()
    assert dock.reviewed is None
    assert "status" in dock.layers._lacking.text()


@pytest.fixture
def plugin(provider, qgis_iface, monkeypatch):
    """As QGIS has it loaded, but for the algorithms, which are there already, and menus, which pytest-qgis lacks."""
    for name in ("addPluginToRasterMenu", "removePluginRasterMenu", "addToolBarIcon", "removeToolBarIcon"):
        monkeypatch.setattr(qgis_iface, name, lambda *_: None, raising=False)
    plugin = RS4DPlugin(qgis_iface)
    monkeypatch.setattr(plugin, "initProcessing", lambda: None)
    plugin.initGui()
    yield plugin
    plugin.unload()


def test_a_plugin_that_is_turned_off_leaves_unsaved_edits_to_qgis(plugin, layer, qgis_iface):
    plugin.review(layer)
    with plugin._review_dock.reviewed.edit("Remove"):
        layer.deleteFeature(1)
    plugin.unload()
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    assert layer.isEditable()
    assert layer.featureCount() == 59
    assert json.loads(kept_file(layer.source()).read_text())["unsaved"] == []
    plugin.initGui()
    plugin.review(layer)
    assert plugin._review_dock.desk.keeper.alone
    layer.rollBack()
