"""How long windows take on this machine, learned from the runs that were made on it."""

from __future__ import annotations

from rs4d_qgis import settings

_NAME = "seconds_per_megapixel"


def learn(model_sha256: str, device: str, megapixels: float, seconds: float) -> None:
    """A run over so many megapixels of windows took so long.

    Megapixels rather than windows, because a scene smaller than a window is seen in smaller ones; the encoder's time is
    in proportion to pixels.
    """
    if megapixels <= 0 or seconds <= 0:
        return
    rate, before = seconds / megapixels, _rate(model_sha256, device)
    # Half of what was known: a single run on a busy machine does not spoil it, and a faster machine shows soon.
    settings.set_last(_NAME, {**_known(), _key(model_sha256, device): rate if before is None else (rate + before) / 2})


def estimate_s(model_sha256: str, device: str, megapixels: float) -> float | None:
    """How long so many megapixels of windows would take; None before the first run."""
    rate = _rate(model_sha256, device)
    return None if rate is None else rate * megapixels


def _rate(model_sha256: str, device: str) -> float | None:
    rate = _known().get(_key(model_sha256, device))
    return float(rate) if isinstance(rate, (int, float)) and rate > 0 else None


def _known() -> dict:
    known = settings.last(_NAME, {})
    return known if isinstance(known, dict) else {}


def _key(model_sha256: str, device: str) -> str:
    return f"{model_sha256[:16]} {device}"
