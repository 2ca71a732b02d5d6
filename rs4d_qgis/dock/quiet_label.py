"""Text that explains the field above it."""

from __future__ import annotations

from qgis.PyQt.QtCore import QEvent
from qgis.PyQt.QtGui import QColor, QPalette

from rs4d_qgis.plain_text import PlainLabel

# Of the text's own colour, the rest being the background's: quieter, and still easy to read in any theme.
_SHARE = 0.7


class QuietLabel(PlainLabel):
    """A label in a quieter colour than its surroundings, hidden while it is empty."""

    def __init__(self, parent=None):
        super().__init__(parent=parent)
        self.setWordWrap(True)
        self.setMinimumWidth(1)  # else a long word widens the panel
        self._mute()
        self.hide()

    def say(self, text: str) -> None:
        """Show a text, or nothing."""
        self.setText(text)
        self.setVisible(bool(text))

    def changeEvent(self, event) -> None:
        """Another theme has other colours."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.ParentChange, QEvent.Type.StyleChange):
            self._mute()

    def _mute(self) -> None:
        around = self.parentWidget().palette() if self.parentWidget() is not None else QPalette()
        # As it is where the label can be used, even if it cannot be now.
        text = around.color(QPalette.ColorGroup.Active, QPalette.ColorRole.WindowText)
        ground = around.color(QPalette.ColorGroup.Active, QPalette.ColorRole.Window)
        mixed = [
            round(_SHARE * part + (1 - _SHARE) * other) for part, other in zip(text.getRgb()[:3], ground.getRgb()[:3])
        ]
        palette = self.palette()
        palette.setColor(QPalette.ColorRole.WindowText, QColor(*mixed))
        self.setPalette(palette)
