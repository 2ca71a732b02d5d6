"""The errors that work in the engine can end with. Every message is fit to show to a user."""

from __future__ import annotations


class EngineError(Exception):
    """Base of all of them."""


class EngineNotFound(EngineError):
    """There is no engine to start, or what was named as one has none. Says what to do."""


class EngineDied(EngineError):
    """The engine's process ended, or never spoke, while a request was waiting. The next request starts a new one.

    Attributes:
        log: the last lines that the engine wrote, oldest first.
    """

    def __init__(self, message: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.log = log


class RequestFailed(EngineError):
    """The engine's own answer: it could not do what was asked, and says why.

    Attributes:
        code: of JSON-RPC; 2 is wrong input, 1 a fault of the engine.
        kind: the class of the error in the engine, such as "SceneError", or None.
    """

    def __init__(self, message: str, code: int, kind: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind


class Cancelled(EngineError):
    """The request was cancelled, and there is no partial answer."""
