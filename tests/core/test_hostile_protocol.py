"""A client that sends whatever it likes: the engine answers each line, keeps its memory, and lives on."""

import json
import random
import sys

import pytest
from engine_process import Engine, resident_mib

from rs4d_core.engine.protocol import LONGEST_LINE

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")

SQUARE = "0103000000010000000500000000000000000000000000000000000000" + "00" * 16 * 4
ODD_IDS = [0, -1, 2**63, 10**40, "", "\x1b[2J", "\ud800", "x" * 10_000]
# Each costs the engine no more than a look.
ODD_PARAMS = [
    {"scene": "/dev/null"},
    {"scene": "/dev/zero"},
    {"scene": "/vsistdin/"},
    {"scene": "\x1b[2J\n.tif"},
    {"scene": "x" * 100_000},
    {"scene": "a.tif", "model": "/dev/zero"},
    {"scene": "a.tif", "model": "/proc/self/mem"},
    {"scene": "a.tif", "window_px": 10**30},
    {"scene": "a.tif", "overlap_px": -(2**63)},
    {"scene": "a.tif", "bands": [2**70, 1, 1]},
    {"scene": "a.tif", "bands": list(range(100_000))},
    {"scene": "a.tif", "device": "cuda:99999999999999999999"},
    {"scene": "a.tif", "area": {"wkb": "01" * 1_000_000}},
    {"scene": "a.tif", "area": {"wkb": "0107000000FFFFFFFF"}},
    {"scene": "a.tif", "area": {"wkb": "0103000000FFFFFF7FFFFFFF7F"}},
    {"scene": "a.tif", "area": {"wkb": "010700000001000000" * 3000}},
    {"scene": "a.tif", "bbox": [-1e308, -1e308, 1e308, 1e308], "bbox_crs": "EPSG:4326"},
]


def lines(chance: random.Random):
    """Lines that are no messages, or wrong ones."""
    yield from (b"\n", b"\0\n", b"\xff\xfe\xfd\n", b"[" * 200_000 + b"\n", b'{"a":' * 200_000 + b"\n", b"NaN\n")
    yield from (
        b'{"jsonrpc": "2.0", "id": 1e999, "method": "hello"}\n',
        b"9" * 100_000 + b"\n",
        b'"' + b"x" * 100_000 + b'"\n',
    )
    yield b"x" * (LONGEST_LINE + 5) + b"\n"
    for _ in range(100):
        yield chance.randbytes(chance.randrange(1, 200)).replace(b"\n", b"") + b"\n"
    whole = json.dumps({"jsonrpc": "2.0", "id": 5, "method": "segment", "params": {"scene": "a.tif"}}).encode()
    for _ in range(100):
        broken = bytearray(whole)
        for _ in range(3):
            broken[chance.randrange(len(broken))] = chance.randrange(11, 256)
        yield bytes(broken) + b"\n"


def test_the_engine_outlives_a_hostile_client(tmp_path):
    with Engine() as engine:
        assert "result" in engine.ask("hello")
        engine.ask("segment", {"scene": str(tmp_path / "none.tif")})  # loads the libraries and the model
        before = resident_mib(engine.process.pid)
        for line in lines(random.Random(1)):
            engine.write(line)
            for _ in range(3):  # of ids that nobody has, and of no ids
                wanted = random.Random(line).choice([*ODD_IDS, None, [], {}, 1.5, True])
                engine.notify("cancel", {"id": wanted})
        for odd in ODD_IDS:
            engine.write(json.dumps({"jsonrpc": "2.0", "id": odd, "method": "nothing"}).encode() + b"\n")
        answer, before_it = engine.until(engine.send("hello"))
        assert "result" in answer
        known = {-32700, -32600, -32601, -32602, 2}
        assert {message["error"]["code"] for message in before_it if "error" in message} <= known
        assert all(odd in [message.get("id") for message in before_it] for odd in ODD_IDS)
        for params in ODD_PARAMS:
            answer = engine.ask("segment", params)
            assert answer["error"]["code"] in (-32602, 2), (params, answer)
            message = answer["error"]["message"]
            assert message == message.strip()
            assert message.isprintable(), message
            assert len(message) < 3000
        assert resident_mib(engine.process.pid) < before + 300
        assert "result" in engine.ask("hello")
        assert not [line for line in engine.log if "Traceback" in line]
