"""Edits of the layer under review: each is one step of QGIS's own undo, and `edited` and `area_m2` follow."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from qgis.core import (
    NULL,
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsPointXY,
    QgsVectorLayer,
    QgsVectorLayerUtils,
)
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, pyqtSignal

from rs4d_qgis.layers.area import GroundArea
from rs4d_qgis.layers.source import pixel_size_m
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.edits import shapes
from rs4d_qgis.review.edits.duplicates import DUPLICATE_SHARE, duplicates
from rs4d_qgis.review.edits.new_objects import NewObjects
from rs4d_qgis.review.edits.raw_shapes import RawShapes
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count

# What counts first where several objects become one.
_BY_STATUS = {ACCEPTED: 0, PENDING: 1, REJECTED: 2}


class Editor(QObject):
    """Edits objects of a reviewed layer, and follows those that QGIS's own tools make, such as the vertex tool's.

    Whatever cannot be done raises ReviewRefused, and changes nothing.

    Attributes:
        raw: the shapes as the runs found them.
        class_of_new: gives the class of what QGIS's own tools draw, "" for none.

    Signals:
        trouble(str): something that the analyst should know.
    """

    trouble = pyqtSignal(str)

    def __init__(
        self,
        reviewed: ReviewedLayer,
        parent: QObject | None = None,
        class_of_new: Callable[[], str] = str,
    ):
        super().__init__(parent)
        self.reviewed = reviewed
        self.class_of_new = class_of_new
        self.layer: QgsVectorLayer = reviewed.layer
        self.raw = RawShapes(self.layer)
        self._area = GroundArea(self.layer)
        self._following = True
        self._new = NewObjects(self.layer, self._whole, self)
        self.layer.geometryChanged.connect(self._follow)
        self.layer.beforeCommitChanges.connect(self._before_commit)

    def tear_down(self) -> None:
        """Let go of the layer."""
        self._new.tear_down()
        if not sip.isdeleted(self.layer):
            buffer = self.layer.editBuffer()
            if buffer is not None:  # it may be saved after the review
                self.raw.keep(list(buffer.changedGeometries()))
            self.layer.geometryChanged.disconnect(self._follow)
            self.layer.beforeCommitChanges.disconnect(self._before_commit)

    def merge(self, ids: Iterable[int]) -> int:
        """Make objects one: the one that counts most keeps its name. Returns its id."""
        features = self._features(ids)
        shape = self._fitting(shapes.merged([feature.geometry() for feature in features]))
        best = min(features, key=self._rank)
        with self._step(tr("Merge {}").format(_objects(len(features)))):
            self.layer.deleteFeatures([feature.id() for feature in features if feature is not best])
            self._reshape(best.id(), shape)
        return best.id()

    def split(self, ids: Iterable[int], line: list[QgsPointXY]) -> list[int]:
        """Cut objects along a line. The largest piece of each stays the object; the others are new ones, of which the
        same is told. Returns the ids of all pieces."""
        cut = [(feature, shapes.split(feature.geometry(), line)) for feature in self._there(ids)]
        cut = [(feature, [self._fitting(piece) for piece in pieces]) for feature, pieces in cut if len(pieces) > 1]
        if not cut:
            raise ReviewRefused(tr("The line cuts nothing in two: draw it right across an object. Nothing was changed"))
        there = []
        with self._step(tr("Split {}").format(_objects(len(cut)))):
            for feature, (largest, *others) in cut:
                self._reshape(feature.id(), largest)
                values = {**self._told(feature), "edited": True}
                there += [feature.id(), *(self._add(piece, values) for piece in others)]
        return there

    def cut_hole(self, ids: Iterable[int], ring: list[QgsPointXY]) -> list[int]:
        """Take the ground inside of a ring from the objects that hold all of it. Returns their ids."""
        hole = shapes.drawn(ring)
        cut = [(feature.id(), shapes.with_hole(feature.geometry(), hole)) for feature in self._there(ids)]
        cut = [(item, self._fitting(shape)) for item, shape in cut if shape is not None]
        if not cut:
            raise ReviewRefused(tr("The hole lies in no object: draw it wholly inside of one. Nothing was changed"))
        self._reshape_all(tr("Cut a hole"), cut)
        return [item for item, _ in cut]

    def fill_holes(self, ids: Iterable[int]) -> int:
        """Close all holes of objects. Returns how many objects had any."""
        holed = [feature for feature in self._features(ids) if shapes.has_holes(feature.geometry())]
        if not holed:
            raise ReviewRefused(tr("There are no holes to fill"))
        cut = [(feature.id(), self._fitting(shapes.filled(feature.geometry()))) for feature in holed]
        self._reshape_all(tr("Fill the holes of {}").format(_objects(len(cut))), cut)
        return len(cut)

    def redraw(self, item: int, shape: QgsGeometry, text: str = "", accept: bool = False) -> None:
        """Give an object another shape, and maybe accept it for that."""
        shape = self._fitting(shape)
        with self._step(text or tr("Redraw an object")):
            self._reshape(item, shape)
            if accept:
                self.layer.changeAttributeValue(item, self.reviewed.field("status"), ACCEPTED)

    def draw(self, shape: QgsGeometry, class_name: str, text: str = "") -> int:
        """A new object: accepted, since somebody has seen it, and without a score, since no model has. Returns its
        id."""
        shape = self._fitting(shape)
        values = {"class": class_name, "score": NULL, "status": ACCEPTED, "edited": True, "run": NULL}
        with self._step(text or tr("Draw an object")):
            return self._add(shape, values)

    def simplify(self, ids: Iterable[int], tolerance_m: float) -> int:
        """Take points off objects; outlines move by this much at most. Returns how many objects changed."""
        fewer = []
        for feature in self._features(ids):
            before = feature.geometry()
            after = shapes.simplified(before, self._units(before, tolerance_m))
            if after is not before and not after.isNull():
                fewer.append((feature.id(), self._fitting(after)))
        if not fewer:
            raise ReviewRefused(
                tr("No point can be taken off: the outlines would move by more than {:g} m").format(tolerance_m)
            )
        self._reshape_all(tr("Simplify {}").format(_objects(len(fewer))), fewer)
        return len(fewer)

    def straighten(self, found: dict[int, QgsGeometry]) -> int:
        """Give objects the right angles that the engine has found; they keep off the ground of others of their class.
        Returns how many objects changed."""
        straight = []
        for feature in self._features(found):
            before = feature.geometry()
            near = self._neighbours(feature["class"], found[feature.id()], {feature.id()})
            shape = shapes.without(found[feature.id()], [other.difference(before) for other in near])
            if not shape.isNull() and shape.area() >= (1 - DUPLICATE_SHARE) * before.area():
                straight.append((feature.id(), self._fitting(shape)))
        if straight:
            self._reshape_all(tr("Right angles for {}").format(_objects(len(straight))), straight)
        return len(straight)

    def revert(self, ids: Iterable[int]) -> int:
        """Give objects the shapes that their run found. Returns how many objects changed."""
        back = []
        for feature in self._features(ids):
            raw = self.raw.get(feature.id())
            if raw is not None and not _same(raw.geometry, feature.geometry()):
                back.append((feature.id(), raw))
        if not back:
            raise ReviewRefused(
                tr("There is no other shape to go back to: what is drawn or split off has none from a run")
            )
        edited, area = self.reviewed.field("edited"), self.reviewed.field("area_m2")
        with self._step(tr("Back to the raw shape of {}").format(_objects(len(back)))):
            for item, raw in back:
                self.layer.changeGeometry(item, raw.geometry, True)
                self.layer.changeAttributeValue(item, edited, False)
                self.layer.changeAttributeValue(item, area, NULL if raw.area_m2 is None else raw.area_m2)
        return len(back)

    def duplicates(self, ids: Iterable[int] | None = None) -> list[int]:
        """Which of these objects, or of all, are there twice; of those that are rejected nobody asks."""
        request = QgsFeatureRequest() if ids is None else QgsFeatureRequest().setFilterFids(list(ids))
        there = [feature for feature in self.layer.getFeatures(request) if not feature.geometry().isEmpty()]
        return duplicates((feature for feature in there if feature["status"] != REJECTED), self._rank)

    def remove_duplicates(self, ids: Iterable[int]) -> None:
        """Take what `duplicates` told out of the layer."""
        ids = list(ids)
        with self._step(tr("Remove {}").format(count(len(ids), tr("duplicate"), tr("duplicates")))):
            self.layer.deleteFeatures(ids)

    def free_of_others(
        self, shape: QgsGeometry, class_name: str, replaced: int | None, hidden: Iterable[int] = ()
    ) -> QgsGeometry:
        """The shape without the ground that other objects of its class have.

        Args:
            replaced: the object whose shape it is to be; its ground counts as free.
            hidden: ids of objects whose ground counts as free too.
        """
        near = self._neighbours(class_name, shape, {*hidden} if replaced is None else {*hidden, replaced})
        left = shapes.without(shape, near)
        if left.isNull() or left.area() < (1 - DUPLICATE_SHARE) * shape.area():
            raise ReviewRefused(tr("There is an object already, and it is the same: nothing was changed"))
        return left

    def _there(self, ids: Iterable[int]) -> list[QgsFeature]:
        request = QgsFeatureRequest().setFilterFids(list(ids))
        return [feature for feature in self.layer.getFeatures(request) if not feature.geometry().isEmpty()]

    def _features(self, ids: Iterable[int]) -> list[QgsFeature]:
        features = self._there(ids)
        if not features:
            raise ReviewRefused(tr("There is no object to change: select one, or go to one"))
        return features

    def _neighbours(self, class_name: object, shape: QgsGeometry, but: set[int]) -> list[QgsGeometry]:
        """Objects of a class near a shape that are not rejected."""
        request = QgsFeatureRequest().setFilterRect(shape.boundingBox())
        return [
            feature.geometry()
            for feature in self.layer.getFeatures(request)
            if feature.id() not in but and feature["class"] == class_name and feature["status"] != REJECTED
        ]

    @staticmethod
    def _rank(feature: QgsFeature) -> tuple:
        """The smallest counts most: accepted ones, then what a person has drawn, then the best score."""
        score = feature["score"]
        best_first = -math.inf if is_empty(score) else -score
        return (_BY_STATUS.get(feature["status"], 1), best_first, -feature.geometry().area())

    def _units(self, shape: QgsGeometry, metres: float) -> tuple[float, float]:
        """A length on the ground in units of x and of y; as it is where nothing is known of the ground."""
        box = shape.boundingBox()
        size = pixel_size_m(self.layer.crs(), box.center(), box.width(), box.height())
        return (metres, metres) if size is None else (metres * box.width() / size[0], metres * box.height() / size[1])

    def _fitting(self, shape: QgsGeometry) -> QgsGeometry:
        """The shape as the layer's kind of geometry."""
        if shape.isNull():
            raise ReviewRefused(tr("Nothing would be left of the object: nothing was changed"))
        fitting = shape.coerceToType(self.layer.wkbType())
        if len(fitting) != 1:
            raise ReviewRefused(
                tr("The object would have {} parts, and {} takes objects of one part only: nothing was changed").format(
                    len(fitting), self.layer.name()
                )
            )
        return fitting[0]

    def _reshape_all(self, text: str, cut: list[tuple[int, QgsGeometry]]) -> None:
        with self._step(text):
            for item, shape in cut:
                self._reshape(item, shape)

    @contextmanager
    def _step(self, text: str) -> Iterator[None]:
        self._following = False
        try:
            with self.reviewed.edit(text):
                yield
        finally:
            self._following = True

    def _reshape(self, item: int, shape: QgsGeometry) -> None:
        self.layer.changeGeometry(item, shape, True)
        self._tell_of(item, shape)

    def _tell_of(self, item: int, shape: QgsGeometry) -> None:
        self.layer.changeAttributeValue(item, self.reviewed.field("edited"), True, skipDefaultValues=True)
        self.layer.changeAttributeValue(
            item, self.reviewed.field("area_m2"), self._measured(shape), skipDefaultValues=True
        )

    def _measured(self, shape: QgsGeometry) -> object:
        area = self._area.square_metres(shape)
        return NULL if area is None else area

    def _told(self, feature: QgsFeature) -> dict[str, object]:
        """What an object's fields hold, by name, but for what makes it this one."""
        keys = self.layer.primaryKeyAttributes()
        return {
            name: value
            for index, (name, value) in enumerate(zip(feature.fields().names(), feature.attributes()))
            if index not in keys
        }

    def _add(self, shape: QgsGeometry, values: dict[str, object]) -> int:
        attributes = {self.reviewed.field(name): value for name, value in values.items()}
        attributes[self.reviewed.field("area_m2")] = self._measured(shape)
        feature = QgsVectorLayerUtils.createFeature(self.layer, shape, attributes)
        if not self.layer.addFeature(feature):
            raise ReviewRefused(tr("{} takes no new object").format(self.layer.name()))
        return feature.id()

    def _follow(self, item: int, shape: QgsGeometry) -> None:
        """A tool of QGIS has changed a shape: what follows from it belongs to the same step.

        While a step is taken back, or done again, it does so by itself; then the stack is not at work on a step.
        """
        composing = self.layer.isEditCommandActive() and not self.layer.undoStack().canUndo()
        if self._following and composing:
            self._tell_of(item, shape)

    def _before_commit(self, *_) -> None:
        """The last moment for what could not be a part of its step, as where QGIS has pasted several new objects."""
        buffer = self.layer.editBuffer()
        if buffer is None:
            return
        changed = list(buffer.changedGeometries())
        if not self.raw.keep(changed):
            self.trouble.emit(
                tr("The raw shapes of what was edited could not be saved: they are there as long as this review lasts")
            )
        request = QgsFeatureRequest().setFilterFids([*changed, *buffer.addedFeatures()])
        for feature in list(self.layer.getFeatures(request)):
            for name, value in self._lacking(feature).items():
                self.layer.changeAttributeValue(feature.id(), self.reviewed.field(name), value)
            if not feature["edited"] and not self._is_raw(feature):
                self._tell_of(feature.id(), feature.geometry())

    def _whole(self, feature: QgsFeature) -> QgsFeature | None:
        """A new object with all that it should have; None where it has that."""
        lacking = self._lacking(feature)
        if not lacking:
            return None
        whole = QgsFeature(feature)
        for name, value in {**lacking, "edited": True, "area_m2": self._measured(feature.geometry())}.items():
            whole.setAttribute(self.reviewed.field(name), value)
        return whole

    def _lacking(self, feature: QgsFeature) -> dict[str, str]:
        """What an object without a status gets: somebody has seen it."""
        if not is_empty(feature["status"]):
            return {}
        name = self.class_of_new() if is_empty(feature["class"]) else ""
        return {"status": ACCEPTED, **({"class": name} if name else {})}

    def _is_raw(self, feature: QgsFeature) -> bool:
        raw = self.raw.get(feature.id())
        return raw is not None and _same(raw.geometry, feature.geometry())


def is_empty(value: object) -> bool:
    """Whether a field holds nothing."""
    return value is None or value == NULL


def _same(one: QgsGeometry, other: QgsGeometry) -> bool:
    return bytes(one.asWkb()) == bytes(other.asWkb())


def _objects(number: int) -> str:
    return count(number, tr("object"), tr("objects"))
