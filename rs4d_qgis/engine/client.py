"""Requests to the engine, from any thread of QGIS.

A request blocks the thread that makes it, and no other: it is made in a background task or an algorithm, never on the
thread of the user interface. No event loop is needed, so `qgis_process` works too.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator

from rs4d_qgis.engine.errors import Cancelled, EngineDied, EngineNotFound, RequestFailed
from rs4d_qgis.engine.locate import EngineLocation, locate_engine
from rs4d_qgis.engine.process import EngineProcess, exit_words

PROTOCOL = 1
CANCELLED_CODE = 3

_POLL_S = 0.05
# A cold disk and a virus scanner can make the first import of torch take this long.
_START_S = 180.0
# The engine promises 2 s. One that does not answer by then hangs, in a driver or on a dead network drive.
_CANCEL_S = 10.0

_Notify = Callable[[str, dict], None]
_Asked = Callable[[], bool]


class EngineClient:
    """The engine behind one object: it starts with the first request, and anew after it died.

    Args:
        locate: finds the interpreter, each time that an engine is started.
    """

    def __init__(self, locate: Callable[[], EngineLocation] = locate_engine) -> None:
        self._locate = locate
        self._start_lock = threading.Lock()
        self._process: EngineProcess | None = None
        self._numbers = itertools.count(1)
        self._outdated = False

    def request(
        self, method: str, params: dict, on_notification: _Notify | None = None, cancelled: _Asked | None = None
    ) -> dict:
        """Ask the engine, and wait for its answer.

        Args:
            method: of the engine's protocol, such as "segment".
            params: its parameters, by name.
            on_notification: called in this thread with method and parameters of each notification for this request.
                What it raises cancels the request and is passed on.
            cancelled: polled some 20 times a second; once it says True the engine is told to stop.

        Returns:
            The result. That of a cancelled `segment` is partial, and says so.

        Raises:
            EngineNotFound: there is no engine, or the interpreter has none.
            EngineDied: its process ended meanwhile. The next request starts a new one.
            RequestFailed: the engine refused, and says why.
            Cancelled: by `cancelled` or `close`, without a result.
        """
        process = self._running_engine(cancelled)
        return self._ask(process, method, params, on_notification, cancelled, _CANCEL_S)

    def running(self) -> bool:
        """Whether there is an engine process now."""
        process = self._process
        return process is not None and process.alive()

    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        process = self._process
        return process is not None and process.busy()

    def look_again(self) -> None:
        """The interpreter may have changed: the next request that finds the engine idle starts it anew."""
        self._outdated = True

    def close(self) -> None:
        """End the engine, within 2 s. What waits for it is cancelled; a later request would start it again."""
        process, self._process = self._process, None
        if process is not None:
            process.closed = True
            process.end()

    def _running_engine(self, cancelled: _Asked | None) -> EngineProcess:
        with self._starting(cancelled):
            process = self._process
            if process is not None and process.alive() and not (self._outdated and not process.busy()):
                return process
            self.close()
            self._outdated = False
            location = self._locate()
            try:
                process = self._process = EngineProcess(location.python)
            except OSError as error:
                raise EngineNotFound(
                    f"{location.python} cannot be started ({error.strerror}): choose the engine's Python in "
                    "Check engine..."
                ) from error
            try:
                self._greet(process, cancelled)
            except BaseException:
                self.close()
                raise
            return process

    @contextlib.contextmanager
    def _starting(self, cancelled: _Asked | None) -> Iterator[None]:
        while not self._start_lock.acquire(timeout=_POLL_S):
            if cancelled is not None and cancelled():
                raise Cancelled("cancelled while the engine was starting")
        try:
            yield
        finally:
            self._start_lock.release()

    def _greet(self, process: EngineProcess, cancelled: _Asked | None) -> None:
        """See that it is an engine, and of a version that can be talked to."""
        deadline = time.monotonic() + _START_S

        def give_up() -> bool:
            return time.monotonic() > deadline or (cancelled is not None and cancelled())

        try:
            hello = self._ask(process, "hello", {}, None, give_up, patience_s=0.0)
        except Cancelled:
            if time.monotonic() <= deadline:
                raise
            raise EngineDied(
                f"The engine of {process.python} did not answer in {_START_S:.0f} s: Check engine... may tell why.",
                process.log(),
            ) from None
        if hello.get("protocol") != PROTOCOL:
            raise EngineNotFound(
                f"The engine of {process.python} is version {hello.get('version', 'unknown')}, which does not fit this "
                "plugin: bring both to the same version (Set up engine... does)."
            )

    def _ask(
        self,
        process: EngineProcess,
        method: str,
        params: dict,
        on_notification: _Notify | None,
        cancelled: _Asked | None,
        patience_s: float,
    ) -> dict:
        number = next(self._numbers)
        messages = process.expect(number)
        answered = False
        told_at = None
        try:
            process.send({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
            while True:
                if told_at is None and cancelled is not None and cancelled():
                    process.send({"jsonrpc": "2.0", "method": "cancel", "params": {"id": number}})
                    told_at = time.monotonic()
                try:
                    message = messages.get(timeout=_POLL_S)
                except queue.Empty:
                    if told_at is not None and time.monotonic() - told_at > patience_s:
                        answered = True  # nothing to cancel any more
                        process.end()
                        raise Cancelled("cancelled; the engine did not stop by itself and was ended") from None
                    continue
                if message is None:
                    answered = True
                    raise _death(process)
                if "method" in message:
                    if on_notification is not None:
                        on_notification(message["method"], message.get("params") or {})
                    continue
                answered = True
                return _result(message)
        finally:
            process.forget(number)
            if not answered:
                process.send({"jsonrpc": "2.0", "method": "cancel", "params": {"id": number}})


def _result(message: dict) -> dict:
    error = message.get("error")
    if error is None:
        return message.get("result") or {}
    code, text = error.get("code", 1), str(error.get("message", "the engine gave no reason"))
    if code == CANCELLED_CODE:
        raise Cancelled(text)
    raise RequestFailed(text, code, (error.get("data") or {}).get("kind"))


def _death(process: EngineProcess) -> Exception:
    if process.closed:
        return Cancelled("the engine was stopped")
    log = process.log()
    last = log[-1] if log else "nothing"
    if not process.spoke and "No module named" in last:
        return EngineNotFound(
            f"{process.python} is a Python without the engine ({last.rpartition(': ')[2]}): choose another in "
            "Check engine..., or let Set up engine... make one."
        )
    code = process.exit_code()
    how = "it closed its output" if code is None else exit_words(code)
    if not process.spoke:
        return EngineDied(f"The engine did not start with {process.python} ({how}). It said: {last}", log)
    return EngineDied(f"The engine ended unexpectedly ({how}); the next run starts it anew. It said last: {last}", log)


_shared: EngineClient | None = None
_shared_lock = threading.Lock()


def engine_client() -> EngineClient:
    """The one client of this QGIS process."""
    global _shared
    with _shared_lock:
        if _shared is None:
            _shared = EngineClient()
        return _shared


def close_engine() -> None:
    """End the engine of this QGIS process, if there is one."""
    if _shared is not None:
        _shared.close()
