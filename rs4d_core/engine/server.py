"""The engine as a server: requests from stdin, answers to stdout, the log to stderr.

Four threads: the main one reads, and never waits for anything but the next message; one works, on one request after
another; one answers `hello`, also while the other works; one writes.
"""

import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import wait as wait_for
from contextlib import suppress
from io import BufferedReader
from typing import NoReturn

import rs4d_core
from rs4d_core.engine import protocol
from rs4d_core.engine.job import Job
from rs4d_core.engine.outbox import ANSWER_BYTES, Outbox
from rs4d_core.engine.parameters import read_params
from rs4d_core.engine.protocol import LONGEST_LINE, Notification, ProtocolError, Request
from rs4d_core.errors import CancelledError, RS4DError
from rs4d_core.scenes.prediction.worker import Worker

ENDED, INTERRUPTED = 0, 130

# Requests that may wait behind the one that is worked on.
MOST_WAITING = 100
# The end comes within 2 seconds: time for the work to end by itself, and then for the client to read what is left.
LAST_WORK_S, LAST_WORDS_S = 1.5, 0.2


def serve() -> NoReturn:
    """Serve until stdin closes, `shutdown` is asked for, or a signal comes; then end the process.

    Call from the main thread. The process ends in the hard way, within 2 seconds: a prediction that was given up may
    still be computing, and the interpreter would wait for it, or be pulled from under it.
    """
    stdin, stdout = _take_over_stdio()
    ending = threading.Lock()
    code = ENDED

    def end(farewell: bytes | None = None) -> None:
        if ending.acquire(blocking=False):
            try:
                server.stop(farewell)
            finally:  # also for a second signal
                _log("")
                os._exit(code)

    server = Server(Outbox(stdout, broken=end))
    _log(f"rs4d: engine {rs4d_core.__version__} is listening\n")
    farewell = None
    try:
        farewell = server.listen(stdin)
    except KeyboardInterrupt:
        code = INTERRUPTED
    end(farewell)
    while True:  # it is being ended by the thread that writes
        threading.Event().wait()


class Server:
    """Answers messages through `outbox`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._jobs: dict[protocol.RequestId, Job] = {}
        self._work, self._greeter = Worker("rs4d-work"), Worker("rs4d-hello")
        self._methods = _Methods()

    def listen(self, stream: BufferedReader) -> bytes | None:
        """Take messages until the stream ends, or `shutdown` is asked for: then returns the answer to that."""
        for line in _lines(stream):
            try:
                if line is None:
                    raise ProtocolError(protocol.INVALID_REQUEST, f"a line may have {LONGEST_LINE} bytes")
                message = protocol.parse(line)
                if isinstance(message, Notification):
                    self._notified(message)
                elif message.method == "shutdown":
                    read_params(message.method, message.params)
                    return protocol.answer(message.id, {})
                else:
                    self._requested(message)
            except ProtocolError as error:
                self._outbox.put(protocol.failure(error.request_id, error.code, str(error)), ANSWER_BYTES)
        return None

    def stop(self, farewell: bytes | None) -> None:
        """Give up all work, then say `farewell`. Takes less than 2 seconds; only part of the work may have ended."""
        self._outbox.stop_waiting()
        for job in list(self._jobs.values()):
            job.cancel()
        wait_for([worker.submit(lambda: None) for worker in (self._work, self._greeter)], LAST_WORK_S)
        self._methods.leave_nothing_behind()
        if farewell is not None:
            self._outbox.put(farewell)
        self._outbox.drain(LAST_WORDS_S)

    def _notified(self, message: Notification) -> None:
        """Nobody waits for an answer: what makes no sense is passed over."""
        wanted = message.params.get("id")
        if message.method == "cancel" and isinstance(wanted, int | str) and not isinstance(wanted, bool):
            job = self._jobs.get(wanted)
            if job is not None:
                job.cancel()

    def _requested(self, request: Request) -> None:
        try:
            params = read_params(request.method, request.params)
        except ProtocolError as error:
            raise ProtocolError(error.code, str(error), request.id) from None
        if request.id in self._jobs:
            raise ProtocolError(protocol.INVALID_REQUEST, f"a request with id {request.id!r} is open", request.id)
        if len(self._jobs) > MOST_WAITING:
            raise ProtocolError(protocol.TOO_MANY_REQUESTS, f"{MOST_WAITING} requests are waiting already", request.id)
        job = self._jobs[request.id] = Job(request, params, self._outbox)
        (self._greeter if request.method == "hello" else self._work).submit(self._perform, job)

    def _perform(self, job: Job) -> None:
        job.started = True
        try:
            job.check()
            method = self._methods.find(job.method)
            job.check()
            line = protocol.answer(job.id, method(job))
        except CancelledError:
            line = protocol.failure(job.id, protocol.CANCELLED, "cancelled")
        except RS4DError as error:
            line = protocol.failure(job.id, protocol.REFUSED, str(error), {"kind": type(error).__name__})
        except Exception as error:  # the engine survives its own faults
            _log(traceback.format_exc())
            text = f"internal error, please report it: {type(error).__name__}: {error}"
            line = protocol.failure(job.id, protocol.FAULT, text)
        del self._jobs[job.id]
        job.answer(line)


class _Methods:
    """The methods by name. Imported when first needed, and by one thread at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models = None

    def find(self, name: str) -> Callable[[Job], dict]:
        with self._lock:
            from rs4d_core.engine import methods
            from rs4d_core.engine.models import ModelCache

            self._models = self._models or ModelCache()
        return lambda job: methods.METHODS[name](job, self._models)

    def leave_nothing_behind(self) -> None:
        """No half-written files, should one of the methods still be writing."""
        if self._models is not None:
            from rs4d_core.scenes.writers.replacement import clear_all

            clear_all()


def _log(text: str) -> None:
    with suppress(OSError):  # nobody may be listening
        sys.stderr.write(text)
        sys.stderr.flush()


def _take_over_stdio() -> tuple[BufferedReader, int]:
    """The streams of the protocol, under numbers that nobody else knows.

    What a library, or a program that it starts, reads from stdin is nothing from now on, and what it prints goes to
    stderr: it cannot get between the messages.
    """
    stdin, stdout = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(stdin, "rb"), stdout


def _lines(stream: BufferedReader) -> Iterator[bytes | None]:
    """The lines of a stream, without blank ones; None for one that is too long, which is read to its end in parts."""
    while line := stream.readline(LONGEST_LINE):
        if line.endswith(b"\n"):
            if line.strip():
                yield line
        elif len(line) == LONGEST_LINE:
            while line and not line.endswith(b"\n"):
                line = stream.readline(1 << 16)
            yield None
