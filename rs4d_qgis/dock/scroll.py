"""A panel that is longer than its dock."""

from __future__ import annotations

from qgis.PyQt.QtCore import QEvent, QSize, Qt
from qgis.PyQt.QtWidgets import QFrame, QScrollArea, QWidget

_LETTERS_WIDE = 48


class PanelScroll(QScrollArea):
    """Scrolls up and down only: as wide as its contents need."""

    def __init__(self, contents: QWidget):
        super().__init__()
        self.setWidgetResizable(True)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setWidget(contents)

    def eventFilter(self, watched, event) -> bool:
        """The contents may come to need another width: a larger font, a longer word."""
        if watched is self.widget() and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
        return super().eventFilter(watched, event)

    def minimumSizeHint(self) -> QSize:
        width = self.widget().minimumSizeHint().width() + self.verticalScrollBar().sizeHint().width()
        return QSize(width, super().minimumSizeHint().height())

    def sizeHint(self) -> QSize:
        width = max(self.minimumSizeHint().width(), _LETTERS_WIDE * self.fontMetrics().averageCharWidth())
        return QSize(width, self.widget().sizeHint().height())
