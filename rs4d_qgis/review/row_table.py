"""A table that is as high as its rows."""

from __future__ import annotations

from qgis.PyQt.QtCore import QSize
from qgis.PyQt.QtWidgets import QTreeWidget


class RowTable(QTreeWidget):
    """Grows with its rows up to a number of them, and scrolls from there on.

    Args:
        most_rows: how many are seen at once at most.
    """

    def __init__(self, most_rows: int, parent=None):
        super().__init__(parent)
        self._most_rows = most_rows
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)

    def sizeHint(self) -> QSize:
        """As high as its rows, and room for a bar to scroll sideways where the panel is narrow."""
        rows = max(2, min(self.topLevelItemCount(), self._most_rows))
        row = self.sizeHintForRow(0) if self.topLevelItemCount() else self.fontMetrics().height()
        height = self.header().sizeHint().height() + rows * row + 2 * self.frameWidth()
        if self.horizontalScrollBar().maximum() > 0:
            height += self.horizontalScrollBar().sizeHint().height()
        return QSize(super().sizeHint().width(), height)

    def minimumSizeHint(self) -> QSize:
        return QSize(super().minimumSizeHint().width(), self.sizeHint().height())
