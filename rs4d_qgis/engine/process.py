"""The engine's process: started clean of QGIS's surroundings, written to and read from by JSON, one message a line."""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable

from rs4d_qgis.engine.environment import clean_environment, quiet_start

_LOG_LINES = 50
_POLITE_S, _FIRM_S = 1.0, 0.4


def exit_words(code: int) -> str:
    """What an exit code means, for users."""
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        name = signal.Signals(-code).name
        # The kernel sends this signal when memory runs out, and nobody else does by itself.
        return f"{name}, most likely out of memory" if name == "SIGKILL" else name
    return f"signal {-code}"


class EngineProcess:
    """One running engine. Messages of a request go to the queue that `expect` gave for its id; None says that it died.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self.spoke = False  # whether a message of the protocol ever came
        self.closed = False  # whether its end is wanted
        self._process = subprocess.Popen(  # the interpreter that the user chose, and no shell
            # -I: modules are the environment's own, never of the folder that QGIS happens to be started in.
            [python, "-I", "-m", "rs4d_core.cli", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=clean_environment(),
            **quiet_start(),
        )
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        self._queues: dict[int, queue.Queue] = {}
        self._queues_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._ended = False
        self._log_reader = self._in_thread(self._read_log)
        self._reader = self._in_thread(self._read_messages)

    @staticmethod
    def _in_thread(work: Callable[[], None]) -> threading.Thread:
        # Daemons: a QGIS that quits without a word does not wait for them.
        thread = threading.Thread(target=work, name="rs4d-engine", daemon=True)
        thread.start()
        return thread

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    def alive(self) -> bool:
        """Whether it runs and can be spoken to."""
        return not self._ended and self._process.poll() is None

    def busy(self) -> bool:
        """Whether a request waits for its answer."""
        return bool(self._queues)

    def exit_code(self) -> int | None:
        """Of the ended process; None while it runs."""
        return self._process.poll()

    def log(self) -> tuple[str, ...]:
        """The last lines that it wrote to stderr, oldest first."""
        return tuple(self._log)

    def expect(self, number: int) -> queue.Queue:
        """A queue for the messages of request `number`."""
        messages: queue.Queue = queue.Queue()
        with self._queues_lock:
            if self._ended:
                messages.put(None)
            self._queues[number] = messages
        return messages

    def forget(self, number: int) -> None:
        """Drop what still comes for request `number`."""
        with self._queues_lock:
            self._queues.pop(number, None)

    def send(self, message: dict) -> None:
        """Write one message. A process that died meanwhile tells so through the queues, not here."""
        with self._write_lock, contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(json.dumps(message).encode() + b"\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """End the process: by asking, else by force. Takes 2 s at most."""
        # Not under the write lock, which a writer to an engine that has stopped reading would hold for ever.
        if self._write_lock.acquire(timeout=0.1):
            self._write_lock.release()
            self.send({"jsonrpc": "2.0", "id": 0, "method": "shutdown", "params": {}})
            with contextlib.suppress(OSError):
                self._process.stdin.close()
            if self._wait(_POLITE_S):
                return
        self._process.terminate()
        if not self._wait(_FIRM_S):
            self._process.kill()
            self._wait(_FIRM_S)

    def _wait(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _read_log(self) -> None:
        with self._process.stderr as stream:
            for line in stream:
                self._note(line)

    def _note(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()
        if text:
            self._log.append(text)

    def _read_messages(self) -> None:
        with self._process.stdout as stream:
            for line in stream:
                self._dispatch(line)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_POLITE_S)  # so that the exit code is known
        self._log_reader.join(_POLITE_S)  # so that its last words are, too
        with self._queues_lock:
            self._ended = True
            for messages in self._queues.values():
                messages.put(None)

    def _dispatch(self, line: bytes) -> None:
        try:
            message = json.loads(line)
            number = message["id"] if "method" not in message else message["params"]["id"]
        except (ValueError, TypeError, LookupError):
            # Not the protocol: what a program prints that is no engine.
            self._note(line)
            return
        self.spoke = True
        with self._queues_lock:
            messages = self._queues.get(number) if isinstance(number, int) else None
        if messages is not None:
            messages.put(message)
