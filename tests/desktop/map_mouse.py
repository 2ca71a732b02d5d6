"""The mouse over the map, at points of its CRS."""

from qgis.core import QgsPointXY
from qgis.PyQt.QtCore import QPoint, Qt
from qgis.PyQt.QtTest import QTest

LEFT, RIGHT = Qt.MouseButton.LeftButton, Qt.MouseButton.RightButton


def place(canvas, x, y):
    """Where a point is on the screen."""
    pixel = canvas.getCoordinateTransform().transform(QgsPointXY(x, y))
    return QPoint(round(pixel.x()), round(pixel.y()))


def click(canvas, x, y, button=LEFT):
    """Press and release."""
    view, point = canvas.viewport(), place(canvas, x, y)
    QTest.mouseMove(view, point)
    QTest.mouseClick(view, button, Qt.KeyboardModifier.NoModifier, point)


def draw(canvas, points):
    """Corner by corner; the right button ends it."""
    for x, y in points:
        click(canvas, x, y)
    click(canvas, *points[-1], button=RIGHT)
