"""A file server that keeps count of what it sends, and can misbehave in the ways that servers do.

A process of its own: GDAL waits for its answers without letting go of the interpreter.
"""

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qsl, urlparse
from urllib.request import urlopen

CHUNK_BYTES = 16384


class RangeServer:
    """Serves the files of a folder, whole or in ranges, at `url`.

    The path `/loop/...` redirects to itself, and `/moved/NAME` to `/NAME`.
    """

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen([sys.executable, __file__, str(folder)], stdout=subprocess.PIPE, text=True)
        self.host = f"127.0.0.1:{int(self._process.stdout.readline())}"
        self.url = f"http://{self.host}"

    def behave(self, ranges: bool = True, failing: int = 0, delay_s: float = 0.0) -> None:
        """From now on: whether it knows ranges or always sends whole files, how many requests it first answers with an
        error 503, and how long it takes to answer. What it has counted so far is forgotten."""
        self._control(f"set?ranges={int(ranges)}&failing={failing}&delay_s={delay_s}")

    @property
    def asked(self) -> list[str]:
        """Method and path of every request since it was last told how to behave."""
        return self._control("count")["asked"]

    @property
    def sent_bytes(self) -> int:
        """In the answers since it was last told how to behave."""
        return self._control("count")["sent_bytes"]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> "RangeServer":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def _control(self, what: str) -> dict:
        with urlopen(f"{self.url}/control/{what}", timeout=10) as answer:
            return json.load(answer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    folder: Path
    ranges, failing, delay_s = True, 0, 0.0
    asked: ClassVar[list[str]] = []
    sent_bytes = 0

    def do_GET(self):
        path = urlparse(self.path).path
        if path.startswith("/control/"):
            return self._control(path)
        shared = _Handler
        shared.asked.append(f"{self.command} {self.path}")
        time.sleep(shared.delay_s)
        if shared.failing:
            shared.failing -= 1
            return self._send(503, b"")
        if path.startswith("/loop/"):
            return self._send(302, b"", Location=self.path)
        if path.startswith("/moved/"):
            return self._send(302, b"", Location=path.removeprefix("/moved"))
        file = self.folder / path.strip("/")
        if not file.is_file():
            return self._send(404, b"there is no such file")
        content = file.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not (shared.ranges and wanted):
            return self._send(200, content)
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first > last:
            return self._send(416, b"")
        part = f"bytes {first}-{last}/{len(content)}"
        return self._send(206, content[first : last + 1], **{"Content-Range": part})

    do_HEAD = do_GET

    def log_message(self, *_):
        pass

    def _control(self, path: str) -> None:
        if path == "/control/set":
            wanted = dict(parse_qsl(urlparse(self.path).query))
            _Handler.ranges, _Handler.failing = wanted["ranges"] == "1", int(wanted["failing"])
            _Handler.delay_s = float(wanted["delay_s"])
            _Handler.asked, _Handler.sent_bytes = [], 0
        self._send(200, json.dumps({"asked": _Handler.asked, "sent_bytes": _Handler.sent_bytes}).encode())

    def _send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):  # the client has what it wants, or has given up
                for start in range(0, len(body), CHUNK_BYTES):
                    self.wfile.write(body[start : start + CHUNK_BYTES])
                    _Handler.sent_bytes += len(body[start : start + CHUNK_BYTES])


if __name__ == "__main__":
    _Handler.folder = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_address[1], flush=True)
    server.serve_forever()
