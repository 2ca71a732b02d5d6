"""Edits of the layer under review, on real layers: what they do, that undo and redo are exact, what they refuse."""

import math
import shutil
import sqlite3
from pathlib import Path
from random import Random

import pytest
from qgis.core import NULL, QgsFeature, QgsGeometry, QgsPointXY, QgsVectorFileWriter, QgsVectorLayer
from qgis.PyQt.QtTest import QTest

from rs4d_qgis.layers.area import GroundArea
from rs4d_qgis.layers.results import result_fields
from rs4d_qgis.review.edits import shapes
from rs4d_qgis.review.edits.duplicates import duplicates
from rs4d_qgis.review.edits.editor import Editor
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer

CORNER = (440_000.0, 4_640_000.0)
# Name: class, score, status, outline in metres from the corner.
OBJECTS = {
    "left": ("building", 0.9, "pending", "0 0, 10 0, 10 10, 0 10, 0 0"),
    "right": ("building", 0.6, "accepted", "10 0, 20 0, 20 10, 10 10, 10 0"),
    "court": ("building", 0.8, "pending", "0 20, 20 20, 20 40, 0 40, 0 20), (8 28, 12 28, 12 32, 8 32, 8 28"),
    "wavy": ("building", 0.7, "pending", "40 0, 45 0.1, 50 0, 50 10, 40 10, 40 0"),
    "twin": ("building", 0.3, "pending", "0.5 0.5, 10 0, 10 10, 0 10, 0.5 0.5"),
    "ship": ("ship", 0.5, "rejected", "60 0, 80 0, 80 5, 60 5, 60 0"),
}


def place(text: str) -> str:
    """Coordinates in metres from the corner, as those of the layer."""
    rings = []
    for ring in text.split("), ("):
        points = (point.split() for point in ring.split(", "))
        rings.append(", ".join(f"{CORNER[0] + float(x)} {CORNER[1] + float(y)}" for x, y in points))
    return "), (".join(rings)


def ring(*points: tuple) -> list[QgsPointXY]:
    """Points in metres from the corner."""
    return [QgsPointXY(CORNER[0] + x, CORNER[1] + y) for x, y in points]


def memory_layer() -> QgsVectorLayer:
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:32631", "objects", "memory")
    layer.dataProvider().addAttributes(result_fields().toList())
    layer.updateFields()
    features = []
    for name, score, status, outline in OBJECTS.values():
        feature = QgsFeature(layer.fields())
        geometry = QgsGeometry.fromWkt(f"MULTIPOLYGON((({place(outline)})))")
        feature.setGeometry(geometry)
        # As measured by the engine: nearly what QGIS measures.
        feature.setAttributes([name, score, status, False, geometry.area() * 1.0004, "run 1"])
        features.append(feature)
    assert layer.dataProvider().addFeatures(features)[0]
    return layer


@pytest.fixture(scope="module")
def saved(qgis_app, tmp_path_factory) -> Path:
    """The objects in a GeoPackage."""
    path = tmp_path_factory.mktemp("objects") / "objects.gpkg"
    options = QgsVectorFileWriter.SaveVectorOptions()
    options.layerName = "instances"
    layer = memory_layer()
    error = QgsVectorFileWriter.writeAsVectorFormatV3(layer, str(path), layer.transformContext(), options)[0]
    assert error == QgsVectorFileWriter.WriterError.NoError
    return path


def opened(path: Path) -> QgsVectorLayer:
    layer = QgsVectorLayer(f"{path}|layername=instances", "objects", "ogr")
    assert layer.isValid()
    return layer


class Desk:
    """A layer under review, and its objects by their names."""

    def __init__(self, layer: QgsVectorLayer):
        self.layer = layer
        self.reviewed = ReviewedLayer(layer)
        self.editor = Editor(self.reviewed)
        found = sorted(feature.id() for feature in layer.getFeatures())
        self.ids = dict(zip(OBJECTS, found, strict=False))

    def feature(self, item) -> QgsFeature:
        return self.layer.getFeature(self.ids.get(item, item))

    def shape(self, item) -> QgsGeometry:
        return self.feature(item).geometry()

    def content(self) -> dict:
        """All features, to the byte."""
        return {
            feature.id(): (*map(repr, feature.attributes()), bytes(feature.geometry().asWkb()))
            for feature in self.layer.getFeatures()
        }

    def tear_down(self) -> None:
        self.editor.tear_down()
        self.reviewed.tear_down()
        self.layer.rollBack()


