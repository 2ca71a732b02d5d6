"""Export from the desk: real layers with unsaved edits, the real engine, real files."""

import csv
import io
import json
import sqlite3
from contextlib import closing

import pytest
from conftest import run_engine_python, run_processing
from osgeo import gdal
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsGeometry,
    QgsLayoutItemManualTable,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
    QgsSettings,
    QgsVectorFileWriter,
    QgsVectorLayer,
)
from qgis.PyQt.QtWidgets import QMessageBox

from rs4d_qgis.layers.results import result_fields, set_provenance, style_result
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.logic.summary import summarize, to_csv
from rs4d_qgis.review.outcome.export_box import ExportBox
from rs4d_qgis.review.outcome.export_choice import chosen, formats
from rs4d_qgis.review.outcome.report import content_of
from rs4d_qgis.review.outcome.report_page import layout_of

ORIGIN = (440_000.0, 4_640_000.0)
RECORD = {
    "run": "run-1",
    "time": "2026-01-01T12:00:00Z",
    "model": "tiny",
    "model_sha256": "0" * 64,
    "parameters": {"least_scores": {"ship": 0.5, "building": 0.5}, "bands": [1, 2, 3], "resolution_m": 0.5},
    "device": "cpu",
    "seconds": 2.5,
}
OBJECTS = [
    ((0, -20, 20, 10), "ship", 0.9, "accepted"),
    ((50, -20, 10, 10), "building", 0.8, "pending"),
    ((80, -20, 10, 10), "building", 0.4, "rejected"),
    ((100, -60, 10, 10), "building", 0.6, "accepted"),
]


def box(west: float, south: float, width: float, height: float) -> QgsGeometry:
    """In metres from the corner of the scene, northwards below zero."""
    x, y = ORIGIN[0] + west, ORIGIN[1] + south
    return QgsGeometry.fromRect(QgsRectangle(x, y, x + width, y + height))


@pytest.fixture
def layer(provider, utm_scene, tmp_path) -> QgsVectorLayer:
    """A result on disk, with its run."""
    memory = QgsVectorLayer("MultiPolygon?crs=EPSG:32631", "result", "memory")
    memory.dataProvider().addAttributes(result_fields().toList())
    memory.updateFields()
    for place, name, score, status in OBJECTS:
        feature = QgsFeature(memory.fields())
        shape = box(*place)
        shape.convertToMultiType()
        feature.setGeometry(shape)
        feature.setAttributes([name, score, status, False, shape.area(), "run-1"])
        memory.dataProvider().addFeature(feature)
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.driverName, options.layerName = "GPKG", "instances"
    path = tmp_path / "result.gpkg"
    QgsVectorFileWriter.writeAsVectorFormatV3(memory, str(path), QgsProject.instance().transformContext(), options)
    layer = QgsVectorLayer(f"{path}|layername=instances", "harbour result", "ogr")
    style_result(layer, {"ship": "#e41a1c", "building": "#377eb8"})
    set_provenance(layer, {**RECORD, "scene": str(utm_scene)})
    QgsProject.instance().addMapLayer(layer)
    yield layer
    if layer.isEditable():
        layer.rollBack()
    QgsProject.instance().clear()
    QgsSettings().remove("rs4d/last")


@pytest.fixture
def desk(layer, qgis_iface) -> DeskState:
    desk = DeskState(qgis_iface)
    desk.review(layer)
    yield desk
    desk.review(None)


@pytest.fixture
def export(qtbot, desk, qgis_iface):
    """Exports with the desk's box, and gives what it told."""
    widget = ExportBox(desk, qgis_iface)
    qtbot.addWidget(widget)

    def run(kind: str, path, which: str = "not_rejected", **spins) -> str:
        widget.format.setCurrentIndex([each.name for each in formats()].index(kind))
        widget.objects.setCurrentIndex(widget.objects.findData(which))
        widget.file.setFilePath(str(path))
        for name, value in spins.items():
            getattr(widget, name).setValue(value)
        widget.export_button.click()
        qtbot.waitUntil(lambda: not widget.work.busy, timeout=60_000)
        return widget.work.told

    run.widget = widget
    return run


def written(path) -> list[tuple]:
    """Class and status of what a file holds."""
    read = QgsVectorLayer(str(path), "written", "ogr")
    assert read.isValid()
    return sorted((f["class"], f["status"]) for f in read.getFeatures())


@pytest.mark.parametrize(("kind", "suffix"), [("gpkg", "gpkg"), ("geojson", "geojson"), ("shp", "shp"), ("fgb", "fgb")])
def test_every_format_holds_what_is_chosen_with_what_is_not_saved_yet(desk, export, tmp_path, kind, suffix):
    layer = desk.reviewed.layer
    with desk.reviewed.edit("Draw"):
        drawn = QgsFeature(layer.fields())
        drawn.setGeometry(box(130, -90, 8, 8))
        drawn["class"], drawn["status"] = "ship", "accepted"
        layer.addFeature(drawn)
    (pending,) = [item.id for item in desk.session.objects.values() if item.status == "pending"]
    desk.decide([pending], "rejected")
    told = export(kind, tmp_path / "out", "accepted")  # the ending comes by itself
    path = tmp_path / f"out.{suffix}"
    assert written(path) == [("building", "accepted"), ("ship", "accepted"), ("ship", "accepted")]
    assert told.startswith(f"3 objects are in {path} (ship 2, building 1).")
    assert layer.isEditable()


