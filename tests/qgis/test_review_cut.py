"""The picture of the score cut while its line is dragged, on a real map: as true as what QGIS draws, and no trace."""

import math
from random import Random

import pytest
from qgis.core import (
    NULL,
    QgsClassificationQuantile,
    QgsCoordinateReferenceSystem,
    QgsExpressionContext,
    QgsExpressionContextUtils,
    QgsFillSymbol,
    QgsGradientFillSymbolLayer,
    QgsGraduatedSymbolRenderer,
    QgsHeatmapRenderer,
    QgsMapRendererSequentialJob,
    QgsMapSettings,
    QgsPointXY,
    QgsProject,
    QgsRuleBasedRenderer,
    QgsSettings,
    QgsSingleSymbolRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import QSize, Qt
from qgis.PyQt.QtGui import QColor, QImage
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtXml import QDomDocument
from review_dock import on_screen
from review_layer import CLASSES, contents, opened, write_layer

from rs4d_qgis.layers.results import style_result
from rs4d_qgis.layers.statuses import REJECTED, STATUSES
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.order import Order
from rs4d_qgis.review.reviewed import look
from rs4d_qgis.review.score_cut import cut_preview

RED, BLUE = QColor("#ff0000"), QColor("#0000ff")
COLORS = {"building": "#ff0000", "ship": "#00ff00", "vehicle": "#0000ff"}
HOLED = 7


@pytest.fixture
def layer(qgis_app, tmp_path, qgis_canvas):
    write_layer(tmp_path / "objects.gpkg", 60)
    layer = QgsProject.instance().addMapLayer(opened(tmp_path / "objects.gpkg"))
    shape = layer.getGeometry(HOLED)
    shape.addRing([QgsPointXY(*xy) for xy in hole_in(shape.boundingBox())])
    layer.dataProvider().changeGeometryValues({HOLED: shape})
    style_result(layer, COLORS)
    qgis_canvas.setDestinationCrs(layer.crs())
    qgis_canvas.setRotation(0)
    qgis_canvas.resize(600, 400)
    yield layer
    qgis_canvas.setLayers([])
    QgsProject.instance().clear()
    for name in ("last", "review"):
        QgsSettings().remove(f"rs4d/{name}")


@pytest.fixture
def dock(layer, qgis_iface, qgis_canvas):
    with on_screen(layer, qgis_iface, qgis_canvas) as dock:
        yield dock


def hole_in(box):
    x, y = box.center().x(), box.center().y()
    return [(x - 3, y - 2), (x + 3, y - 2), (x + 3, y + 2), (x - 3, y + 2), (x - 3, y - 2)]


def view(layer, crs, rotation):
    """The layer as a whole, on a map of this CRS."""
    there = QgsMapSettings()
    there.setOutputSize(QSize(600, 500))
    there.setBackgroundColor(QColor(Qt.GlobalColor.transparent))
    there.setDestinationCrs(crs)
    there.setLayers([layer])
    there.setRotation(rotation)
    extent = there.layerExtentToOutputExtent(layer, layer.extent())
    extent.scale(1.5)
    there.setExtent(extent)
    return there


def covered(image, settings, layer, color=None):
    """Ids of the objects in whose middle there is this colour, or any."""
    seen = set()
    for feature in layer.getFeatures():
        middle = settings.layerToMapCoordinates(layer, feature.geometry().boundingBox().center())
        pixel = settings.mapToPixel().transform(middle)
        there = image.pixelColor(math.floor(pixel.x()), math.floor(pixel.y()))
        if there.alpha() if color is None else there == color:
            seen.add(feature.id())
    return seen


def drawn_by_qgis(layer, settings):
    job = QgsMapRendererSequentialJob(settings)
    job.start()
    job.waitForFinished()
    return covered(job.renderedImage(), settings, layer)


def drawn_as_draft(shapes, settings, layer, cuts):
    image = QImage(settings.outputSize(), QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.transparent)
    shapes.paint(image, settings.mapToPixel().transform(), cuts)
    return covered(image, settings, layer)


def by_score(layer):
    renderer = QgsGraduatedSymbolRenderer("score")
    renderer.setSourceSymbol(QgsFillSymbol.createSimple({"color": "#ff8800"}))
    renderer.setClassificationMethod(QgsClassificationQuantile())
    renderer.updateClasses(layer, 3)
    return renderer


def by_rules(layer):
    """Ships are not drawn at all."""
    renderer = QgsRuleBasedRenderer.convertFromRenderer(layer.renderer())
    for rule in renderer.rootRule().children():
        if "ship" in rule.filterExpression():
            rule.setActive(False)
    return renderer


def gradient(_layer):
    symbol = QgsFillSymbol.createSimple({})
    symbol.changeSymbolLayer(0, QgsGradientFillSymbolLayer(RED, BLUE))
    return QgsSingleSymbolRenderer(symbol)


def without_ships(layer):
    """Their category is not ticked."""
    renderer = layer.renderer().clone()
    renderer.updateCategoryRenderState(renderer.categoryIndexForValue("ship"), False)
    return renderer


LOOKS = {
    "as a run gives it": lambda layer: layer.renderer().clone(),
    "one symbol, opaque": lambda _: QgsSingleSymbolRenderer(QgsFillSymbol.createSimple({"outline_style": "no"})),
    "graduated": by_score,
    "rules": by_rules,
    "a class unticked": without_ships,
    "a gradient": gradient,
}


@pytest.mark.parametrize("name", LOOKS)
@pytest.mark.parametrize(("crs", "rotation"), [("EPSG:32631", 0.0), ("EPSG:4326", 0.0), ("EPSG:3857", 30.0)])
def test_the_draft_shows_the_objects_that_qgis_draws(layer, dock, qgis_canvas, name, crs, rotation):
    dock.close()
    layer.setRenderer(LOOKS[name](layer))
    qgis_canvas.setDestinationCrs(QgsCoordinateReferenceSystem(crs))
    dock.show()
    dock.review(layer)
    dock.reviewed.decide([1, 2, 30], "accepted")
    dock.reviewed.decide([4, 31], "rejected")
    there = view(layer, QgsCoordinateReferenceSystem(crs), rotation)
    shapes = dock.cut.preview._shapes
    shapes.read()
    for cuts in ({}, dict.fromkeys(CLASSES, 0.3), {"ship": 0.45, "vehicle": 0.21}, dict.fromkeys(CLASSES, 1.0)):
        look.set_cuts(layer, cuts)
        there.setExpressionContext(QgsExpressionContext(QgsExpressionContextUtils.globalProjectLayerScopes(layer)))
        expected = drawn_by_qgis(layer, there)
        assert drawn_as_draft(shapes, there, layer, cuts) == expected
        assert HOLED not in expected
        assert 1 in expected


@pytest.mark.parametrize("seed", range(8))
def test_the_draft_hides_what_the_cut_hides(layer, dock, seed):
    draw = Random(seed)
    shapes = dock.cut.preview._shapes
    shapes.read()
    names = [layer.fields().indexOf(name) for name in ("class", "score", "status")]
    values = {}
    for item in range(1, 61):
        score = draw.choice([NULL, draw.random(), draw.randrange(101) / 100])
        values[item] = dict(zip(names, (draw.choice(CLASSES), score, draw.choice(STATUSES)), strict=True))
    layer.dataProvider().changeAttributeValues(values)
    dock.reviewed.changed.emit(set(values))
    assert not shapes.ready
    shapes.read()
    there = view(layer, layer.crs(), 0.0)
    for _ in range(5):
        filters = Filters(cuts={name: draw.randrange(101) / 100 for name in draw.sample(CLASSES, 2)})
        left = {
            item.id
            for item in dock.session.objects.values()
            if item.status != REJECTED and not filters.is_cut(item) and item.id != HOLED
        }
        assert drawn_as_draft(shapes, there, layer, filters.cuts) == left


def test_the_draft_shows_what_is_selected_in_the_colour_of_the_map(layer, dock, qgis_canvas):
    qgis_canvas.setSelectionColor(BLUE)
    shapes = dock.cut.preview._shapes
    shapes.read()
    there = view(layer, layer.crs(), 0.0)

    def in_that_colour(cuts):
        image = QImage(there.outputSize(), QImage.Format.Format_ARGB32_Premultiplied)
        image.fill(Qt.GlobalColor.transparent)
        shapes.paint(image, there.mapToPixel().transform(), cuts)
        return covered(image, there, layer, BLUE)

    assert in_that_colour({}) == set()
    layer.selectByIds([1, 40, 50])
    assert in_that_colour({}) == {1, 40, 50}
    assert in_that_colour(dict.fromkeys(CLASSES, 0.3)) == {40, 50}
    with dock.reviewed.edit("Remove"):
        layer.deleteFeature(40)
    shapes.read()
    layer.select(2)
    assert in_that_colour({}) == {1, 2, 50}


def on_the_map(qgis_canvas, layer):
    """Ids of the objects in whose middle the map is not white."""
    image = qgis_canvas.grab().toImage()
    seen = set()
    for feature in layer.getFeatures():
        pixel = qgis_canvas.getCoordinateTransform().transform(feature.geometry().boundingBox().center())
        if image.pixelColor(math.floor(pixel.x()), math.floor(pixel.y())) != QColor(Qt.GlobalColor.white):
            seen.add(feature.id())
    return seen


def kept(dock, cut):
    return {item.id for item in dock.session.objects.values() if item.score >= cut and item.id != HOLED}


def drafts(qgis_canvas):
    return [item for item in qgis_canvas.items() if isinstance(item, cut_preview._Picture)]


def style(layer):
    document = QDomDocument()
    layer.exportNamedStyle(document)
    return document.toString()


def test_the_map_stays_where_the_cut_is_watched(dock, layer, qgis_canvas):
    dock.desk.set_order(Order.LOW_SCORE)
    qgis_canvas.setExtent(layer.extent().buffered(10))
    whole = qgis_canvas.extent()
    before = dock.session.current
    dock.cut.view.dragged.emit(dock.session.objects[before].score + 0.01)
    while dock.cut._queue.isActive():
        QTest.qWait(20)
    assert dock.session.current != before
    assert qgis_canvas.extent() == whole
    # Where the next object is out of view, the map goes there.
    current = layer.getGeometry(dock.session.current).boundingBox()
    qgis_canvas.setExtent(current.scaled(0.1, QgsPointXY(current.xMaximum() + 500, current.yMaximum())))
    dock.cut.view.dragged.emit(dock.session.objects[dock.session.current].score + 0.01)
    while dock.cut._queue.isActive():
        QTest.qWait(20)
    assert qgis_canvas.extent().contains(layer.getGeometry(dock.session.current).boundingBox())


@pytest.fixture
def slow_map(dock, layer, qgis_canvas, monkeypatch, qtbot):
    """A map that shows the whole layer, over another one, and counts as one that takes QGIS long; a cut that does not
    come to rest."""
    monkeypatch.setattr(cut_preview, "_QUICK_S", 0.0)
    other = QgsProject.instance().addMapLayer(
        QgsVectorLayer("Point?crs=EPSG:32631&field=class:string", "other", "memory")
    )
    dock.cut._queue.setInterval(100_000)
    with qtbot.waitSignal(qgis_canvas.mapCanvasRefreshed):
        qgis_canvas.setLayers([layer, other])
        qgis_canvas.setExtent(layer.extent().buffered(10))
        qgis_canvas.refresh()
    qtbot.waitUntil(lambda: dock.cut.preview._shapes.ready)
    return [layer, other]


def test_a_slow_map_shows_a_draft_while_the_line_is_dragged_and_its_look_at_rest(
    dock, layer, qgis_canvas, qtbot, slow_map
):
    cut = dock.cut
    before, styled = contents(layer), style(layer)
    QgsProject.instance().setDirty(False)
    for score in (0.3, 0.4, 0.25):
        cut.view.dragged.emit(score)
        qtbot.waitUntil(lambda: cut.preview.in_sight)
        assert qgis_canvas.layers() == slow_map[1:]
        assert on_the_map(qgis_canvas, layer) == kept(dock, score)
    assert style(layer) == styled
    qgis_canvas.setExtent(qgis_canvas.extent().scaled(1.6))  # the wheel, in the middle of it
    assert on_the_map(qgis_canvas, layer) == kept(dock, 0.25)
    with qtbot.waitSignal(qgis_canvas.mapCanvasRefreshed):
        qgis_canvas.setLayers(slow_map)  # as QGIS does where the list of layers changes
    cut.view.dragged.emit(0.35)
    assert qgis_canvas.layers() == slow_map[1:]
    qtbot.waitUntil(lambda: cut.preview.in_sight)
    assert on_the_map(qgis_canvas, layer) == kept(dock, 0.35)
    cut._line_up()  # it rests for a moment
    cut.view.dragged.emit(0.45)
    qtbot.waitUntil(lambda: cut.preview.in_sight)
    assert on_the_map(qgis_canvas, layer) == kept(dock, 0.45)
    cut.view.dragged.emit(0.35)
    cut._line_up()
    qtbot.waitUntil(lambda: not drafts(qgis_canvas))
    assert (cut.preview.on, qgis_canvas.layers()) == (False, slow_map)
    assert on_the_map(qgis_canvas, layer) == kept(dock, 0.35)
    assert contents(layer) == before
    assert not QgsProject.instance().isDirty()


@pytest.mark.parametrize("end", ["closed", "another layer", "removed", "torn down", "saved"])
def test_whatever_ends_a_drag_the_map_has_its_layers_and_no_draft(
    dock, layer, qgis_canvas, qtbot, slow_map, end, tmp_path
):
    own = look.own_renderer(layer).dump()
    dock.cut.view.dragged.emit(0.4)
    qtbot.waitUntil(lambda: dock.cut.preview.in_sight)
    if end == "closed":
        dock.close()
    elif end == "another layer":
        write_layer(tmp_path / "next.gpkg", 5)
        dock.review(QgsProject.instance().addMapLayer(opened(tmp_path / "next.gpkg")))
    elif end == "removed":
        QgsProject.instance().removeMapLayer(layer.id())
    elif end == "torn down":
        dock.tear_down()
    else:
        assert QgsProject.instance().write(str(tmp_path / "project.qgz"))
        again = QgsProject()
        assert again.read(str(tmp_path / "project.qgz"))
        (saved,) = again.mapLayersByName(layer.name())
        assert saved.renderer().dump() == own
        dock.cut._line_up()
    qtbot.waitUntil(lambda: not drafts(qgis_canvas))
    assert not dock.cut.preview.on
    shown = [shown for shown in qgis_canvas.layers() if shown.name() != "next"]
    assert shown == (slow_map[1:] if end == "removed" else slow_map)


def test_a_layer_that_the_map_does_not_show_and_a_heat_map_get_no_draft(dock, layer, qgis_canvas, slow_map):
    qgis_canvas.setLayers(slow_map[1:])
    dock.cut.view.dragged.emit(0.4)
    assert not dock.cut.preview.on
    dock.close()
    layer.setRenderer(QgsHeatmapRenderer())
    qgis_canvas.setLayers(slow_map)
    dock.show()
    dock.review(layer)
    dock.cut.view.dragged.emit(0.4)
    assert not dock.cut.preview.on
    assert qgis_canvas.layers() == slow_map
