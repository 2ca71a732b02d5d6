"""A request on its way to its answer."""

import threading
from typing import Any

from rs4d_core.engine import protocol
from rs4d_core.engine.outbox import Outbox
from rs4d_core.interruption import stop_if

# Work that has not come to an end by itself this long after it was cancelled is given up: the client gets its answer,
# and whatever the work comes to is thrown away.
PATIENCE_S = 1.0


class Job:
    """Answered exactly once, and silent from then on, whatever happens at the same time.

    Attributes:
        id, method, params: of the request.
        started: the work has begun.
        keeps_what_it_has: when cancelled it ends by itself, and its answer tells what it has found until then.
    """

    def __init__(self, request: protocol.Request, params: dict[str, Any], outbox: Outbox) -> None:
        self.id, self.method, self.params = request.id, request.method, params
        self.started = False
        self.keeps_what_it_has = False
        self._outbox = outbox
        self._cancelled = False
        self._answered = False
        self._speaking = threading.Lock()

    def cancelled(self) -> bool:
        """Whether the client has had enough of it."""
        return self._cancelled

    def check(self) -> None:
        """Raises CancelledError once it is cancelled."""
        stop_if(self.cancelled)

    def cancel(self) -> None:
        """Let it end soon. Returns at once."""
        if not self._cancelled:
            self._cancelled = True
            timer = threading.Timer(PATIENCE_S if self.started else 0.0, self._give_up)
            timer.daemon = True
            timer.start()

    def tell(self, method: str, params: dict[str, Any]) -> None:
        """A notification about this request. Waits while the client does not read."""
        line = protocol.notification(method, {"id": self.id, **params})
        with self._speaking:
            if not self._answered:
                self._outbox.put(line)

    def answer(self, line: bytes) -> None:
        """The answer, unless it has one already."""
        with self._speaking:
            if not self._answered:
                self._answered = True
                self._outbox.put(line)

    def _give_up(self) -> None:
        if not self.keeps_what_it_has:
            self.answer(protocol.failure(self.id, protocol.CANCELLED, "cancelled"))