def test_another_format_leaves_dots_in_the_name_alone(export, tmp_path):
    widget = export.widget
    names = [each.name for each in formats()]
    for typed, wanted in (("town_v1.2", "town_v1.2.geojson"), ("town_v1.2.gpkg", "town_v1.2.geojson")):
        widget.format.setCurrentIndex(names.index("gpkg"))
        widget.file.setFilePath(str(tmp_path / typed))
        widget.format.setCurrentIndex(names.index("geojson"))
        assert widget.file.filePath() == str(tmp_path / wanted)
    widget.format.setCurrentIndex(names.index("chips"))
    assert widget.file.filePath() == str(tmp_path / "town_v1.2")


def test_what_is_exported_is_what_the_list_says(desk, export, tmp_path):
    desk.set_filters(Filters(classes=frozenset({"building"}), statuses=frozenset({"pending", "rejected"})))
    labels = [export.widget.objects.itemText(row) for row in range(3)]
    assert labels == ["All but rejected (3)", "Accepted only (2)", "What the queue shows (2)"]
    assert [len(chosen(desk.session, which)) for which in ("not_rejected", "accepted", "shown")] == [3, 2, 2]
    export("fgb", tmp_path / "all.fgb")
    assert [status for _, status in written(tmp_path / "all.fgb")] == ["accepted", "pending", "accepted"]
    export("fgb", tmp_path / "shown.fgb", "shown")
    assert written(tmp_path / "shown.fgb") == [("building", "pending"), ("building", "rejected")]


