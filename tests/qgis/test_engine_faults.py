"""The plugin's client against programs that misbehave as the engine does not."""

import time
from pathlib import Path

import pytest

from rs4d_qgis.engine.client import EngineClient
from rs4d_qgis.engine.errors import Cancelled, EngineDied, EngineNotFound
from rs4d_qgis.engine.locate import EngineLocation

_GREETING = """
import json, sys, time

def answer(number, result):
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)

"""


@pytest.fixture
def client_of(tmp_path: Path, qgis_app):
    """A client whose engine is the given script."""
    clients = []

    def make(script: str) -> EngineClient:
        program = tmp_path / "engine"
        program.write_text(f"#!/usr/bin/python3\n{_GREETING}{script}")
        program.chmod(0o755)
        clients.append(EngineClient(lambda: EngineLocation(str(program), "setting")))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def test_one_that_ends_at_once_is_told_with_its_words(client_of):
    client = client_of("sys.exit('libtorch.so: cannot open shared object file')")
    with pytest.raises(EngineDied, match=r"did not start .*exit code 1.* libtorch.so: cannot open"):
        client.request("hello", {})


def test_one_of_another_version_is_refused(client_of):
    client = client_of("answer(1, {'protocol': 2, 'version': '7.0'})\nsys.stdin.read()")
    with pytest.raises(EngineNotFound, match=r"version 7\.0, which does not fit .*Set up engine"):
        client.request("hello", {})
    assert not client.running()


def test_one_that_is_deaf_to_cancel_is_ended(client_of, monkeypatch):
    monkeypatch.setattr("rs4d_qgis.engine.client._CANCEL_S", 0.5)
    client = client_of("answer(1, {'protocol': 1})\ntime.sleep(1000)")
    start = time.monotonic()
    with pytest.raises(Cancelled, match="was ended"):
        client.request("segment", {}, cancelled=lambda: time.monotonic() - start > 0.2)
    assert time.monotonic() - start < 4
    assert not client.running()


def test_one_that_never_answers_does_not_hold_up_the_closing(client_of):
    client = client_of(
        "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nanswer(1, {'protocol': 1})\ntime.sleep(1000)"
    )
    start = time.monotonic()
    with pytest.raises(Cancelled):
        client.request("segment", {}, cancelled=lambda: client.close() or True)
    assert time.monotonic() - start < 4


def test_what_is_no_message_is_kept_for_the_last_words(client_of):
    client = client_of("print('[1, 2]')\nprint('{\"id\": 1')\nprint('Usage: something else', flush=True)")
    with pytest.raises(EngineDied, match="It said: Usage: something else") as death:
        client.request("hello", {})
    assert death.value.log == ("[1, 2]", '{"id": 1', "Usage: something else")


def test_large_messages_come_whole(client_of):
    client = client_of(
        "answer(1, {'protocol': 1})\nsys.stdin.readline()\n"
        "number = json.loads(sys.stdin.readline())['id']\nanswer(number, {'text': 'x' * 5_000_000})\nsys.stdin.read()"
    )
    assert len(client.request("segment", {})["text"]) == 5_000_000
