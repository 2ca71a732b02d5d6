"""What an analyst's edits do with the desk: to which objects, in which class, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from qgis.core import QgsCsException, QgsFeatureRequest, QgsGeometry, QgsPointXY, QgsRectangle
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, pyqtSignal
from qgis.PyQt.QtWidgets import QMessageBox

from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.statuses import REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.edits import shapes
from rs4d_qgis.review.edits.editor import Editor
from rs4d_qgis.review.edits.engine_edits import EngineEdits
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.waiting import wait_cursor
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, spaced

# What a box is drawn around is an object that is there already, where the two boxes share this much of what they cover.
_SAME_BOX_IOU = 0.5


class EditWork(QObject):
    """The edits by name. What is drawn comes in the map's CRS. Whatever is refused is said in the desk's line.

    Attributes:
        editor: of the layer under review; None where there is none.
        engine: for outlines and right angles.
        class_name: of new objects; None leaves it to the model, or to the current object.

    Signals:
        changed(): another layer, or another selection in it.
    """

    changed = pyqtSignal()

    def __init__(self, desk: DeskState, parent: QObject | None = None):
        super().__init__(parent)
        self._desk = desk
        self._canvas = desk.iface.mapCanvas()
        self.editor: Editor | None = None
        self.engine = EngineEdits(desk, self)
        self.class_name: str | None = None
        self._watched = None
        desk.reviewed_changed.connect(self._another_layer)
        self._another_layer()

    def tear_down(self) -> None:
        """QGIS is closing, or the plugin is turned off."""
        self.engine.tear_down()
        self._let_go()

    def guarded(self, run: Callable, *given) -> None:
        """Do it, if there is a layer; say why where it cannot be done."""
        if self.editor is None:
            return
        self._desk.say("")
        try:
            run(*given)
        except ReviewRefused as refused:
            self._desk.say(str(refused), True)

    def start_editing(self) -> None:
        """For QGIS's own tools."""
        layer = self._desk.reviewed.layer
        if not layer.isEditable() and not layer.startEditing():
            raise ReviewRefused(tr("{} is read-only: save it as a GeoPackage first").format(layer.name()))

    def _selection(self) -> list[int]:
        """What is selected, or the current object; none is no choice of the analyst's."""
        ids = self._desk.selection()
        if not ids:
            raise ReviewRefused(tr("There is no object to change: select one, or go to one"))
        return ids

    def _met(self, shape: QgsGeometry) -> list[int]:
        """What a drawing may change: of the objects in sight that it meets the selected ones, if any are."""
        layer = self._desk.reviewed.layer
        request = QgsFeatureRequest().setFilterRect(shape.boundingBox())
        met = [
            feature.id()
            for feature in layer.getFeatures(request)
            if feature["status"] != REJECTED
            and not self._is_hidden(feature.id())
            and feature.geometry().intersects(shape)
        ]
        selected = set(layer.selectedFeatureIds())
        return [item for item in met if item in selected] or met

    def _say_if_cut(self, cut: bool) -> None:
        if cut:
            self._desk.say(tr("Without the ground that other objects of its class have already"))

    def _hidden(self) -> set[int]:
        """What the score cut hides."""
        return {item for item in self._desk.session.objects if self._is_hidden(item)}

    def _is_hidden(self, item: int) -> bool:
        known = self._desk.session.objects.get(item)
        return known is not None and self._desk.session.filters.is_cut(known)

    def _in_layer(self, points: list[QgsPointXY]) -> list[QgsPointXY]:
        """Points of the map as points of the layer."""
        layer = self._desk.reviewed.layer
        try:
            return [self._canvas.mapSettings().mapToLayerCoordinates(layer, point) for point in points]
        except QgsCsException:
            raise ReviewRefused(tr("What was drawn has no place in the layer's CRS: nothing was changed")) from None

    def draw(self, points: list[QgsPointXY]) -> None:
        """A new object with this outline."""
        name = self.class_name or self._class_of_current()
        drawn = shapes.drawn(self._in_layer(points))
        shape = self.editor.free_of_others(drawn, name, None, self._hidden())
        item = self.editor.draw(shape, name)
        self._new_object(item, name)
        self._say_if_cut(shape is not drawn)

    def redraw(self, points: list[QgsPointXY]) -> None:
        """Give the one object that is selected, or the current one, this outline."""
        ids = self._selection()
        if len(ids) > 1:
            raise ReviewRefused(tr("Select one object to draw its outline anew: {} are selected").format(len(ids)))
        drawn = shapes.drawn(self._in_layer(points))
        known = self._desk.session.objects.get(ids[0])
        shape = self.editor.free_of_others(drawn, known.class_name if known else "", ids[0], self._hidden())
        self.editor.redraw(ids[0], shape)
        self._say_if_cut(shape is not drawn)

    def split(self, points: list[QgsPointXY]) -> None:
        """Cut along a line."""
        line = self._in_layer(points)
        pieces = self.editor.split(self._met(QgsGeometry.fromPolylineXY(line)), line)
        self._desk.say(tr("Split into {}").format(count(len(pieces), tr("object"), tr("objects"))))

    def cut_hole(self, points: list[QgsPointXY]) -> None:
        """Cut out what is inside of this outline."""
        ring = self._in_layer(points)
        self.editor.cut_hole(self._met(shapes.drawn(ring)), ring)

    def merge(self) -> None:
        """Make the selected objects one."""
        layer = self._desk.reviewed.layer
        number = layer.selectedFeatureCount()
        with wait_cursor():
            kept = self.editor.merge(layer.selectedFeatureIds())
        layer.selectByIds([kept])
        parts = len(layer.getGeometry(kept).asGeometryCollection())
        if parts > 1:
            self._desk.say(
                tr("The {} objects are one now, of {} parts that do not touch: Undo, if it was not meant so").format(
                    number, parts
                ),
                True,
            )

    def fill_holes(self) -> None:
        """Close the holes of the selected or current objects."""
        with wait_cursor():
            self.editor.fill_holes(self._selection())

    def simplify(self, tolerance_m: float) -> None:
        """Take points off the selected or current objects."""
        with wait_cursor():
            self.editor.simplify(self._selection(), tolerance_m)

    def revert(self) -> None:
        """Give the selected or current objects their raw shapes."""
        with wait_cursor():
            self.editor.revert(self._selection())

    def straighten(self) -> None:
        """Ask the engine for right angles for the selected or current objects."""
        features = self._desk.reviewed.layer.getFeatures(QgsFeatureRequest().setFilterFids(self._selection()))
        features = [feature for feature in features if not feature.geometry().isEmpty()]
        self.engine.straighten(features, partial(self.guarded, self._straightened, len(features)))

    def _straightened(self, asked: int, found: dict[int, QgsGeometry]) -> None:
        with wait_cursor():
            changed = self.editor.straighten(found) if found else 0
        if changed < asked:
            self._desk.say(
                tr("Right angles do not fit: the object is round, or would stray too far, and stays as it is")
                if asked == 1
                else tr(
                    "Right angles fit {} of {} objects: what is round, or would stray too far, stays as it is"
                ).format(changed, asked)
            )

    def remove_duplicates(self) -> None:
        """Look for duplicates among the selected objects, if they are several, else in the layer; and ask."""
        layer = self._desk.reviewed.layer
        among = list(layer.selectedFeatureIds()) if layer.selectedFeatureCount() > 1 else None
        with wait_cursor():
            found = self.editor.duplicates(among)
        if not found:
            raise ReviewRefused(tr("No object is there twice"))
        layer.selectByIds(found)
        buttons = QMessageBox.StandardButton
        answer = QMessageBox.question(
            self._desk.iface.mainWindow(),
            tr("Remove duplicates"),
            (
                tr("1 object is there already under a name that counts more. It is selected now. Remove it?")
                if len(found) == 1
                else tr(
                    "{} objects are there already under names that count more. They are selected now. Remove them?"
                ).format(spaced(len(found)))
            )
            + "\n\n"
            + tr("It is one step, which Undo takes back."),
            buttons.Yes | buttons.No,
            buttons.No,
        )
        if answer == buttons.Yes:
            with wait_cursor():
                self.editor.remove_duplicates(found)

    def outline(self, box: QgsRectangle) -> None:
        """Ask the engine for the outline of what is in a box."""
        there = QgsGeometry.fromPolygonXY([self._in_layer(QgsGeometry.fromRect(box).asPolygon()[0])]).boundingBox()
        meant = self._object_in(there)
        name = self.class_name if meant is None else self._desk.session.objects[meant].class_name
        crs = self._canvas.mapSettings().destinationCrs()
        self.engine.outline(box, crs, name or None, partial(self.guarded, self._outlined, meant, name))
        self._desk.say(tr("The engine looks at what is in the box..."))

    def _outlined(self, meant: int | None, class_name: str | None, answer: dict) -> None:
        text = tr("Outline in a box")
        if meant is not None and not self._desk.reviewed.layer.getFeature(meant).isValid():
            meant = None
        name = class_name or answer["class"]
        hidden = self._hidden()
        shape = self.editor.free_of_others(answer["geometry"], name, meant, hidden)
        if meant is None:
            self._new_object(self.editor.draw(shape, name, text), name, answer["score"])
        else:
            known = self._desk.session.objects[meant]
            self.editor.redraw(meant, shape, text, accept=known.status == REJECTED or meant in hidden)
            self._desk.say(tr("The {} has another outline").format(class_label(name) or tr("object")))

    def _object_in(self, box: QgsRectangle) -> int | None:
        """The object that a box, of the layer's CRS, is drawn around; None where there is none yet."""
        best, best_iou = None, _SAME_BOX_IOU
        for feature in self._desk.reviewed.layer.getFeatures(QgsFeatureRequest().setFilterRect(box)):
            own = feature.geometry().boundingBox()
            shared = own.intersect(box).area() if own.intersects(box) else 0.0
            same = shared / (own.area() + box.area() - shared)
            if same >= best_iou and feature.id() in self._desk.session.objects:
                best, best_iou = feature.id(), same
        return best

    def _new_object(self, item: int, name: str, score: float | None = None) -> None:
        self._desk.reviewed.layer.selectByIds([item])
        label = class_label(name) or tr("object without a class")
        self._desk.say(
            tr("A new {}").format(label)
            if score is None
            else tr("A new {}, which the model is {:.0%} sure of").format(label, score)
        )

    def _class_of_current(self) -> str:
        session = self._desk.session
        known = session.objects.get(session.current) if session.current is not None else None
        if known is not None and known.class_name:
            return known.class_name
        return self._desk.classes[0] if self._desk.classes else ""

    def _another_layer(self) -> None:
        self._let_go()
        self.engine.cancel()
        reviewed = self._desk.reviewed
        if reviewed is not None:
            self.editor = Editor(reviewed, self, lambda: self.class_name or self._class_of_current())
            self.editor.trouble.connect(lambda text: self._desk.say(text, True))
            self._watched = reviewed.layer
            self._watched.selectionChanged.connect(self._selected)
        self.changed.emit()

    def _selected(self, *_) -> None:
        self.changed.emit()

    def _let_go(self) -> None:
        if self.editor is not None:
            self.editor.tear_down()
            self.editor.deleteLater()
            self.editor = None
        if self._watched is not None and not sip.isdeleted(self._watched):
            self._watched.selectionChanged.disconnect(self._selected)
        self._watched = None
