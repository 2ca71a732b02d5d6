"""A thread that does one thing after another, and that nobody has to wait for."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Worker:
    """Runs calls in order on a thread of its own.

    Unlike a `ThreadPoolExecutor`, the interpreter does not wait for it at exit: a cancelled run must not last as long
    as the prediction that it was cancelled in.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Future, Callable, tuple] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable, *arguments: Any) -> Future:
        """`call(*arguments)`, after all that was submitted before."""
        future: Future = Future()
        self._calls.put((future, call, arguments))
        return future

    def close(self, wait: bool) -> None:
        """Ends the thread when it has done, or found cancelled, all that was submitted; and may wait for that."""
        self._calls.put(None)
        if wait:
            self._thread.join()

    def _run(self) -> None:
        while (item := self._calls.get()) is not None:
            future, call, arguments = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call(*arguments))
                except BaseException as error:  # belongs to whoever asks for the result
                    future.set_exception(error)
            del item, future, call, arguments  # a result must not live on while the thread waits