@pytest.fixture(params=["GeoPackage", "memory"])
def desk(request, saved, tmp_path):
    desk = Desk(memory_layer() if request.param == "memory" else opened(shutil.copy(saved, tmp_path)))
    yield desk
    desk.tear_down()


@pytest.fixture
def file_desk(saved, tmp_path):
    desk = Desk(opened(shutil.copy(saved, tmp_path)))
    yield desk
    if desk.layer is not None:
        desk.tear_down()


SPLIT = ring((5, -5), (5, 15))
EDITS = {
    "merge": lambda desk: desk.editor.merge([desk.ids["left"], desk.ids["right"]]),
    "split": lambda desk: desk.editor.split([desk.ids["left"]], SPLIT),
    "cut a hole": lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((2, 2), (4, 2), (4, 4))),
    "fill holes": lambda desk: desk.editor.fill_holes([desk.ids["court"]]),
    "redraw": lambda desk: desk.editor.redraw(desk.ids["left"], shapes.drawn(ring((0, 0), (9, 0), (9, 9)))),
    "draw": lambda desk: desk.editor.draw(shapes.drawn(ring((90, 0), (99, 0), (99, 9))), "ship"),
    "simplify": lambda desk: desk.editor.simplify([desk.ids["wavy"]], 0.5),
    "straighten": lambda desk: desk.editor.straighten(
        {desk.ids["wavy"]: shapes.drawn(ring((40, 0), (50, 0), (50, 10), (40, 10)))}
    ),
    "remove duplicates": lambda desk: desk.editor.remove_duplicates(desk.editor.duplicates(desk.ids.values())),
}


@pytest.mark.parametrize("edit", EDITS)
def test_each_edit_is_one_step_and_undo_and_redo_are_exact(desk, edit):
    before, stack = desk.content(), desk.layer.undoStack()
    EDITS[edit](desk)
    after = desk.content()
    assert after != before
    assert stack.count() == 1
    assert stack.text(0)
    for _ in range(2):
        desk.reviewed.undo()
        assert desk.content() == before
        desk.reviewed.redo()
        assert desk.content() == after


def test_edits_one_after_the_other_are_taken_back_one_by_one(desk):
    states = [desk.content()]
    for edit in ("merge", "simplify", "fill holes", "draw"):
        EDITS[edit](desk)
        states.append(desk.content())
    for state in reversed(states[:-1]):
        desk.reviewed.undo()
        assert desk.content() == state
    for state in states[1:]:
        desk.reviewed.redo()
        assert desk.content() == state


def test_what_is_edited_says_so_and_its_area_follows(desk):
    measure = GroundArea(desk.layer)
    for edit in ("split", "fill holes", "simplify"):
        before = desk.content()
        EDITS[edit](desk)
        changed = [item for item, values in desk.content().items() if before.get(item) != values]
        assert changed
        for item in changed:
            feature = desk.feature(item)
            assert feature["edited"] is True
            assert feature["area_m2"] == measure.square_metres(feature.geometry())
            assert feature.geometry().isGeosValid()


def test_merged_objects_are_one_with_the_name_of_the_one_that_counts_most(desk):
    kept = EDITS["merge"](desk)
    assert kept == desk.ids["right"]  # accepted, though its score is the lower one
    merged = desk.feature("right")
    assert (merged["class"], merged["score"], merged["status"], merged["run"]) == ("building", 0.6, "accepted", "run 1")
    assert merged.geometry().area() == pytest.approx(200)
    assert not desk.feature("left").isValid()


def test_pieces_are_new_objects_of_the_same_kind(desk):
    first, second = desk.editor.split([desk.ids["court"]], ring((5, 15), (5, 45)))
    assert first == desk.ids["court"]
    assert [desk.shape(item).area() for item in (first, second)] == [pytest.approx(284), pytest.approx(100)]
    piece = desk.feature(second)
    assert [piece[name] for name in ("class", "score", "status", "run")] == ["building", 0.8, "pending", "run 1"]
    assert piece["edited"] is True


