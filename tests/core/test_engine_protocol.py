"""The engine's messages and parameters, without an engine."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rs4d_core.engine import protocol
from rs4d_core.engine.parameters import PARAMETERS, read_params
from rs4d_core.engine.protocol import INVALID_PARAMS, Notification, ProtocolError, Request, parse

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def test_requests_and_notifications():
    assert parse(b'{"jsonrpc": "2.0", "id": 7, "method": "hello"}\n') == Request(7, "hello", {})
    line = '{"jsonrpc":"2.0","id":"a","method":"segment","params":{"scene":"Gärten.tif"}}'
    assert parse(line.encode()) == Request("a", "segment", {"scene": "Gärten.tif"})
    line = b'{"jsonrpc": "2.0", "method": "cancel", "params": {"id": 3}, "more": 1}'
    assert parse(line) == Notification("cancel", {"id": 3})


@pytest.mark.parametrize(
    ("line", "code", "request_id"),
    [
        (b"", -32700, None),
        (b"{", -32700, None),
        (b"\xff\xfe", -32700, None),
        (b'{"jsonrpc": "2.0", "id": NaN}', -32700, None),
        (b"[" * 100_000, -32700, None),
        (b"1" * 10_000, -32700, None),
        (b"7", -32600, None),
        (b"[]", -32600, None),
        (b'[{"jsonrpc": "2.0", "id": 1, "method": "hello"}]', -32600, None),
        (b'{"id": 1, "method": "hello"}', -32600, 1),
        (b'{"jsonrpc": "1.0", "id": 1, "method": "hello"}', -32600, 1),
        (b'{"jsonrpc": "2.0", "id": null, "method": "hello"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": true, "method": "hello"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": 1.5, "method": "hello"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": [1], "method": "hello"}', -32600, None),
        (b'{"jsonrpc": "2.0", "id": 1}', -32600, 1),
        (b'{"jsonrpc": "2.0", "id": 1, "result": {}}', -32600, 1),
        (b'{"jsonrpc": "2.0", "id": "x", "method": 5}', -32600, "x"),
        (b'{"jsonrpc": "2.0", "id": 1, "method": "hello", "params": [1]}', -32602, 1),
        (b'{"jsonrpc": "2.0", "method": "cancel", "params": [1]}', -32600, None),
    ],
)
def test_what_is_no_message(line, code, request_id):
    with pytest.raises(ProtocolError) as caught:
        parse(line)
    assert (caught.value.code, caught.value.request_id) == (code, request_id)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_parsing_either_gives_a_message_or_says_why_not(line):
    try:
        assert isinstance(parse(line), Request | Notification)
    except ProtocolError as error:
        back = json.loads(protocol.failure(error.request_id, error.code, str(error)))
        assert back["error"]["code"] in (-32700, -32600, -32602)
        assert "\n" not in back["error"]["message"]


@given(
    st.sampled_from([*PARAMETERS]),
    st.dictionaries(st.sampled_from(sorted({n for m in PARAMETERS.values() for n in m})), JSON),
)
def test_parameters_are_read_or_refused(method, params):
    try:
        read, refusal = read_params(method, params), None
    except ProtocolError as error:
        read, refusal = None, error
    if refusal is None:
        assert read.keys() == {name for name, value in params.items() if value is not None}
    else:
        assert refusal.code == INVALID_PARAMS
        assert str(refusal).startswith(method)


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({}, "'scene' is missing"),
        ({"scene": None}, "'scene' is missing"),
        ({"scene": 5}, "scene must be a path"),
        ({"scene": "a\0b"}, "scene must be a path"),
        ({"scene": "\ud800"}, "scene must be a path"),
        ({"scene": "a", "scor": 1}, "unknown parameter 'scor': it takes scene, output"),
        ({"scene": "a", "score": "0.5"}, "score must be a number"),
        ({"scene": "a", "score": True}, "score must be a number"),
        ({"scene": "a", "score": math.inf}, "score must be a number"),
        ({"scene": "a", "score": 10**400}, "score must be a number"),
        ({"scene": "a", "window_px": 64.0}, "window_px must be a whole number"),
        ({"scene": "a", "bands": [1, "2"]}, "bands must be a list of whole numbers"),
        ({"scene": "a", "bbox": [1, 2, 3]}, "bbox must be four numbers"),
        ({"scene": "a", "classes": "ship"}, "classes must be a list of names"),
        ({"scene": "a", "regularize": 1}, "regularize must be true or false"),
        ({"scene": "a", "area": {"wkb": 1}}, "area must be"),
        ({"scene": "a", "area": {"wkb": "00", "crs": "EPSG:4326"}}, "area must be"),
    ],
)
def test_wrong_parameters_are_named(params, words):
    with pytest.raises(ProtocolError, match=words):
        read_params("segment", params)


def test_parameters_come_as_the_engine_takes_them():
    params = {"scene": "a.tif", "bbox": [1, 2, 3, 4.5], "classes": ["ship"], "score": 1, "model": None}
    expected = {"scene": "a.tif", "bbox": (1.0, 2.0, 3.0, 4.5), "classes": ("ship",), "score": 1.0}
    assert read_params("segment", params) == expected


@given(st.floats(allow_nan=False, allow_infinity=False), st.text())
def test_floats_and_texts_survive_the_journey(number, text):
    line = protocol.notification("instances", {"x": number, "text": text})
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line)["params"] == {"x": number, "text": text}


def test_numbers_that_json_cannot_hold_are_not_sent():
    with pytest.raises(ValueError, match="JSON"):
        protocol.answer(1, {"x": math.nan})
