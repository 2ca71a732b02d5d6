"""How the plugin tells counts and times."""

from __future__ import annotations

from rs4d_qgis.translation import tr


def count(number: int, one: str, many: str) -> str:
    """A number with its noun, both translated by the caller: "1 window", "12 windows"."""
    return f"{spaced(number)} {one if number == 1 else many}"


def spaced(number: int) -> str:
    """A number with its thousands apart."""
    return f"{number:,}".replace(",", "\N{NO-BREAK SPACE}")


def duration(seconds: float) -> str:
    """A length of time as a person would tell it: "8 s", "3 min", "1 h 20 min"."""
    if seconds < 60:
        return tr("{} s").format(max(1, round(seconds)))
    minutes = round(seconds / 60)
    if minutes < 60:
        return tr("{} min").format(minutes)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return tr("{} days").format(round(hours / 24))
    return tr("{} h {} min").format(hours, minutes) if minutes else tr("{} h").format(hours)
