"""Rows of parts that become shorter where the panel is narrow."""

from __future__ import annotations

from qgis.PyQt.QtCore import QEvent
from qgis.PyQt.QtWidgets import QGridLayout, QSizePolicy, QWidget

_GAP_PX = 4


class ReflowGrid(QWidget):
    """So many parts of one width side by side; where their size hints have no room, fewer.

    Args:
        parts: in reading order. They are made to share the width that there is, whatever they would need.
        across: how many are side by side, from the most on.
    """

    def __init__(self, parts: list[QWidget], across: tuple[int, ...], parent: QWidget | None = None):
        super().__init__(parent)
        self._parts = parts
        self._choices = across
        self._across = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(_GAP_PX)
        for part in parts:
            part.setSizePolicy(QSizePolicy.Policy.Ignored, part.sizePolicy().verticalPolicy())
        self._lay_out(across[-1])

    def event(self, event) -> bool:
        """The panel is wider or narrower, or a part needs another width."""
        if event.type() in (QEvent.Type.Resize, QEvent.Type.LayoutRequest):
            widest = max(part.sizeHint().width() for part in self._parts)
            fit = [across for across in self._choices if across * (widest + _GAP_PX) - _GAP_PX <= self.width()]
            self._lay_out(fit[0] if fit else self._choices[-1])
        return super().event(event)

    def _lay_out(self, across: int) -> None:
        if across == self._across:
            return
        self._across = across
        for place, part in enumerate(self._parts):
            self._grid.addWidget(part, place // across, place % across)
        for column in range(self._choices[0]):
            self._grid.setColumnStretch(column, int(column < across))
