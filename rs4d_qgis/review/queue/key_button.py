"""A button that shows its key."""

from __future__ import annotations

from qgis.PyQt.QtCore import QRect, QSize, Qt
from qgis.PyQt.QtGui import QFont, QFontMetrics, QIcon, QPalette
from qgis.PyQt.QtWidgets import (
    QPushButton,
    QStyle,
    QStyleOptionButton,
    QStylePainter,
    QWidget,
)

# Of the label's size; and of its colour, the rest being the button's.
_KEY_SIZE = 0.8
_KEY_SHARE = 0.65
_GAP_PX = 4


class KeyButton(QPushButton):
    """An icon, a label and, in small type, the key. Where there is no room for all, first the icon goes, then the key,
    which the tip tells too, and only then the label is cut short."""

    def __init__(self, icon: QIcon, label: str, tip: str, parent: QWidget | None = None):
        super().__init__(icon, label, parent)
        self._tip = tip
        self._key = ""
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.show_key("")

    @property
    def key(self) -> str:
        """As it is shown; "" for none."""
        return self._key

    def show_key(self, key: str) -> None:
        """This is its key now."""
        self._key = key
        self.setToolTip(f"{self._tip} [{key}]" if key else self._tip)
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """With room for icon, label and key."""
        return QSize(self._width_of(*self._parts()) + self._edge(), super().sizeHint().height())

    def paintEvent(self, _event) -> None:
        """The style's button, and what there is room for on it."""
        option = QStyleOptionButton()
        self.initStyleOption(option)
        option.text, option.icon = "", QIcon()
        painter = QStylePainter(self)
        painter.drawControl(QStyle.ControlElement.CE_PushButton, option)
        room = self.width() - self._edge()
        label, key, icon = self._parts()
        if self._width_of(label, key, icon) > room:
            icon = 0
        if self._width_of(label, key, icon) > room:
            key = 0
        left = (self.width() - min(room, self._width_of(label, key, icon))) // 2
        if icon:
            box = QRect(left, (self.height() - icon) // 2, icon, icon)
            mode = QIcon.Mode.Normal if self.isEnabled() else QIcon.Mode.Disabled
            self.icon().paint(painter, box, Qt.AlignmentFlag.AlignCenter, mode)
            left += icon + _GAP_PX
        group = QPalette.ColorGroup.Active if self.isEnabled() else QPalette.ColorGroup.Disabled
        painter.setPen(self.palette().color(group, QPalette.ColorRole.ButtonText))
        wide = min(label, room)
        text = self.fontMetrics().elidedText(self.text(), Qt.TextElideMode.ElideRight, wide)
        middle = Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft
        painter.drawText(QRect(left, 0, wide, self.height()), middle, text)
        if key:
            painter.setFont(self._key_font())
            painter.setOpacity(_KEY_SHARE)
            painter.drawText(QRect(left + wide + _GAP_PX, 0, key, self.height()), middle, self._key)

    def _parts(self) -> tuple[int, int, int]:
        """How wide label, key and icon are, in pixels."""
        key = QFontMetrics(self._key_font()).horizontalAdvance(self._key) if self._key else 0
        return self.fontMetrics().horizontalAdvance(self.text()) + 1, key, self.iconSize().width()

    @staticmethod
    def _width_of(label: int, key: int, icon: int) -> int:
        return label + (key + _GAP_PX if key else 0) + (icon + _GAP_PX if icon else 0)

    def _edge(self) -> int:
        """What the style needs, left and right together."""
        return 2 * self.style().pixelMetric(QStyle.PixelMetric.PM_ButtonMargin, None, self)

    def _key_font(self) -> QFont:
        font = QFont(self.font())
        font.setPointSizeF(_KEY_SIZE * self.fontInfo().pointSizeF())
        return font
