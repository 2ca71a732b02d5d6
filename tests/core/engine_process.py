"""A real `rs4d serve`, driven over pipes as a client would."""

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

COMMAND = [sys.executable, "-m", "rs4d_core.cli", "serve"]


class Engine:
    """A process and its messages. A context manager that leaves no process behind."""

    def __init__(self, command: Sequence[str] = COMMAND) -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.log: list[str] = []
        self._messages: queue.SimpleQueue[dict | None] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._logging = threading.Thread(target=self._read_log, daemon=True)
        self._logging.start()
        self._sent = 0

    def __enter__(self) -> "Engine":
        self._reading.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with suppress(OSError):  # what was never flushed has nowhere to go
                pipe.close()

    def write(self, line: bytes) -> None:
        """Send bytes as they are."""
        self.process.stdin.write(line)
        self.process.stdin.flush()

    def send(self, method: str, params: dict | None = None) -> str:
        """Send a request; returns its id."""
        self._sent += 1
        request = f"request {self._sent}"
        self.write(_line({"id": request, "method": method, "params": params or {}}))
        return request

    def notify(self, method: str, params: dict) -> None:
        """Send a notification."""
        self.write(_line({"method": method, "params": params}))

    def next(self, seconds: float = 60) -> dict:
        """The next message; fails where the engine has gone, or says nothing for so long."""
        message = self._messages.get(timeout=seconds)
        assert message is not None, f"the engine has gone: {self.log}"
        return message

    def until(self, wanted: str) -> tuple[dict, list[dict]]:
        """The answer with an id, and all that came before it."""
        before = []
        while (message := self.next()).get("id", "none") != wanted or "method" in message:
            before.append(message)
        return message, before

    def ask(self, method: str, params: dict | None = None) -> dict:
        """The answer to a request, whatever else is said meanwhile."""
        return self.until(self.send(method, params))[0]

    def started(self, request: str) -> None:
        """Wait for the first window of a run."""
        while (message := self.next()).get("params", {}).get("windows_done", 0) < 1:
            assert message.get("id") != request, message

    def ends_within(self, seconds: float) -> None:
        """Fails where the process is still there by then."""
        self.process.wait(seconds)

    def _read(self) -> None:
        for line in self.process.stdout:
            self._messages.put(json.loads(line))
        self._messages.put(None)

    def _read_log(self) -> None:
        for line in self.process.stderr:
            self.log.append(line.decode(errors="replace"))


def _line(message: dict) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies not counted. Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def resident_mib(pid: int) -> float:
    """Memory that a process holds now, MiB. Linux."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
