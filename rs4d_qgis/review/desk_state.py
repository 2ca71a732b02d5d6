"""What all parts of the desk share: the layer under review, the queue, and the line that messages go to."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsVectorLayer
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, pyqtSignal

from rs4d_qgis.layers.results import provenance
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.review.keeping.keeper import Keeper
from rs4d_qgis.review.keys import Keys
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.order import Order
from rs4d_qgis.review.logic.session import Session
from rs4d_qgis.review.reviewed import look
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer
from rs4d_qgis.review.waiting import wait_cursor
from rs4d_qgis.translation import tr


class DeskState(QObject):
    """One layer at a time is under review.

    Attributes:
        iface: of QGIS.
        reviewed: the layer; None where there is none.
        session: its queue; empty where there is none.
        keys: of all parts; they are listened to while there is a layer, and the desk is in sight.
        keeper: of what a crash would take.
        in_sight: the panel can be seen.
        on_map: true while it is told that the current object is another one, for something that the analyst does while
            looking at the map, such as to select an object there.
        classes: names to choose from: those of the layer's look, and others that its objects have.
        colors: of classes, "#rrggbb", as the layer's look has them.

    Signals:
        reviewed_changed(): another layer, or none.
        shown_changed(): objects came, went or changed, or the queue is another one.
        current_changed(): another object is looked at, or it has changed.
        saving_changed(): what is saved, or is not, may be another thing.
        said(str, bool): a line for the analyst, and whether it is a warning.
    """

    reviewed_changed = pyqtSignal()
    shown_changed = pyqtSignal()
    current_changed = pyqtSignal()
    saving_changed = pyqtSignal()
    said = pyqtSignal(str, bool)

    def __init__(self, iface, parent: QObject | None = None):
        super().__init__(parent)
        self.iface = iface
        self.reviewed: ReviewedLayer | None = None
        self.session = Session()
        self.classes: list[str] = []
        self.colors: dict[str, str] = {}
        self.keeper = Keeper(lambda: self.session, self)
        self.in_sight = False
        self.on_map = False
        for signal in (self.shown_changed, self.current_changed, self.saving_changed):
            signal.connect(self.keeper.write_soon)
        self.keys = Keys(lambda: self.in_sight and self.reviewed is not None, self)

    def review(self, layer: QgsVectorLayer | None) -> None:
        """Put a layer on the desk, or take the one that is there away.

        Raises:
            ReviewRefused: it lacks fields; the desk is empty then.
        """
        if self.reviewed is not None:
            self.reviewed.changed.disconnect(self._layer_changed)
            if not sip.isdeleted(self.reviewed.layer):
                self.reviewed.layer.selectionChanged.disconnect(self._selected)
            self.reviewed.tear_down()
            self.keeper.close()
            look.take_off(self.reviewed.layer)
            self.reviewed.deleteLater()
            self.reviewed = None
        self.session, self.classes, self.colors = Session(), [], {}
        try:
            if layer is not None:
                self.reviewed = ReviewedLayer(layer, self)
                self.reviewed.changed.connect(self._layer_changed)
                self.reviewed.saving_changed.connect(self.saving_changed)
                layer.selectionChanged.connect(self._selected)
                self.colors = look.class_colors(layer)
                place = self.keeper.open(self.reviewed)
                self.session = Session(self.reviewed.objects(), place.order, place.filters)
                if place.current is not None:
                    self.session.resume(place.current)
                self._go_to_selected()
                self._learn_classes()
                look.put_on(layer)
                look.set_cuts(layer, place.filters.cuts)
        finally:
            self.reviewed_changed.emit()
            self.shown_changed.emit()
            self.current_changed.emit()
            self.saving_changed.emit()

    def own_look(self) -> None:
        """Give the layer its own look for a while, as for a project that is written: nobody will take the look of a
        review off where that is opened."""
        if self.reviewed is not None:
            look.take_off(self.reviewed.layer)

    def review_look(self) -> None:
        """Give it the look of a review again."""
        if self.reviewed is not None:
            look.put_on(self.reviewed.layer)
            look.set_cuts(self.reviewed.layer, self.session.filters.cuts)

    def selection(self) -> list[int]:
        """Ids of the objects that are selected on the map; where none is, of the current one."""
        if self.reviewed is None:
            return []
        selected = sorted(self.reviewed.layer.selectedFeatureIds())
        if not selected and self.session.current is not None:
            return [self.session.current]
        return selected

    def scene(self) -> str | None:
        """The raster that the layer's objects were found in; None where that is not known, or not there any more."""
        if self.reviewed is None:
            return None
        records = [record for record in (provenance(self.reviewed.layer), *read_runs(self.reviewed.layer)) if record]
        return next((str(record["scene"]) for record in records if Path(str(record["scene"])).exists()), None)

    def say(self, text: str, warning: bool = False) -> None:
        """Tell the analyst something, in the desk's own line. An empty text takes the last one away."""
        self.said.emit(text, warning)

    def decide(self, ids: list[int], status: str) -> None:
        """Give objects a status, and go on to the next one where the current one is among them."""
        current = self.session.current
        with wait_cursor():
            self.reviewed.decide(ids, status)
        if current in ids:
            self.go_on()

    def set_class(self, ids: list[int], name: str) -> None:
        """Give objects a class."""
        with wait_cursor():
            self.reviewed.set_class(ids, name)

    def go_on(self) -> None:
        """To the next object that is to be looked at."""
        self.session.advance()
        self._moved()

    def step(self, by: int) -> None:
        """So many places on in the queue, or back."""
        self.session.step(by)
        self._moved()

    def go(self, item: int) -> None:
        """To this object, if it is in the queue."""
        if self.session.go(item):
            self._moved()

    def undo(self) -> None:
        """Take back the last step, and go to what it changed; of several objects to the first in the queue."""
        if not self.reviewed.can_undo():
            self.say(tr("There is nothing to undo: QGIS forgets all steps when edits are saved or discarded"))
            return
        seen: list[set[int] | None] = []
        self.reviewed.changed.connect(seen.append)
        with wait_cursor():
            self.reviewed.undo()
        self.reviewed.changed.disconnect(seen.append)
        touched = {item for ids in seen for item in ids or ()}
        first = next((item for item in self.session.queue if item in touched), None)
        if first is not None:
            self.go(first)

    def set_order(self, order: Order) -> None:
        """Line up anew."""
        self.session.set_order(order)
        self.shown_changed.emit()
        self._moved()

    def set_filters(self, filters: Filters, on_map: bool = False) -> None:
        """Line up anew; `on_map` where the analyst watches on the map what comes of it."""
        self.session.set_filters(filters)
        self.shown_changed.emit()
        self.on_map = on_map
        self._moved()
        self.on_map = False

    def _moved(self) -> None:
        """Edits are for what is selected: that is not to be the last object while decisions are for this one."""
        selected = self.reviewed.layer.selectedFeatureIds() if self.reviewed is not None else []
        if len(selected) == 1 and selected[0] != self.session.current:
            self.reviewed.layer.removeSelection()
        self.current_changed.emit()

    def _selected(self, *_) -> None:
        """One object that is selected on the map is the one to decide on, whether or not it passes the filters."""
        if self._go_to_selected():
            self.on_map = True
            self.current_changed.emit()
            self.on_map = False

    def _go_to_selected(self) -> bool:
        """What keys decide on is what is shown. Gives whether that is another one now."""
        selected = self.reviewed.layer.selectedFeatureIds()
        return len(selected) == 1 and selected[0] != self.session.current and self.session.visit(selected[0])

    def _layer_changed(self, ids: set[int] | None) -> None:
        current = self.session.current
        if ids is None:
            self.session.reload(self.reviewed.objects())
        else:
            there = self.reviewed.objects(ids)
            self.session.update(there, ids.difference(item.id for item in there))
        self._go_to_selected()  # what was drawn has another id once it is saved
        self._learn_classes()
        self.shown_changed.emit()
        self.saving_changed.emit()
        if ids is None or current in ids or self.session.current != current:
            self.current_changed.emit()

    def _learn_classes(self) -> None:
        """Keep the order of those known: their keys are in the analyst's fingers."""
        known = self.classes or list(self.colors)
        self.classes = [*known, *(name for name in self.session.counts() if name and name not in known)]
