"""Makes what QGIS's own tools have drawn whole: class, status, area, and that a person has drawn it."""

from __future__ import annotations

from collections.abc import Callable

from qgis.core import QgsFeature, QgsVectorLayer
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QTimer


class NewObjects(QObject):
    """Watches for new objects without a status.

    QGIS takes no further change into the step of undo in which an object is added: while it is added, that would come
    before it, and afterwards the step is closed. So the step is taken back as soon as QGIS is done with it, and done
    again with the whole object.
    """

    def __init__(
        self, layer: QgsVectorLayer, whole: Callable[[QgsFeature], QgsFeature | None], parent: QObject | None = None
    ):
        """
        Args:
            whole: gives the object as it should be; None where it is that already.
        """
        super().__init__(parent)
        self._layer, self._whole = layer, whole
        self._added: list[int] = []
        self._last: tuple[int, int] | None = None
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self._complete)
        layer.editCommandStarted.connect(self._begun)
        layer.featureAdded.connect(self._added_one)
        layer.editCommandEnded.connect(self._ended)

    def tear_down(self) -> None:
        """Let go of the layer."""
        self._soon.stop()
        if not sip.isdeleted(self._layer):
            self._layer.editCommandStarted.disconnect(self._begun)
            self._layer.featureAdded.disconnect(self._added_one)
            self._layer.editCommandEnded.disconnect(self._ended)

    def _begun(self, _text: str) -> None:
        self._added.clear()

    def _added_one(self, item: int) -> None:
        self._added.append(item)

    def _ended(self) -> None:
        stack = self._layer.undoStack()
        self._last = (self._added[0], stack.index()) if len(self._added) == 1 else None
        if self._last is None:
            self._soon.stop()
        else:
            self._soon.start(0)

    def _complete(self) -> None:
        item, place = self._last
        stack, buffer = self._layer.undoStack(), self._layer.editBuffer()
        if buffer is None or not buffer.isFeatureAdded(item) or stack.index() != place:
            return
        step = stack.command(place - 1)
        if step.childCount() != 1:  # it did more than that, and is left alone: saving makes its object whole
            return
        whole = self._whole(self._layer.getFeature(item))
        if whole is None:
            return
        text, selected = step.text(), item in self._layer.selectedFeatureIds()
        stack.undo()
        self._layer.beginEditCommand(text)
        self._layer.addFeature(whole)
        self._layer.endEditCommand()
        if selected:
            self._layer.select(whole.id())
