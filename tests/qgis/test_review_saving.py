"""Nothing that an analyst has done is lost: decisions and edits, with real files, locks, full disks and kills."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from qgis.core import (
    QgsCoordinateTransformContext,
    QgsFeature,
    QgsGeometry,
    QgsProject,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QCoreApplication, QEvent
from review_layer import contents, opened, statuses, write_layer

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.keeping.keeper import kept_file
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.order import Order
from rs4d_qgis.review.reviewed.fields import add_review_fields, missing_fields

ROOT = Path(__file__).resolve().parents[2]
SQUARE = "MultiPolygon(((440000 4640000, 440005 4640000, 440005 4640005, 440000 4640005, 440000 4640000)))"
# Locks a file as another program would that writes to it; until it is killed.
_LOCK = """
import sqlite3, sys, time
file = sqlite3.connect(sys.argv[1], isolation_level=None)
file.execute("BEGIN IMMEDIATE")
file.execute("CREATE TABLE other (id)")
print("locked", flush=True)
time.sleep(60)
"""
# An analyst who edits, decides on one object after the other, and is killed. Each decision is told once it is made.
_ANALYST = """
import sys, time
from pathlib import Path
sys.path[:0] = sys.argv[1:3]
from qgis.core import QgsApplication, QgsFeature, QgsGeometry
app = QgsApplication([], False)
app.initQgis()
from review_layer import opened
from rs4d_qgis.review.desk_state import DeskState
desk = DeskState(None)
desk.review(opened(Path(sys.argv[3])))
with desk.reviewed.edit("Edit") as layer:
    layer.deleteFeature(1)
    layer.changeGeometry(2, QgsGeometry.fromWkt(sys.argv[4]))
    layer.changeAttributeValue(2, layer.fields().indexOf("edited"), True)
    feature = QgsFeature(layer.fields())
    feature.setGeometry(QgsGeometry.fromWkt(sys.argv[4]))
    feature.setAttribute("class", "ship")
    feature.setAttribute("status", "accepted")
    layer.addFeature(feature)
while desk.session.current is not None:
    item = desk.session.current
    desk.decide([item], "accepted")
    print(item, flush=True)
    until = time.monotonic() + 0.02
    while time.monotonic() < until:
        app.processEvents()
