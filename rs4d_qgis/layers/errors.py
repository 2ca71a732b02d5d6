"""Why a layer does not become what the engine can read."""

from __future__ import annotations


class RenderError(Exception):
    """A layer cannot be made into a file; the message is for users."""


class RenderCancelled(Exception):
    """The user gave up on it."""