def test_a_decision_that_a_locked_file_refused_counts_all_the_same(desk, export, tmp_path):
    ship = next(item.id for item in desk.session.objects.values() if item.class_name == "ship")
    with closing(sqlite3.connect(tmp_path / "result.gpkg", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        desk.decide([ship], "rejected")
        assert desk.reviewed.trouble
        export("fgb", tmp_path / "all.fgb")
    assert written(tmp_path / "all.fgb") == [("building", "accepted"), ("building", "pending")]


def test_chips_are_a_data_set(desk, export, tmp_path):
    told = export("chips", tmp_path / "set", "accepted", chip_px=128)
    coco = json.loads((tmp_path / "set" / "annotations.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    found = {(names[a["category_id"]], a["object"], a["iscrowd"]) for a in coco["annotations"]}
    assert found == {("ship", 1, 0), ("building", 2, 1), ("building", 4, 0)}  # the pending one is to be ignored
    assert {(image["width"], image["height"]) for image in coco["images"]} == {(128, 128)}
    assert all((tmp_path / "set" / "images" / image["file_name"]).is_file() for image in coco["images"])
    assert "2 objects are in" in told
    assert f"on {len(coco['images'])} chips" in told
    read = """
import sys
from pathlib import Path
from rs4d_core.datasets.coco import read_coco
folder = Path(sys.argv[1])
samples = read_coco(folder / "annotations.json", folder / "images", ("ship", "building"))
print(sum(len(s.annotations) for s in samples))
"""
    assert run_engine_python(read, tmp_path / "set").strip() == str(len(coco["annotations"]))
    assert "is no empty folder" in export("chips", tmp_path / "set", "accepted", chip_px=128)


def test_chips_of_another_scene_and_resolution(desk, export, tmp_path, utm_scene):
    raster = QgsProject.instance().addMapLayer(QgsRasterLayer(str(utm_scene), "ortho"))
    desk.reviewed.layer.setCustomProperty("rs4d/run", json.dumps({**RECORD, "scene": "/gone.tif"}))
    assert desk.scene() is None
    assert "name it" in export("chips", tmp_path / "set") or "gone.tif" in export("chips", tmp_path / "set")
    export.widget.scene.setLayer(raster)
    export("chips", tmp_path / "set", chip_px=64, resolution=1.0)
    coco = json.loads((tmp_path / "set" / "annotations.json").read_text())
    assert coco["info"]["resolution_m"] == pytest.approx(1.0, rel=0.01)
    assert coco["info"]["scene"] == str(utm_scene)


def test_a_scene_whose_crs_only_qgis_knows_has_its_pixels_cut_and_counted(desk, export, tmp_path, utm_scene):
    scene = tmp_path / "flight 1.tif"
    gdal.Translate(str(scene), str(utm_scene), creationOptions=["PROFILE=BASELINE", "TFW=YES"]).FlushCache()
    scene.with_name("flight 1.tif.aux.xml").unlink(missing_ok=True)
    raster = QgsProject.instance().addMapLayer(QgsRasterLayer(str(scene), "flight"))
    assert not raster.crs().isValid()
    layer = desk.reviewed.layer
    set_provenance(layer, {**RECORD, "scene": str(scene)})
    assert "only one of the layer and the scene “flight” has a CRS" in export("coco", tmp_path / "refused.json")
    raster.setCrs(layer.crs())
    export("coco", tmp_path / "desk.json")
    _, ok, _ = run_processing("rs4d:export", {"INPUT": layer, "OUTPUT": str(tmp_path / "toolbox.json")})
    assert ok
    for name, number in (("desk", 3), ("toolbox", 4)):  # the toolbox does not leave out what was rejected
        coco = json.loads((tmp_path / f"{name}.json").read_text())
        assert coco["images"][0]["file_name"] == "flight 1.tif"
        assert coco["annotations"][0]["bbox"] == pytest.approx([0, 20, 40, 20])  # of half a metre
        assert len(coco["annotations"]) == number
    export("chips", tmp_path / "set", chip_px=64)
    assert len(json.loads((tmp_path / "set" / "annotations.json").read_text())["images"]) > 0
    export.widget.scene.setLayer(raster)
    assert "3 objects are in" in export("chips", tmp_path / "chosen", chip_px=64)


def test_nothing_is_replaced_without_asking(desk, export, tmp_path, monkeypatch):
    asked = []

    def answer(*arguments):
        asked.append(arguments[2])
        return QMessageBox.StandardButton.No

    monkeypatch.setattr(QMessageBox, "question", answer)
    (tmp_path / "old.geojson").write_text("precious")
    export("geojson", tmp_path / "old.geojson")
    assert (tmp_path / "old.geojson").read_text() == "precious"
    assert "old.geojson is there already" in asked[0]
    monkeypatch.setattr(QMessageBox, "question", lambda *_: QMessageBox.StandardButton.Yes)
    export("geojson", tmp_path / "old.geojson")
    assert len(written(tmp_path / "old.geojson")) == 3
    (tmp_path / "old.gpkg").write_text("precious")
    assert "is there already" in export("gpkg", tmp_path / "old.gpkg")
    assert (tmp_path / "old.gpkg").read_text() == "precious"


def test_an_export_can_be_cancelled_and_leaves_nothing(qtbot, desk, export, tmp_path):
    before = sorted(tmp_path.iterdir())
    widget = export.widget
    widget.work.busy_changed.connect(lambda: widget.work.cancel())
    told = export("chips", tmp_path / "set", chip_px=32)
    assert told == "Cancelled; nothing of it is left."
    assert sorted(tmp_path.iterdir()) == before


def test_the_summary_counts_every_class_and_status(desk, export, tmp_path):
    assert export.widget.write_summary(str(tmp_path / "summary.csv"))
    text = (tmp_path / "summary.csv").read_bytes().decode("utf-8-sig")
    rows = {row["class"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    assert set(rows) == {"ship", "building", "(all)"}
    counts = ("accepted", "pending", "rejected", "total")
    assert [rows["building"][name] for name in counts] == ["1", "1", "1", "3"]
    assert [rows["(all)"][name] for name in counts] == ["2", "1", "1", "4"]
    assert float(rows["(all)"]["accepted_area_m2"]) == pytest.approx(300.0)
    assert not export.widget.write_summary(str(tmp_path / "no" / "where.csv"))
    assert "could not be written" in export.widget.work.told


def test_areas_that_are_not_known_are_told_and_names_are_quoted():
    objects = [
        ReviewObject(1, 'a "b", c', 0.5, "accepted", None, 0, 0),
        ReviewObject(2, "", None, "pending", 2.5, 0, 0),
    ]
    rows = list(csv.DictReader(io.StringIO(to_csv(summarize(objects)), newline="")))
    assert [(row["class"], row["total"], row["unknown_areas"]) for row in rows] == [
        ("", "1", "0"),
        ('a "b", c', "1", "1"),
        ("(all)", "2", "1"),
    ]
    assert rows[2]["total_area_m2"] == "2.50"


def test_the_report_is_a_page_with_map_and_table(qtbot, desk, export, tmp_path, qgis_canvas):
    qgis_canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:3857"))
    qgis_canvas.setLayers([desk.reviewed.layer])
    widget = export.widget
    widget.write_report(str(tmp_path / "report.pdf"))
    qtbot.waitUntil(lambda: "report.pdf" in widget.work.told, timeout=60_000)
    page = (tmp_path / "report.pdf").read_bytes()
    assert page.startswith(b"%PDF")
    assert b"/Subtype /Image" in page  # the map
    content = content_of(desk)
    assert (content.summary.all.total, content.summary.all.decided) == (4, 3)
    layout = layout_of(QgsProject.instance(), content, tmp_path / "no map.png")
    tables = [frame for frame in layout.multiFrames() if isinstance(frame, QgsLayoutItemManualTable)]
    told = [str(cell.content()) for table in tables for row in table.tableContents() for cell in row]
    assert {"Ship", "Building"} <= {cell.capitalize() for cell in told}
    assert "The report is in" in widget.work.told
    widget.write_report(str(tmp_path / "result.gpkg" / "where.pdf"))
    qtbot.waitUntil(lambda: "where.pdf" in widget.work.told, timeout=60_000)
    assert "could not be written" in widget.work.told
    assert sorted(path.name for path in tmp_path.glob("*report*")) == ["report.pdf"]
