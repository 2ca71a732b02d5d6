"""What waits to be written to a client that may read slowly, or not at all."""

import os
import threading
from collections import deque
from collections.abc import Callable

# Work waits while this much is unread; answers to what the client keeps asking wait far later. So a client that does
# not read costs bounded memory, and can still cancel.
WORK_BYTES = 1 << 20
ANSWER_BYTES = 16 << 20


class Outbox:
    """Lines on their way to a file descriptor, written by a thread of their own.

    Args:
        descriptor: of a pipe or file, in blocking mode.
        broken: called once, from that thread, when the other end has gone.
    """

    def __init__(self, descriptor: int, broken: Callable[[], None]) -> None:
        self._descriptor = descriptor
        self._broken = broken
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._patient = True
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="rs4d-outbox", daemon=True).start()

    def put(self, line: bytes, room: int = WORK_BYTES) -> None:
        """Hand over a line; waits until less than `room` bytes are unread."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting_bytes < room or not self._patient)
            self._lines.append(line)
            self._waiting_bytes += len(line)
            self._changed.notify_all()

    def stop_waiting(self) -> None:
        """From now on `put` returns at once: the end is near, and little is to come."""
        with self._changed:
            self._patient = False
            self._changed.notify_all()

    def drain(self, seconds: float) -> None:
        """Give the client this long to read what is left."""
        with self._changed:
            self._changed.wait_for(lambda: not self._waiting_bytes, seconds)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                line = self._lines.popleft()
            try:
                rest = memoryview(line)
                while rest:
                    rest = rest[os.write(self._descriptor, rest) :]
            except OSError:
                self._broken()
                return
            with self._changed:
                self._waiting_bytes -= len(line)
                self._changed.notify_all()
