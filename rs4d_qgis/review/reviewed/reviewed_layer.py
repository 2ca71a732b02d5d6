"""A layer under review: its objects, decisions that are saved at once, and edits that QGIS's own undo takes back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from qgis.core import (
    NULL,
    QgsFeature,
    QgsFeatureRequest,
    QgsProject,
    QgsTransaction,
    QgsVectorDataProvider,
    QgsVectorLayer,
)
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QTimer, pyqtSignal

from rs4d_qgis.compat import has_transaction_groups
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.results import FIELDS
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED, STATUSES
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.reviewed.decision import Decision, Values
from rs4d_qgis.review.reviewed.fields import missing_fields, unfit_fields
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count

_MS_UNTIL_RETRY = 2000
_READ = ("class", "score", "status", "area_m2")


class ReviewedLayer(QObject):
    """Decisions (status and class) go to the file at once, past the edit buffer, and yet are steps of the layer's own
    undo stack. Edits of outlines go through the edit buffer, as any other in QGIS.

    What cannot be written, as another program has locked the file, the disk is full or the layer is read-only, is kept
    in memory, seen by `objects` as if it were written, and tried again until it is.

    Signals:
        changed(set of int, or None): ids of the features that changed, came or went; None where anything may have.
        saving_changed(): `waiting` or `trouble` is another one.
        outdated(): the layer has other data, another filter or other fields. Nothing is read and written any more: ids
            may be those of other objects.
    """

    changed = pyqtSignal(object)
    saving_changed = pyqtSignal()
    outdated = pyqtSignal()

    def __init__(self, layer: QgsVectorLayer, parent: QObject | None = None):
        super().__init__(parent)
        missing = missing_fields(layer)
        if missing:
            raise ReviewRefused(
                tr("{} has no field {}: add the fields of a review to it").format(layer.name(), ", ".join(missing))
            )
        unfit = unfit_fields(layer)
        if unfit:
            raise ReviewRefused(
                tr(
                    "{} has other things in the field {}: class and status have to be text, score and area_m2 numbers. "
                    "Rename it, and add the fields of a review"
                ).format(layer.name(), ", ".join(unfit))
            )
        _refuse_transactions(layer)
        self.layer = layer
        self.trouble = ""
        self._waiting: Values = {}
        self._decisions: list[Decision] = []
        self._touched: set[int] = set()
        self._discarding = False
        self._outdated = False
        self._known = self._data()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._tell)
        self._retry = QTimer(self)
        self._retry.setInterval(_MS_UNTIL_RETRY)
        self._retry.timeout.connect(self.save_decisions)
        layer.updatedFields.connect(self._look_at_data)
        layer.dataSourceChanged.connect(self._look_at_data)
        layer.subsetStringChanged.connect(self._look_at_data)
        layer.attributeValueChanged.connect(self._value_changed)
        layer.geometryChanged.connect(self._geometry_changed)
        layer.featureAdded.connect(self._touch)
        layer.featureDeleted.connect(self._touch)
        layer.beforeRollBack.connect(self._before_roll_back)
        layer.afterRollBack.connect(self._all_changed)
        layer.afterCommitChanges.connect(self._all_changed)

    def tear_down(self) -> None:
        """Let go of the layer; what still waits is tried once more.

        The steps of decisions stay on the layer's stack, but do nothing any more: QGIS takes back the whole stack where
        edits are discarded, and nobody would be there to tell it that decisions are none of them.
        """
        if sip.isdeleted(self.layer):
            self._retry.stop()
            self._soon.stop()
            return
        self.save_decisions()
        self._retry.stop()
        self._soon.stop()
        for decision in self._decisions:
            if not sip.isdeleted(decision):
                decision.expire()
        self._decisions.clear()
        for signal, slot in (
            (self.layer.updatedFields, self._look_at_data),
            (self.layer.dataSourceChanged, self._look_at_data),
            (self.layer.subsetStringChanged, self._look_at_data),
            (self.layer.attributeValueChanged, self._value_changed),
            (self.layer.geometryChanged, self._geometry_changed),
            (self.layer.featureAdded, self._touch),
            (self.layer.featureDeleted, self._touch),
            (self.layer.beforeRollBack, self._before_roll_back),
            (self.layer.afterRollBack, self._all_changed),
            (self.layer.afterCommitChanges, self._all_changed),
        ):
            signal.disconnect(slot)

    @property
    def is_outdated(self) -> bool:
        """The layer has other data or other fields than it was put on the desk with."""
        return self._outdated

    @property
    def waiting(self) -> Values:
        """Decisions that are not in the file yet. Not to be changed."""
        return self._waiting

    def redo_decisions(self, decisions: Mapping[str, Mapping[str, Any]]) -> None:
        """Write decisions of an earlier session: of ids, by field name, the values. Not an undo step."""
        there = {item.id for item in self.objects(map(int, decisions))}
        self._write(
            {
                int(item): {self.field(name): value for name, value in values.items()}
                for item, values in decisions.items()
                if int(item) in there
            }
        )
        self._tell()

    def unsaved_edits(self) -> int:
        """How many objects were drawn, edited or removed and are in QGIS's edit buffer only."""
        buffer = self.layer.editBuffer()
        if buffer is None:
            return 0
        changed = {*buffer.changedGeometries(), *buffer.changedAttributeValues()}
        return len(buffer.addedFeatures()) + len(buffer.deletedFeatureIds()) + len(changed)

    def save_edits(self) -> None:
        """Write the edit buffer to the file, and go on editing.

        Raises:
            ReviewRefused: the file cannot be written. The edits stay in the buffer.
        """
        if not self.layer.commitChanges(False):
            reasons = [line for line in self.layer.commitErrors() if not line.startswith("SUCCESS")]
            raise ReviewRefused(
                tr("The edits of {} could not be saved, and are kept in memory: {}").format(
                    self.layer.name(), " ".join(" ".join(reasons).split())
                )
            )

    def field(self, name: str) -> int:
        """The index of one of the design's fields."""
        return self.layer.fields().indexOf(name)

    def objects(self, ids: Iterable[int] | None = None) -> list[ReviewObject]:
        """All objects, or those of these ids that there are, with edits and decisions that are not saved yet."""
        request = QgsFeatureRequest().setSubsetOfAttributes([self.field(name) for name in _READ])
        return [item for item, _ in self._read(request, ids)]

    def with_features(self, ids: Iterable[int]) -> Iterator[tuple[ReviewObject, QgsFeature]]:
        """The same of these ids, each with its feature as QGIS has it."""
        return self._read(QgsFeatureRequest(), ids)

    def decide(self, ids: Iterable[int], status: str) -> None:
        """Give objects a status: one undo step, saved at once."""
        ids = list(ids)
        text = {
            ACCEPTED: tr("Accept {}"),
            REJECTED: tr("Reject {}"),
            PENDING: tr("Put back {}"),
        }[status]
        self._set("status", status, ids, text.format(count(len(ids), tr("object"), tr("objects"))))

    def set_class(self, ids: Iterable[int], class_name: str) -> None:
        """Give objects a class: one undo step, saved at once."""
        ids = list(ids)
        objects = count(len(ids), tr("object"), tr("objects"))
        self._set("class", class_name, ids, tr("Set class {} on {}").format(class_label(class_name), objects))

    @contextmanager
    def edit(self, text: str) -> Iterator[QgsVectorLayer]:
        """All changes made to the layer inside are one undo step of this name; on an exception there are none.

        Raises:
            ReviewRefused: the layer cannot be edited.
        """
        _refuse_transactions(self.layer)
        if not self.layer.isEditable() and not self.layer.startEditing():
            raise ReviewRefused(
                tr("The outlines of {} cannot be edited, as it is read-only: save it as a GeoPackage first").format(
                    self.layer.name()
                )
            )
        self.layer.beginEditCommand(text)
        try:
            yield self.layer
        except BaseException:
            self.layer.destroyEditCommand()
            raise
        self.layer.endEditCommand()
        self._tell()

    def can_undo(self) -> bool:
        """Whether there is a step to take back. There is none right after edits were saved or discarded, in which QGIS
        forgets all steps."""
        stack = self.layer.undoStack()
        return any(not stack.command(step).isObsolete() for step in range(stack.index() - 1, -1, -1))

    def undo(self) -> None:
        """Take back the last step, whether a decision or an edit."""
        stack = self.layer.undoStack()
        while stack.canUndo() and stack.command(stack.index() - 1).isObsolete():
            stack.undo()  # of an earlier review: the stack drops it
        stack.undo()
        self._tell()

    def redo(self) -> None:
        """Do again what was taken back last."""
        self.layer.undoStack().redo()
        self._tell()

    def save_decisions(self) -> bool:
        """Try to write what waits. False where that still cannot be."""
        if self._waiting:
            self._write(self._waiting)
        return not self._waiting

    def _read(self, request: QgsFeatureRequest, ids: Iterable[int] | None) -> Iterator[tuple[ReviewObject, QgsFeature]]:
        if self._outdated:
            return
        indices = [self.field(name) for name in _READ]
        if ids is not None:
            request.setFilterFids(list(ids))
        for feature in self.layer.getFeatures(request):
            yield self._object(feature, indices), feature

    def _object(self, feature: QgsFeature, indices: list[int]) -> ReviewObject:
        waiting = self._waiting.get(feature.id(), {})
        values = feature.attributes()
        name, score, status, area = (waiting.get(index, values[index]) for index in indices)
        middle = feature.geometry().boundingBox().center()
        return ReviewObject(
            feature.id(),
            "" if name == NULL else str(name),
            None if score == NULL else float(score),
            status if status in STATUSES else PENDING,
            None if area == NULL else float(area),
            middle.x(),
            middle.y(),
        )

    def _set(self, field: str, value: str, ids: list[int], text: str) -> None:
        index = self.field(field)
        buffered = [item for item in ids if self._is_buffered(item, index)]
        written = set(ids).difference(buffered)
        before = self._values(written, index)
        after = {item: {index: value} for item in before}
        if buffered:
            self.layer.beginEditCommand(text)
        if after:
            # Those that the stack has deleted are of no use any more.
            self._decisions = [decision for decision in self._decisions if not sip.isdeleted(decision)]
            self._decisions.append(Decision(text, before, after, self._write))
            self.layer.undoStack().push(self._decisions[-1])
        if buffered:
            for item in buffered:
                self.layer.changeAttributeValue(item, index, value)
            self.layer.endEditCommand()
        self._tell()

    def _is_buffered(self, item: int, index: int) -> bool:
        """Whether the value is in QGIS's edit buffer: of a feature that is not saved yet, or changed in there."""
        buffer = self.layer.editBuffer()
        return buffer is not None and (
            buffer.isFeatureAdded(item) or index in buffer.changedAttributeValues().get(item, {})
        )

    def _values(self, ids: Iterable[int], index: int) -> Values:
        """What a field holds."""
        request = QgsFeatureRequest().setFilterFids(list(ids)).setFlags(QgsFeatureRequest.Flag.NoGeometry)
        request.setSubsetOfAttributes([index])
        return {
            feature.id(): {index: self._waiting.get(feature.id(), {}).get(index, feature[index])}
            for feature in self.layer.getFeatures(request)
        }

    def _write(self, values: Values) -> None:
        """To the file; to memory where that cannot be."""
        if self._outdated:
            return
        if self._discarding:
            return  # QGIS throws its edits away, and undoes the whole stack for it: decisions are none of them
        due = {item: dict(of) for item, of in self._waiting.items()}
        for item, of in values.items():
            due.setdefault(item, {}).update(of)
        provider = self.layer.dataProvider()
        provider.clearErrors()
        if provider.transaction() is not None:  # what is written into it goes with it, if it is taken back
            saved, trouble = False, tr("the edits of this project are one transaction: save them")
        elif not self.layer.readOnly() and (
            provider.capabilities() & QgsVectorDataProvider.Capability.ChangeAttributeValues
        ):
            saved = provider.changeAttributeValues(due)
            trouble = "" if saved else _reason(provider.errors())
        else:
            saved, trouble = False, tr("the layer is read-only")
        before = (self.trouble, len(self._waiting))
        self._waiting = {} if saved else due
        self.trouble = trouble
        if saved:
            self._retry.stop()
        elif not self._retry.isActive():
            self._retry.start()
        if before != (self.trouble, len(self._waiting)):
            self.saving_changed.emit()
        self._touched.update(values)
        self._soon.start(0)
        self.layer.triggerRepaint()

    def _data(self) -> tuple:
        """Where the layer's objects are, and their fields."""
        return self.layer.source(), [self.field(name) for name in FIELDS]

    def _look_at_data(self) -> None:
        if not self._outdated and self._data() != self._known:
            self._outdated = True
            self.outdated.emit()

    def _value_changed(self, item: int, _index: int, _value: Any) -> None:
        self._touch(item)

    def _geometry_changed(self, item: int, _geometry) -> None:
        self._touch(item)

    def _touch(self, item: int) -> None:
        self._touched.add(item)
        self._soon.start(0)

    def _before_roll_back(self) -> None:
        self._discarding = True

    def _all_changed(self) -> None:
        self._discarding = False
        self._touched.clear()
        self._soon.stop()
        self.changed.emit(None)

    def _tell(self) -> None:
        self._soon.stop()
        touched, self._touched = self._touched, set()
        if touched:
            self.changed.emit(touched)


def _refuse_transactions(layer: QgsVectorLayer) -> None:
    """In a transaction, nothing is saved before all is: decisions would be lost with edits that are discarded, or with
    QGIS."""
    if has_transaction_groups(QgsProject.instance()) and QgsTransaction.supportsTransaction(layer):
        raise ReviewRefused(
            tr(
                "This project saves the edits of {} as one transaction, and decisions could be lost with it: "
                "set Project > Properties > Data Sources > Transaction mode to local edits"
            ).format(layer.name())
        )


def _reason(errors: list[str]) -> str:
    """What keeps a file from being written, for people."""
    told = errors[-1] if errors else ""
    if "locked" in told or "busy" in told:
        return tr("another program has locked the file")
    if "readonly" in told or "read-only" in told:
        return tr("the file is read-only")
    if not told or "disk" in told:
        return tr("the disk is full, or the file cannot be written")
    return " ".join(told.split()).rstrip(".")