"""


@pytest.fixture
def path(qgis_app, tmp_path) -> Path:
    write_layer(tmp_path / "objects.gpkg", 60)
    return tmp_path / "objects.gpkg"


@pytest.fixture
def desk(qgis_app, path, qgis_iface):
    desk = DeskState(qgis_iface)
    layer = QgsProject.instance().addMapLayer(opened(path))
    desk.review(layer)
    yield desk
    desk.review(None)
    layer.rollBack()
    QgsProject.instance().clear()


def wait_until(condition, seconds=5.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        QCoreApplication.processEvents()


def test_a_decision_is_in_the_file_at_once_and_one_step_of_the_layer_s_own_undo(desk, path):
    layer, stack = desk.reviewed.layer, desk.reviewed.layer.undoStack()
    before = contents(layer)
    desk.reviewed.decide([1, 2, 3], ACCEPTED)
    desk.reviewed.set_class([3], "crane")
    desk.reviewed.decide([2], REJECTED)
    assert not layer.isEditable()
    after = contents(layer)
    assert contents(opened(path)) == after
    assert {item: status for item, status in statuses(layer).items() if status != PENDING} == {
        1: ACCEPTED,
        2: REJECTED,
        3: ACCEPTED,
    }
    assert layer.getFeature(3)["class"] == "crane"
    assert [stack.text(step) for step in range(stack.count())] == [
        "Accept 3 objects",
        "Set class crane on 1 object",
        "Reject 1 object",
    ]
    for _ in range(3):
        desk.reviewed.undo()
    assert contents(layer) == contents(opened(path)) == before
    for _ in range(3):
        desk.reviewed.redo()
    assert contents(layer) == contents(opened(path)) == after


def test_decisions_and_edits_are_taken_back_in_the_sequence_in_which_they_were_made(desk, path):
    layer = desk.reviewed.layer
    states = [contents(layer)]

    def edit():
        with desk.reviewed.edit("Reshape"):
            layer.changeGeometry(5, QgsGeometry.fromWkt(SQUARE))

    def draw():
        with desk.reviewed.edit("Draw"):
            feature = QgsFeature(layer.fields())
            feature.setGeometry(QgsGeometry.fromWkt(SQUARE))
            layer.addFeature(feature)

    def drawn():
        return next(item for item in statuses(layer) if item < 0)

    for act in (
        lambda: desk.reviewed.decide([5], ACCEPTED),
        edit,
        lambda: desk.reviewed.decide([5, 6], REJECTED),
        draw,
        lambda: desk.reviewed.decide([drawn(), 7], ACCEPTED),
        lambda: desk.reviewed.set_class([drawn()], "ship"),
    ):
        act()
        states.append(contents(layer))
    assert len(set(map(str, states))) == 7
    for state in reversed(states[:-1]):
        desk.reviewed.undo()
        assert contents(layer) == state
    for state in states[1:]:
        desk.reviewed.redo()
        assert contents(layer) == state


def test_discarding_edits_in_qgis_discards_no_decision_and_saving_them_keeps_both(desk, path):
    layer = desk.reviewed.layer
    desk.reviewed.decide([1], ACCEPTED)
    with desk.reviewed.edit("Remove"):
        layer.deleteFeature(2)
    desk.reviewed.decide([3], REJECTED)
    layer.rollBack()
    assert {item: status for item, status in statuses(opened(path)).items() if status != PENDING} == {
        1: ACCEPTED,
        3: REJECTED,
    }
    assert 2 in desk.session.objects
    assert desk.session.objects[3].status == REJECTED
    with desk.reviewed.edit("Remove"):
        layer.deleteFeature(2)
    desk.reviewed.save_edits()
    assert 2 not in statuses(opened(path))
    assert statuses(opened(path))[1] == ACCEPTED


def decide_and_edit(desk):
    """Two decisions with an edit between them; gives what the file is to hold of statuses, whatever comes."""
    desk.reviewed.decide([1], ACCEPTED)
    with desk.reviewed.edit("Remove") as layer:
        layer.deleteFeature(2)
    desk.reviewed.decide([3], REJECTED)
    return {item: {1: ACCEPTED, 3: REJECTED}.get(item, PENDING) for item in range(1, 61)}


@pytest.mark.parametrize("leave", ["close", "switch"])
def test_edits_that_are_discarded_after_the_review_take_no_decision_along(desk, path, tmp_path, capsys, leave):
    layer, expected = desk.reviewed.layer, decide_and_edit(desk)
    write_layer(tmp_path / "other.gpkg", 5)
    desk.review(opened(tmp_path / "other.gpkg") if leave == "switch" else None)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    layer.rollBack()
    assert statuses(opened(path)) == statuses(layer) == expected
    assert capsys.readouterr().err == ""


def test_qgis_s_undo_after_the_review_takes_back_edits_and_no_decision(desk, path, capsys):
    layer, expected = desk.reviewed.layer, decide_and_edit(desk)
    desk.review(None)
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
    stack = layer.undoStack()
    while stack.canUndo():
        stack.undo()
    assert statuses(opened(path)) == statuses(layer) == expected
    while stack.canRedo():
        stack.redo()
    assert statuses(opened(path)) == expected
    assert statuses(layer) == {item: status for item, status in expected.items() if item != 2}
    assert capsys.readouterr().err == ""


def test_undo_in_the_next_review_passes_over_decisions_of_the_last_one(desk, path):
    layer, expected = desk.reviewed.layer, decide_and_edit(desk)
    desk.review(None)
    desk.review(layer)
    desk.undo()
    assert statuses(layer) == expected
    assert not desk.reviewed.can_undo()


def test_a_status_that_is_in_qgis_s_edit_buffer_is_decided_on_there(desk):
    layer = desk.reviewed.layer
    layer.startEditing()
    layer.changeAttributeValue(1, desk.reviewed.field("status"), REJECTED)  # as in the table of attributes
    desk.reviewed.decide([1, 2], ACCEPTED)
    assert statuses(layer)[1] == statuses(layer)[2] == ACCEPTED
    desk.reviewed.undo()
    assert (statuses(layer)[1], statuses(layer)[2]) == (REJECTED, PENDING)


def test_the_queue_follows_what_qgis_s_own_tools_do(desk):
    layer = desk.reviewed.layer
    layer.startEditing()
    gone = desk.session.current
    layer.deleteFeature(gone)
    wait_until(lambda: gone not in desk.session.objects)
    assert desk.session.current != gone
    layer.undoStack().undo()
    wait_until(lambda: gone in desk.session.objects)
    feature = QgsFeature(layer.fields())
    feature.setGeometry(QgsGeometry.fromWkt(SQUARE))
    layer.addFeature(feature)
    wait_until(lambda: len(desk.session.objects) == 61)
    layer.commitChanges()
    assert len(desk.session.objects) == 61
    assert min(desk.session.objects) > 0


def test_what_another_program_locks_is_kept_in_memory_and_written_once_it_can_be(desk, path):
    told = []
    desk.saving_changed.connect(lambda: told.append((len(desk.reviewed.waiting), desk.reviewed.trouble)))
    locker = subprocess.Popen([sys.executable, "-c", _LOCK, path], stdout=subprocess.PIPE, text=True)
    try:
        assert locker.stdout.readline() == "locked\n"
        started = time.monotonic()
        desk.decide([1], ACCEPTED)
        desk.decide([2], REJECTED)
        desk.reviewed.set_class([2], "crane")
        assert time.monotonic() - started < 1.0
        assert (2, "another program has locked the file") in told
        assert statuses(desk.reviewed.layer)[1] == PENDING
        assert desk.session.objects[1].status == ACCEPTED
        assert desk.session.objects[2][1:4:2] == ("crane", REJECTED)
        desk.undo()
        assert desk.session.objects[2].class_name == "ship"
    finally:
        locker.kill()
        locker.wait()
    wait_until(lambda: not desk.reviewed.waiting)
    assert told[-1] == (0, "")
    desk.saving_changed.disconnect()
    there = statuses(opened(path))
    assert (there[1], there[2], opened(path).getFeature(2)["class"]) == (ACCEPTED, REJECTED, "ship")


def test_a_full_disk_is_told_and_takes_nothing_away(desk, path):
    desk.reviewed.decide([1], ACCEPTED)
    with desk.reviewed.edit("Remove"):
        desk.reviewed.layer.deleteFeature(9)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limits[1]))  # no file can grow, nor be written beyond that
    try:
        desk.reviewed.decide(range(2, 50), REJECTED)
        assert desk.reviewed.trouble == "the disk is full, or the file cannot be written"
        assert len(desk.reviewed.waiting) == 47  # but for the one that is removed
        with pytest.raises(ReviewRefused, match="could not be saved, and are kept in memory"):
            desk.reviewed.save_edits()
        assert desk.reviewed.unsaved_edits() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert desk.reviewed.save_decisions()
    desk.reviewed.save_edits()
    there = statuses(opened(path))
    assert 9 not in there
    assert [there[item] for item in (1, 2, 49, 50)] == [ACCEPTED, REJECTED, REJECTED, PENDING]


def test_a_read_only_layer_can_be_looked_through_but_says_so(qgis_app, qgis_iface, path, tmp_path):
    with zipfile.ZipFile(tmp_path / "packed.zip", "w") as archive:
        archive.write(path, "objects.gpkg")
    layer = QgsVectorLayer(f"/vsizip/{tmp_path}/packed.zip/objects.gpkg|layername=instances", "packed", "ogr")
    desk = DeskState(qgis_iface)
    desk.review(layer)
    desk.decide([1], ACCEPTED)
    assert desk.reviewed.trouble == "the layer is read-only"
    assert desk.session.objects[1].status == ACCEPTED
    with pytest.raises(ReviewRefused, match="read-only: save it as a GeoPackage"), desk.reviewed.edit("Edit"):
        pass
    desk.keeper.write()
    desk.review(None)
    # Also after that, and in another session.
    desk.review(layer)
    assert desk.keeper.found == [{"decisions": {"1": {"status": ACCEPTED}}}]
    desk.keeper.restore()
    assert desk.session.objects[1].status == ACCEPTED
    desk.review(None)


def test_a_project_of_transactions_is_refused_with_what_to_do(desk, path, qgis_iface):
    project = QgsProject.instance()
    project.setAutoTransaction(True)
    try:
        other = DeskState(qgis_iface)
        with pytest.raises(ReviewRefused, match=r"as one transaction.*Transaction mode"):
            other.review(desk.reviewed.layer)
        assert other.reviewed is None
        with pytest.raises(ReviewRefused, match="as one transaction"), desk.reviewed.edit("Edit"):
            pass
        desk.decide([1], REJECTED)  # nobody edits yet: it is in the file
        assert statuses(opened(path))[1] == REJECTED
    finally:
        project.setAutoTransaction(False)


@pytest.mark.parametrize("end", ["rollBack", "commitChanges"])
def test_decisions_are_not_lost_with_a_transaction_that_was_begun_in_the_middle_of_a_review(desk, path, end):
    layer, project = desk.reviewed.layer, QgsProject.instance()
    project.setAutoTransaction(True)
    try:
        assert layer.startEditing()
        assert layer.dataProvider().transaction() is not None
        layer.deleteFeature(5)
        desk.decide([1], ACCEPTED)
        assert desk.reviewed.trouble == "the edits of this project are one transaction: save them"
        assert desk.session.objects[1].status == ACCEPTED
        assert statuses(opened(path))[1] == PENDING
        getattr(layer, end)()
        assert desk.reviewed.save_decisions()
    finally:
        project.setAutoTransaction(False)
    saved = statuses(opened(path))
    assert (saved[1], 5 in saved) == (ACCEPTED, end == "rollBack")


def test_the_queue_goes_on_where_it_was(desk):
    layer = desk.reviewed.layer
    desk.set_order(Order.HIGH_SCORE)
    desk.set_filters(Filters(frozenset({"ship", "vehicle"}), frozenset({PENDING}), 0.3, 0.9, {"ship": 0.4}))
    for _ in range(5):
        desk.decide([desk.session.current], ACCEPTED)
    current, shown = desk.session.current, desk.session.shown
    desk.review(None)
    desk.review(layer)
    assert (desk.session.current, desk.session.shown) == (current, shown)
    # The object that was looked at was decided on just before a crash: what comes after it.
    desk.reviewed.layer.dataProvider().changeAttributeValues({current: {desk.reviewed.field("status"): REJECTED}})
    desk.review(layer)
    assert desk.session.current == shown[1]


def test_killed_while_deciding_and_editing_nothing_but_the_last_seconds_is_lost(qgis_app, qgis_iface, tmp_path):
    path = tmp_path / "killed.gpkg"
    write_layer(path, 400)
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    command = [sys.executable, "-c", _ANALYST, ROOT, ROOT / "tests" / "qgis", path, SQUARE]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as analyst:
        started = None
        for line in analyst.stdout:
            started = started or time.monotonic()
            lines.append(line)
            if time.monotonic() - started > 3.0:
                break
        analyst.send_signal(signal.SIGKILL)
    layer = opened(path)
    there = statuses(layer)
    assert len(there) == 400
    decided = [int(line) for line in lines]  # each of them: better than the 5 s that are promised
    assert len(decided) > 20
    assert all(there[item] == ACCEPTED for item in decided)

    desk = DeskState(qgis_iface)
    desk.review(layer)
    assert desk.session.current not in decided
    (work,) = desk.keeper.found
    assert work["removed"] == [1]
    assert desk.keeper.restore() == "The unsaved work is restored."
    assert 1 not in desk.session.objects
    assert layer.getFeature(2)["edited"]
    assert layer.getFeature(2).geometry().equals(QgsGeometry.fromWkt(SQUARE))
    assert [desk.session.objects[item][1:4] for item in desk.session.objects if item < 0] == [("ship", None, ACCEPTED)]
    desk.reviewed.save_edits()
    assert len(statuses(opened(path))) == 400
    desk.review(None)
    desk.review(layer)
    assert desk.keeper.found == []
    desk.review(None)


def test_work_that_was_found_is_kept_until_the_analyst_decides(desk):
    layer = desk.reviewed.layer
    with desk.reviewed.edit("Remove"):
        layer.deleteFeature(1)
    desk.keeper.write()
    desk.keeper._reviewed = None  # as a crash: not even closed
    desk.review(None)
    layer.rollBack()
    desk.review(layer)
    assert desk.keeper.found_count() == 1
    with desk.reviewed.edit("Remove"):
        layer.deleteFeature(2)
    desk.keeper.write()
    desk.keeper._reviewed = None
    desk.review(None)
    layer.rollBack()
    desk.review(layer)
    assert desk.keeper.found == [{"removed": [1]}, {"removed": [2]}]
    desk.keeper.restore()
    assert desk.session.objects.keys() == set(range(3, 61))
    desk.reviewed.undo()
    assert len(desk.session.objects) == 60


@pytest.mark.parametrize("end", ["rollBack", "commitChanges"])
def test_edits_that_are_there_or_were_ended_by_the_user_are_no_work_of_a_crash(desk, end):
    layer = desk.reviewed.layer
    with desk.reviewed.edit("Remove"):
        layer.deleteFeature(1)
    desk.review(None)
    (work,) = json.loads(kept_file(layer.source()).read_text())["unsaved"]
    assert work == {"removed": [1]}  # a crash now would take it
    desk.review(layer)
    assert (desk.keeper.alone, desk.keeper.found) == (True, [])
    desk.review(None)
    getattr(layer, end)()
    assert json.loads(kept_file(layer.source()).read_text())["unsaved"] == []
    desk.review(layer)
    assert (desk.keeper.alone, desk.keeper.found) == (True, [])


@pytest.fixture
def foreign(qgis_app, tmp_path):
    """A layer of one triangle in degrees, with a name and a class, as GeoJSON."""
    path = tmp_path / "foreign.geojson"
    path.write_text(
        '{"type": "FeatureCollection", "features": [{"type": "Feature", "properties": {"name": "shed", "class": "hut"},'
        ' "geometry": {"type": "Polygon", "coordinates": [[[2, 48], [2.001, 48], [2.001, 48.001], [2, 48]]]}}]}'
    )
    yield QgsProject.instance().addMapLayer(QgsVectorLayer(str(path), "foreign", "ogr"))
    QgsProject.instance().clear()


@pytest.mark.parametrize(("driver", "suffix"), [("GPKG", "gpkg"), ("ESRI Shapefile", "shp")])
def test_a_layer_of_others_gets_the_fields_and_keeps_what_it_has(foreign, qgis_iface, tmp_path, driver, suffix):
    path = str(tmp_path / f"foreign.{suffix}")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = driver
    QgsVectorFileWriter.writeAsVectorFormatV3(foreign, path, QgsCoordinateTransformContext(), options)
    layer = QgsVectorLayer(path, "foreign", "ogr")
    with pytest.raises(ReviewRefused, match="has no field score, status, edited, area_m2, run"):
        DeskState(qgis_iface).review(layer)
    add_review_fields(layer)
    layer = QgsVectorLayer(path, "foreign", "ogr")
    (feature,) = layer.getFeatures()
    assert missing_fields(layer) == []
    assert (feature["name"], feature["class"], feature["status"], feature["edited"]) == ("shed", "hut", PENDING, False)
    # Half of 74.6 m by 111.2 m.
    assert feature["area_m2"] == pytest.approx(4147, rel=0.001)
    desk = DeskState(qgis_iface)
    desk.review(layer)
    assert desk.session.objects[feature.id()].score is None
    desk.decide([feature.id()], ACCEPTED)
    assert statuses(QgsVectorLayer(path, "foreign", "ogr")) == {feature.id(): ACCEPTED}
    desk.review(None)


def test_a_layer_with_other_things_in_fields_of_these_names_is_refused(qgis_iface):
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:32631&field=class:integer&field=score:string", "parcels", "memory")
    add_review_fields(layer)
    with pytest.raises(ReviewRefused, match="parcels has other things in the field class, score"):
        DeskState(qgis_iface).review(layer)


def test_fields_are_not_added_beside_those_of_their_names_in_capitals(qgis_app, tmp_path):
    path = str(tmp_path / "parcels.shp")
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName = "ESRI Shapefile"
    memory = QgsVectorLayer("Polygon?crs=EPSG:32631&field=name:string&field=CLASS:string", "parcels", "memory")
    QgsVectorFileWriter.writeAsVectorFormatV3(memory, path, QgsCoordinateTransformContext(), options)
    layer = QgsVectorLayer(path, "parcels", "ogr")
    with pytest.raises(ReviewRefused, match="parcels has CLASS where a review needs class: rename that first"):
        add_review_fields(layer)
    assert QgsVectorLayer(path, "parcels", "ogr").fields().names() == ["name", "CLASS"]
    layer.startEditing()
    layer.renameAttribute(1, "class")
    layer.commitChanges()
    layer.setReadOnly(True)
    with pytest.raises(ReviewRefused, match="it is read-only"):
        add_review_fields(layer)
    layer.setReadOnly(False)
    add_review_fields(layer)
    assert missing_fields(layer) == []


def test_a_format_that_is_written_anew_with_each_change_is_refused_with_what_to_do(foreign):
    before = Path(foreign.source()).read_text()
    with pytest.raises(ReviewRefused, match="Save it as a GeoPackage, and review that"):
        add_review_fields(foreign)
    assert Path(foreign.source()).read_text() == before
    assert foreign.fields().names() == ["name", "class"]
