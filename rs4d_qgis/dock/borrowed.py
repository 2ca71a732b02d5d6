"""Tools that take the mouse for a while, and give it back."""

from __future__ import annotations

from qgis.PyQt import sip


class Borrowed:
    """To be mixed into a QgsMapTool, before it."""

    _before = None

    def start(self) -> None:
        """Take the mouse."""
        before = self.canvas().mapTool()
        if before is not self:
            self._before = before._before if isinstance(before, Borrowed) else before
            self.canvas().setMapTool(self)
        self.canvas().setFocus()

    def stop(self) -> None:
        """Give the mouse back to the tool that had it."""
        if sip.isdeleted(self.canvas()) or self.canvas().mapTool() is not self:
            return
        self.canvas().unsetMapTool(self)
        if self._before is not None and not sip.isdeleted(self._before):
            self.canvas().setMapTool(self._before)