def test_a_new_object_has_class_and_status_and_no_score(desk):
    drawn = desk.feature(EDITS["draw"](desk))
    assert [drawn[name] for name in ("class", "status", "edited")] == ["ship", "accepted", True]
    assert (drawn["score"], drawn["run"]) == (NULL, NULL)


def test_new_objects_reach_the_file(file_desk):
    drawn = EDITS["draw"](file_desk)
    EDITS["split"](file_desk)
    expected = sorted(values[1:] for values in file_desk.content().values())
    assert drawn < 0
    file_desk.reviewed.save_edits()
    assert sorted(values[1:] for values in file_desk.content().values()) == expected


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda desk: desk.editor.merge([desk.ids["left"]]), "two objects or more"),
        (lambda desk: desk.editor.merge([]), "no object"),
        (lambda desk: desk.editor.split([desk.ids["left"]], ring((30, -5), (30, 15))), "cuts nothing"),  # misses
        (lambda desk: desk.editor.split([desk.ids["left"]], ring((0, -5), (0, 15))), "cuts nothing"),  # touches
        (lambda desk: desk.editor.split([desk.ids["left"]], ring((5, -5), (5, 5))), "cuts nothing"),  # ends inside
        (lambda desk: desk.editor.split([desk.ids["left"]], ring((5, 5))), "cuts nothing"),
        (lambda desk: desk.editor.split([desk.ids["left"]], ring((5, 5), (5, 5))), "cuts nothing"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((30, 2), (34, 2), (34, 4))), "no object"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((8, 2), (14, 2), (14, 4))), "no object"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((2, 2), (4, 4), (4, 2), (2, 4))), "crosses itself"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((2, 2), (4, 4))), "three corners"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((2, 2), (4, 4), (6, 6))), "encloses no ground"),
        (lambda desk: desk.editor.cut_hole([desk.ids["left"]], ring((0, 0), (10, 0), (10, 10), (0, 10))), "no object"),
        (lambda desk: desk.editor.fill_holes([desk.ids["left"]]), "no holes"),
        (lambda desk: desk.editor.simplify([desk.ids["left"]], 0.5), "No point"),
        (lambda desk: desk.editor.simplify([desk.ids["wavy"]], 0.0), "No point"),
        (lambda desk: desk.editor.revert([desk.ids["left"]]), "no other shape"),
        (lambda desk: desk.editor.redraw(desk.ids["left"], QgsGeometry()), "Nothing would be left"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(desk, edit, words):
    before = desk.content()
    with pytest.raises(ReviewRefused, match=words):
        edit(desk)
    assert desk.content() == before
    assert desk.layer.undoStack().count() == 0


def test_an_error_in_the_middle_leaves_nothing(desk):
    before = desk.content()
    square = desk.shape("court")
    with pytest.raises(KeyError):
        desk.editor._reshape_all("half a step", ((desk.ids[name], square) for name in ("left", "nobody")))
    assert desk.content() == before
    assert not desk.layer.undoStack().canUndo()
    EDITS["merge"](desk)
    desk.reviewed.undo()
    assert desk.content() == before


def test_the_vertex_tool_s_changes_are_followed_in_the_same_step(desk):
    before, item = desk.content(), desk.ids["left"]
    desk.layer.startEditing()
    desk.layer.beginEditCommand("Moved vertex")  # as QGIS's tool does
    assert desk.layer.moveVertex(CORNER[0] - 5, CORNER[1], item, 0)
    desk.layer.endEditCommand()
    after = desk.content()
    assert desk.feature(item)["edited"] is True
    assert desk.feature(item)["area_m2"] == GroundArea(desk.layer).square_metres(desk.shape(item))
    assert desk.feature(item)["status"] == "pending"
    assert desk.layer.undoStack().count() == 1
    for _ in range(2):
        desk.reviewed.undo()
        assert desk.content() == before
        desk.reviewed.redo()
        assert desk.content() == after
    desk.layer.beginEditCommand("given up")
    desk.layer.moveVertex(CORNER[0] - 9, CORNER[1], item, 0)
    desk.layer.destroyEditCommand()
    assert desk.content() == after
    desk.reviewed.undo()
    assert desk.content() == before


def add_by_hand(layer, *parts):
    """As QGIS's tools do: outlines, and nothing else."""
    features = []
    for part in parts:
        features.append(QgsFeature(layer.fields()))
        features[-1].setGeometry(shapes.drawn(part))
    layer.startEditing()
    layer.beginEditCommand("Add feature")
    layer.addFeatures(features)
    layer.endEditCommand()
    QTest.qWait(10)


def test_what_qgis_s_own_tool_draws_is_whole_at_once_in_the_step_that_it_is(desk):
    before, layer = desk.content(), desk.layer
    desk.editor.class_of_new = lambda: "ship"
    add_by_hand(layer, ring((90, 0), (99, 0), (99, 9)))
    after = desk.content()
    (item,) = after.keys() - before.keys()
    drawn = desk.feature(item)
    assert (drawn["class"], drawn["status"], drawn["edited"], drawn["score"]) == ("ship", "accepted", True, NULL)
    assert drawn["area_m2"] == GroundArea(layer).square_metres(drawn.geometry())
    assert (layer.undoStack().count(), layer.undoStack().undoText()) == (1, "Add feature")
    for _ in range(2):
        desk.reviewed.undo()
        assert desk.content() == before
        desk.reviewed.redo()
        assert desk.content() == after


def test_what_qgis_s_tools_have_drawn_several_of_is_whole_once_it_is_saved(file_desk):
    layer = file_desk.layer
    file_desk.editor.class_of_new = lambda: "ship"
    add_by_hand(layer, ring((90, 0), (99, 0), (99, 9)), ring((90, 20), (99, 20), (99, 29)))
    file_desk.reviewed.save_edits()
    drawn = [feature for feature in layer.getFeatures() if feature.id() not in file_desk.ids.values()]
    assert [(one["class"], one["status"], one["edited"]) for one in drawn] == [("ship", "accepted", True)] * 2
    assert [one["area_m2"] for one in drawn] == [pytest.approx(40.5, rel=0.01)] * 2


def test_a_raw_shape_comes_back_with_its_area_days_later(file_desk, tmp_path):
    path = tmp_path / "objects.gpkg"
    raw = file_desk.content()[file_desk.ids["court"]]
    EDITS["fill holes"](file_desk)
    file_desk.editor.split([file_desk.ids["court"]], ring((5, 15), (5, 45)))
    file_desk.reviewed.save_edits()
    EDITS["merge"](file_desk)
    file_desk.reviewed.save_edits()
    file_desk.tear_down()
    file_desk.layer = None
    with sqlite3.connect(path) as database:
        kept = database.execute("SELECT layer, feature, run FROM raw_shapes ORDER BY feature").fetchall()
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        kinds = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents").fetchall())
    wanted = sorted([file_desk.ids["right"], file_desk.ids["court"]])
    assert kept == [("instances", item, "run 1") for item in wanted]
    assert kinds["raw_shapes"] == "attributes"

    later = Desk(opened(path))
    edited = later.content()[file_desk.ids["court"]]
    assert edited != raw
    assert later.editor.revert([file_desk.ids["court"]]) == 1
    assert later.content()[file_desk.ids["court"]] == raw
    assert later.layer.undoStack().count() == 1
    later.reviewed.undo()
    assert later.content()[file_desk.ids["court"]] == edited
    later.reviewed.redo()
    later.reviewed.save_edits()
    assert later.content()[file_desk.ids["court"]] == raw
    with pytest.raises(ReviewRefused, match="no other shape"):
        later.editor.revert([file_desk.ids["court"]])
    later.tear_down()


def test_a_raw_shape_comes_back_where_edits_were_saved_after_the_review(file_desk):
    layer, court = file_desk.layer, file_desk.ids["court"]
    raw = file_desk.content()[court]
    EDITS["fill holes"](file_desk)
    file_desk.editor.tear_down()
    file_desk.reviewed.tear_down()
    file_desk.layer = None
    assert layer.commitChanges()
    later = Desk(layer)
    assert later.content()[court] != raw
    assert later.editor.revert([court]) == 1
    assert later.content()[court] == raw
    later.tear_down()


def test_a_raw_shape_comes_back_before_anything_was_saved(desk):
    raw = desk.content()
    EDITS["fill holes"](desk)
    EDITS["simplify"](desk)
    assert desk.editor.revert([desk.ids["court"], desk.ids["wavy"], desk.ids["left"]]) == 2
    assert desk.content() == raw


def test_right_angles_keep_off_the_neighbours(desk):
    wide = shapes.drawn(ring((-1, -1), (11, -1), (11, 11), (-1, 11)))
    before = desk.content()
    assert desk.editor.straighten({desk.ids["twin"]: desk.shape("right")}) == 0  # nearly all of it is taken
    assert desk.content() == before
    desk.editor.remove_duplicates([desk.ids["twin"]])
    assert desk.editor.straighten({desk.ids["left"]: wide}) == 1
    assert desk.shape("left").intersection(desk.shape("right")).area() < 1e-6
    assert desk.shape("left").area() == pytest.approx(144 - 12 + 2)


def test_proposals_keep_off_others_and_are_refused_where_one_is_there(desk):
    free = shapes.drawn(ring((18, 0), (28, 0), (28, 10), (18, 10)))
    assert desk.editor.free_of_others(free, "building", None).area() == pytest.approx(80)
    assert desk.editor.free_of_others(free, "ship", None).area() == pytest.approx(100)
    assert desk.editor.free_of_others(free, "building", desk.ids["right"]).area() == pytest.approx(100)
    with pytest.raises(ReviewRefused, match="already"):
        desk.editor.free_of_others(desk.shape("right"), "building", None)


def test_duplicates_are_those_that_count_least(desk):
    assert desk.editor.duplicates(desk.ids.values()) == [desk.ids["twin"]]
    renamed = desk.reviewed.field("class")
    with desk.reviewed.edit("another class"):
        desk.layer.changeAttributeValue(desk.ids["twin"], renamed, "ship")
    assert desk.editor.duplicates(desk.ids.values()) == [desk.ids["twin"]]  # one thing has one class
    with desk.reviewed.edit("decided"):
        desk.layer.changeAttributeValue(desk.ids["twin"], desk.reviewed.field("status"), "accepted")
    assert desk.editor.duplicates(desk.ids.values()) == [desk.ids["left"]]
    assert duplicates([], lambda feature: ()) == []


def test_a_layer_of_single_polygons_takes_no_parts(qgis_app):
    layer = memory_layer()
    single = QgsVectorLayer("Polygon?crs=EPSG:32631", "single", "memory")
    single.dataProvider().addAttributes(result_fields().toList())
    single.updateFields()
    for feature in layer.getFeatures():
        feature.setGeometry(feature.geometry().asGeometryCollection()[0])
        assert single.dataProvider().addFeatures([feature])[0]
    desk = Desk(single)
    EDITS["merge"](desk)
    with pytest.raises(ReviewRefused, match="2 parts"):
        desk.editor.merge([desk.ids["court"], desk.ids["ship"]])
    desk.tear_down()


def test_degrees_are_simplified_in_metres(qgis_app):
    degree = 1 / 111_320
    narrow = QgsGeometry.fromWkt(
        f"POLYGON((0 60, {20 * degree} {60 + 1.5 * degree}, {40 * degree} 60, {40 * degree} {60 + 20 * degree},"
        f" 0 {60 + 20 * degree}, {1.5 * degree} {60 + 10 * degree}, 0 60))"
    )
    layer = QgsVectorLayer("MultiPolygon?crs=EPSG:4326", "degrees", "memory")
    layer.dataProvider().addAttributes(result_fields().toList())
    layer.updateFields()
    feature = QgsFeature(layer.fields())
    feature.setGeometry(shapes.polygons(narrow))
    feature.setAttributes(["building", 0.5, "pending", False, 1.0, "run"])
    layer.dataProvider().addFeatures([feature])
    desk = Desk(layer)
    # Off by 1.5 m of latitude and by 0.75 m of longitude: only the latter may go.
    desk.editor.simplify([1], 1.0)
    assert desk.shape(1).constGet().nCoordinates() == 6
    with pytest.raises(ReviewRefused, match="No point"):
        desk.editor.simplify([1], 1.0)
    desk.tear_down()


# No hypothesis in QGIS's own Python: drawn from seeds.
SEEDS = range(60)


def star(random: Random, x: float = 0.0, y: float = 0.0) -> list[QgsPointXY]:
    """A ring around a place that does not cross itself, with sharp and blunt corners."""
    count = random.randint(3, 12)
    angles = [2 * math.pi * number / count for number in range(count)]
    radii = [random.uniform(2.0, 20.0) for _ in angles]
    return ring(*((x + r * math.cos(angle), y + r * math.sin(angle)) for r, angle in zip(radii, angles, strict=True)))


@pytest.mark.parametrize("seed", SEEDS)
def test_merging_covers_what_they_covered(qgis_app, seed):
    random = Random(seed)
    places = [(random.uniform(-25, 25), random.uniform(-25, 25)) for _ in range(random.randint(2, 4))]
    parts = [shapes.drawn(star(random, *place)) for place in places]
    whole = shapes.merged(parts)
    assert whole.isGeosValid()
    left = whole
    for part in parts:
        assert part.difference(whole).area() < 1e-6
        left = left.difference(part)
    assert left.isNull() or left.area() < 1e-6


@pytest.mark.parametrize("seed", SEEDS)
def test_pieces_add_up_and_share_no_ground(qgis_app, seed):
    random = Random(seed)
    shape = shapes.drawn(star(random))
    if seed % 3 == 0:
        shape = shapes.polygons(shape.difference(shapes.drawn(ring((-2, -2), (1, -2), (1, 1), (-2, 1)))))
    line = [(random.uniform(-30, 30), random.uniform(-30, 30)) for _ in range(random.randint(2, 5))]
    pieces = shapes.split(shape, ring(*line))
    areas = [piece.area() for piece in pieces]
    assert sum(areas) == pytest.approx(shape.area(), rel=1e-7)
    assert areas == sorted(areas, reverse=True)
    assert all(piece.isGeosValid() for piece in pieces)
    for number, piece in enumerate(pieces):
        assert all(piece.intersection(other).area() < 1e-6 for other in pieces[number + 1 :])


def test_some_of_these_lines_cut_and_some_cross_themselves(qgis_app):
    counts = []
    for seed in SEEDS:
        random = Random(seed)
        shape = shapes.drawn(star(random))
        line = [(random.uniform(-30, 30), random.uniform(-30, 30)) for _ in range(random.randint(2, 5))]
        counts.append(len(shapes.split(shape, ring(*line))))
    assert min(counts) == 1
    assert max(counts) > 2


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hole_that_is_cut_and_filled_leaves_no_trace(qgis_app, seed):
    random = Random(seed)
    shape = shapes.drawn(star(random))
    scale, middle = random.uniform(0.05, 0.9), ring((0, 0))[0]
    corners = [middle + (corner - middle) * scale for corner in star(random)]
    hole = shapes.drawn(corners)
    cut = shapes.with_hole(shape, hole)
    if not shape.contains(hole):
        assert cut is None
        return
    assert cut.isGeosValid()
    assert cut.area() == pytest.approx(shape.area() - hole.area(), rel=1e-7)
    assert shapes.has_holes(cut)
    assert shapes.filled(cut).isGeosEqual(shape)


def test_parts_that_a_line_does_not_cut_stay_with_the_largest_piece(qgis_app):
    shape = QgsGeometry.fromWkt("MULTIPOLYGON(((0 0,10 0,10 10,0 10,0 0)),((20 0,25 0,25 5,20 5,20 0)))")
    largest, other = shapes.split(shape, [QgsPointXY(3, -1), QgsPointXY(3, 11)])
    assert (largest.area(), other.area()) == (pytest.approx(95), pytest.approx(30))
