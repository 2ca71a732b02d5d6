"""In which order the objects come up. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from rs4d_qgis.review.logic.objects import ReviewObject

# A score that is as good as tossing a coin.
_DOUBTFUL = 0.5


class Order(Enum):
    """What comes first. What lacks the value that is ordered by comes last."""

    UNCERTAIN = "uncertain"
    LOW_SCORE = "low_score"
    HIGH_SCORE = "high_score"
    LARGE = "large"
    SMALL = "small"
    CLASS = "class"
    PLACE = "place"


def sort_key(order: Order, objects: Iterable[ReviewObject]) -> Callable[[ReviewObject], Any]:
    """The key that puts these objects, or any of them, in this order. Objects alike are ordered by their ids."""
    if order is Order.PLACE:
        return _place_key(list(objects))
    return _KEYS[order]


def _last(value: float | None, sign: int = 1) -> float:
    return math.inf if value is None else sign * value


def _uncertain(item: ReviewObject) -> tuple:
    return (math.inf if item.score is None else abs(item.score - _DOUBTFUL), item.id)


_KEYS: dict[Order, Callable[[ReviewObject], Any]] = {
    Order.UNCERTAIN: _uncertain,
    Order.LOW_SCORE: lambda item: (_last(item.score), item.id),
    Order.HIGH_SCORE: lambda item: (_last(item.score, -1), item.id),
    Order.LARGE: lambda item: (_last(item.area_m2, -1), item.id),
    Order.SMALL: lambda item: (_last(item.area_m2), item.id),
    Order.CLASS: lambda item: (item.class_name, *_uncertain(item)),
}


def _place_key(objects: list[ReviewObject]) -> Callable[[ReviewObject], Any]:
    """Row by row from the north, to the east and back in turn, so that the next object is near.

    The height of a row is the one that makes the way through points strewn at random shortest, sqrt(3 A / n)
    (Daganzo, "The length of tours in zones of different shapes", 1984).
    """
    if not objects:
        return lambda item: (0, 0.0, item.id)
    west, east = min(item.x for item in objects), max(item.x for item in objects)
    south, north = min(item.y for item in objects), max(item.y for item in objects)
    height = math.sqrt(3 * (east - west) * (north - south) / len(objects)) or math.inf

    def key(item: ReviewObject) -> tuple:
        row = math.floor((north - item.y) / height)
        return (row, item.x if row % 2 == 0 else -item.x, item.id)

    return key
