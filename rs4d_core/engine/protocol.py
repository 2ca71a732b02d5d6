"""The messages of the engine: JSON-RPC 2.0, one message a line, UTF-8. Nothing here reads or writes."""

import json
from dataclasses import dataclass
from typing import Any, NoReturn

from rs4d_core.errors import RS4DError

PROTOCOL_VERSION = 1
# A line may be this long, newline included: an outline of half a million points.
LONGEST_LINE = 16 << 20

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
UNKNOWN_METHOD = -32601
INVALID_PARAMS = -32602
TOO_MANY_REQUESTS = -32000
FAULT = 1
REFUSED = 2
CANCELLED = 3

RequestId = int | str


class ProtocolError(RS4DError, ValueError):
    """A message, or what it asks for, does not follow the protocol.

    Attributes:
        code: of the answer.
        request_id: of the request, where it could be made out.
    """

    def __init__(self, code: int, message: str, request_id: RequestId | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id


@dataclass(frozen=True)
class Request:
    """Wants an answer."""

    id: RequestId
    method: str
    params: dict[str, Any]


@dataclass(frozen=True)
class Notification:
    """Wants none."""

    method: str
    params: dict[str, Any]


def parse(line: bytes) -> Request | Notification:
    """The message on a line.

    Raises:
        ProtocolError: it is no JSON, or no message.
    """
    try:
        message = json.loads(line.decode(), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # ValueError: of json, of UTF-8, and of numbers that are too long
        raise ProtocolError(PARSE_ERROR, f"not a line of JSON in UTF-8: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError(INVALID_REQUEST, "a message is one JSON object; batches are not supported")
    request_id = message.get("id")
    known_id = request_id if isinstance(request_id, int | str) and not isinstance(request_id, bool) else None
    if message.get("jsonrpc") != "2.0":
        raise ProtocolError(INVALID_REQUEST, 'a message has "jsonrpc": "2.0"', known_id)
    if "id" in message and known_id is None:
        raise ProtocolError(INVALID_REQUEST, "an id is a whole number or a text")
    method, params = message.get("method"), message.get("params")
    params = {} if params is None else params
    if not isinstance(method, str):
        raise ProtocolError(INVALID_REQUEST, "a message names its method", known_id)
    if not isinstance(params, dict):
        raise ProtocolError(INVALID_PARAMS if known_id is not None else INVALID_REQUEST, "params go by name", known_id)
    return Notification(method, params) if known_id is None else Request(known_id, method, params)


def answer(request_id: RequestId, result: dict[str, Any]) -> bytes:
    """The line that answers a request. Raises ValueError for numbers that JSON cannot hold."""
    return _line({"id": request_id, "result": result})


def failure(request_id: RequestId | None, code: int, message: str, data: dict[str, Any] | None = None) -> bytes:
    """The line that answers a request that failed; `request_id` is None where nobody knows which."""
    error = {"code": code, "message": " ".join(message.split())}
    return _line({"id": request_id, "error": {**error, "data": data} if data else error})


def notification(method: str, params: dict[str, Any]) -> bytes:
    """A line that wants no answer. Raises ValueError for numbers that JSON cannot hold."""
    return _line({"method": method, "params": params})


def _line(message: dict[str, Any]) -> bytes:
    # ASCII, since ids and paths may hold half a surrogate pair, which UTF-8 cannot say. Floats survive the round trip.
    return json.dumps({"jsonrpc": "2.0", **message}, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")
