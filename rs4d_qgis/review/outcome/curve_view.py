"""Precision and recall over the score, as lines to look along."""

from __future__ import annotations

from qgis.PyQt.QtCore import QPointF, QRectF, QSize, Qt
from qgis.PyQt.QtGui import QColor, QPainter, QPalette, QPen, QPolygonF
from qgis.PyQt.QtWidgets import QSizePolicy, QWidget

from rs4d_qgis.compat import x_of
from rs4d_qgis.review.logic.curve import Curve
from rs4d_qgis.translation import tr

PRECISION_COLOR, RECALL_COLOR = "#3b7dd8", "#e07b39"
_LINES_HIGH = 10
_DOT = 3.5
_TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)


class CurveView(QWidget):
    """Draws a `Curve`. Where the mouse is, it tells the score and both figures."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.setObjectName("precision_recall")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMouseTracking(True)
        self.setAccessibleName(tr("Precision and recall over the score"))
        self._curve = Curve()
        self._place: int | None = None

    def show_curve(self, curve: Curve) -> None:
        """Show this one."""
        self._curve, self._place = curve, None
        self.update()

    @property
    def reading(self) -> str:
        """What it tells of the place under the mouse; "" where there is none."""
        if self._place is None:
            return ""
        curve, place = self._curve, self._place
        return tr("at {:.2f}: precision {:.2f}, recall {:.2f}").format(
            curve.score[place], curve.precision[place], curve.recall[place]
        )

    def position(self, place: int) -> float:
        """Where a point is, in pixels from the left."""
        least, most = self._curve.score[-1], self._curve.score[0]
        area = self._area()
        share = (self._curve.score[place] - least) / (most - least) if most > least else 0.5
        return area.left() + share * area.width()

    def sizeHint(self) -> QSize:
        return QSize(240, _LINES_HIGH * self.fontMetrics().height())

    def mouseMoveEvent(self, event) -> None:
        x = x_of(event)
        points = range(len(self._curve.score))
        self._place = min(points, key=lambda place: abs(self.position(place) - x), default=None)
        self.update()

    def leaveEvent(self, _event) -> None:
        self._place = None
        self.update()

    def paintEvent(self, _event) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        area, line = self._area(), self.fontMetrics().height()
        text = self.palette().color(QPalette.ColorRole.WindowText)
        grid = QColor(text)
        grid.setAlphaF(0.15)
        for tick in _TICKS:
            y = self._height(tick)
            painter.setPen(QPen(grid, 1))
            painter.drawLine(QPointF(area.left(), y), QPointF(area.right(), y))
            if tick in (0.0, 0.5, 1.0):
                painter.setPen(text)
                box = QRectF(0, y - line / 2, area.left() - 4, line)
                painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{tick:g}")
        if not self._curve.score:
            return
        painter.setPen(text)
        below = QRectF(area.left(), area.bottom() + 2, area.width(), line)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, f"{self._curve.score[-1]:.2f}")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, tr("score"))
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{self._curve.score[0]:.2f}")
        for values, color in ((self._curve.precision, PRECISION_COLOR), (self._curve.recall, RECALL_COLOR)):
            painter.setPen(QPen(QColor(color), 2))
            points = [QPointF(self.position(place), self._height(value)) for place, value in enumerate(values)]
            painter.drawPolyline(QPolygonF(points))
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(QColor(color))
            shown = [self._place] if self._place is not None else [0] if len(points) == 1 else []
            for place in shown:
                painter.drawEllipse(points[place], _DOT, _DOT)
            painter.setBrush(Qt.BrushStyle.NoBrush)
        if self._place is None:
            self._draw_legend(painter, text)
            return
        x = self.position(self._place)
        painter.setPen(QPen(grid, 1.5))
        painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom()))
        painter.setPen(text)
        painter.drawText(QRectF(0, 0, self.width(), line), Qt.AlignmentFlag.AlignHCenter, self.reading)

    def _draw_legend(self, painter: QPainter, text: QColor) -> None:
        line = self.fontMetrics().height()
        left = self._area().left()
        for name, color in ((tr("precision"), PRECISION_COLOR), (tr("recall"), RECALL_COLOR)):
            painter.setPen(QPen(QColor(color), 3))
            painter.drawLine(QPointF(left, line / 2), QPointF(left + line, line / 2))
            painter.setPen(text)
            painter.drawText(QPointF(left + 1.3 * line, self.fontMetrics().ascent()), name)
            left += 3 * line + self.fontMetrics().boundingRect(name).width()

    def _area(self) -> QRectF:
        line = self.fontMetrics().height()
        left = self.fontMetrics().boundingRect("0.5").width() + 8
        return QRectF(left, 1.5 * line, self.width() - left - 6, self.height() - 3 * line)

    def _height(self, value: float) -> float:
        area = self._area()
        return area.bottom() - value * area.height()
