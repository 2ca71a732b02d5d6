"""Being asked to stop: by Ctrl-C and SIGTERM, for work that keeps what it has finished, and by a caller."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

from rs4d_core.errors import CancelledError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """While it is open, both signals raise KeyboardInterrupt; after `be_graceful()`, the first only sets `requested`.

    A second signal raises even there: whoever insists shall not have to wait. Outside of the main thread, where Python
    allows no signal handlers, nothing is ever requested.
    """

    def __init__(self) -> None:
        self.requested = False
        self._graceful = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(self, *_exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def be_graceful(self) -> None:
        """From now on, the first signal only sets `requested`."""
        self._graceful = True

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self._graceful and not self.requested:
            self.requested = True
        else:
            raise KeyboardInterrupt


def stop_if(cancelled: Callable[[], bool]) -> None:
    """Raises CancelledError once `cancelled` says so: for work that keeps nothing."""
    if cancelled():
        raise CancelledError("cancelled")
