"""Texts that hold names from files, or messages about them, shown as they are.

Qt takes a text that looks like HTML for HTML: a class called `<img src="file:...">` would be a picture.
"""

from __future__ import annotations

from html import escape

from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QLabel


class PlainLabel(QLabel):
    """A label that shows every text as it is."""

    def __init__(self, text: str = "", parent=None):
        super().__init__(text, parent)
        self.setTextFormat(Qt.TextFormat.PlainText)


def as_it_is(text: str) -> str:
    """A text for places where Qt itself tells text from HTML, such as tool tips and questions: shown as it is."""
    if "<" not in text:
        return text
    return f'<span style="white-space: pre-wrap">{escape(text)}</span>'
