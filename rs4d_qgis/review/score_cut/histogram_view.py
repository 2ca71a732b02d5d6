"""A histogram of scores with a line that is dragged to cut them."""

from __future__ import annotations

from qgis.PyQt.QtCore import QPointF, QRectF, QSize, Qt, pyqtSignal
from qgis.PyQt.QtGui import QColor, QPainter, QPalette, QPen
from qgis.PyQt.QtWidgets import QSizePolicy, QWidget

from rs4d_qgis.compat import x_of
from rs4d_qgis.layers.results import OTHER_COLOR
from rs4d_qgis.review.logic.histogram import ScoreHistogram
from rs4d_qgis.translation import tr

_LINES_HIGH = 4
_GRIP = 5.0


class HistogramView(QWidget):
    """Bars over the range of the scores; those under the cut are pale.

    Signals:
        dragged(float): the analyst moves the cut there.
    """

    dragged = pyqtSignal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setObjectName("score_histogram")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setCursor(Qt.CursorShape.SplitHCursor)
        self.setToolTip(tr("Drag to hide objects with lower scores. The layer stays as it is."))
        self._histogram = ScoreHistogram.of(())
        self._cut = 0.0
        self._color = QColor(OTHER_COLOR)

    def show_scores(self, histogram: ScoreHistogram, cut: float, color: str) -> None:
        """Show these."""
        self._histogram, self._cut, self._color = histogram, cut, QColor(color)
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(200, _LINES_HIGH * self.fontMetrics().height() + self.fontMetrics().height())

    def position(self, score: float) -> float:
        """Where a score is, in pixels from the left."""
        area, histogram = self._area(), self._histogram
        share = (score - histogram.least) / (histogram.most - histogram.least)
        return area.left() + max(0.0, min(share, 1.0)) * area.width()

    def mousePressEvent(self, event) -> None:
        self._drag(event)

    def mouseMoveEvent(self, event) -> None:
        if event.buttons() & Qt.MouseButton.LeftButton:
            self._drag(event)

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area, counts = self._area(), self._histogram.counts
        text = self.palette().color(QPalette.ColorRole.WindowText)
        painter.setPen(QPen(self.palette().color(QPalette.ColorRole.Mid), 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        if not counts:
            return
        wide, most = area.width() / len(counts), max(counts)
        cut_at = self.position(self._cut)
        pale = QColor(self._color)
        pale.setAlphaF(0.25)
        for place, number in enumerate(counts):
            # The smallest number shows too.
            high = max(1.0, area.height() * number / most) if number else 0.0
            bar = QRectF(area.left() + place * wide, area.bottom() - high, max(1.0, wide - 1), high)
            painter.fillRect(bar, pale)
            kept = bar.intersected(QRectF(cut_at, area.top(), area.right() - cut_at + 1, area.height()))
            painter.fillRect(kept, self._color)
        painter.setPen(QPen(text, 1.5))
        painter.drawLine(QPointF(cut_at, area.top()), QPointF(cut_at, area.bottom()))
        painter.setBrush(text)
        painter.drawEllipse(QPointF(cut_at, area.top() + _GRIP), _GRIP - 1, _GRIP - 1)
        labels = QRectF(0, area.bottom() + 1, self.width(), self.fontMetrics().height())
        painter.setPen(text)
        painter.drawText(labels, Qt.AlignmentFlag.AlignLeft, f"{self._histogram.least:.2f}")
        painter.drawText(labels, Qt.AlignmentFlag.AlignRight, f"{self._histogram.most:.2f}")

    def _area(self) -> QRectF:
        return QRectF(_GRIP, 1, self.width() - 2 * _GRIP, self.height() - self.fontMetrics().height() - 3)

    def _drag(self, event) -> None:
        if not self._histogram.can_be_cut:
            return
        share = max(0.0, min((x_of(event) - self._area().left()) / self._area().width(), 1.0))
        self.dragged.emit(self._histogram.least + share * (self._histogram.most - self._histogram.least))
