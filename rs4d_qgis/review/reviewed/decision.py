"""A decision on the layer's own undo stack."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rs4d_qgis.compat import QUndoCommand

# Of each feature, by field index, the values.
Values = dict[int, dict[int, Any]]


class Decision(QUndoCommand):
    """Values that were written past the edit buffer, which knows nothing of them: QGIS would clear the stack with each
    save, and decisions are saved at once.

    The stack owns it, but only as long as Python has a reference too does it do anything: keep one.
    """

    def __init__(self, text: str, before: Values, after: Values, write: Callable[[Values], None]):
        super().__init__(text)
        self._before = before
        self._after = after
        self._write: Callable[[Values], None] | None = write

    def redo(self) -> None:
        """Also when it is pushed."""
        if self._write is not None:
            self._write(self._after)

    def undo(self) -> None:
        if self._write is not None:
            self._write(self._before)

    def expire(self) -> None:
        """Nobody is there any more to write it: the stack passes it over, and drops it when it comes to it."""
        self._write = None
        self.setObsolete(True)
