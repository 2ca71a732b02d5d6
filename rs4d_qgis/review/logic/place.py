"""Where in the queue the analyst is, as it is written down to go on there. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rs4d_qgis.layers.statuses import STATUSES
from rs4d_qgis.review.logic.filters import Filters
from rs4d_qgis.review.logic.order import Order
from rs4d_qgis.review.logic.session import Session


@dataclass(frozen=True)
class Place:
    """An order, filters, and the object that was looked at (None: past the last one)."""

    order: Order = Order.UNCERTAIN
    filters: Filters = field(default_factory=Filters)
    current: int | None = None

    @classmethod
    def of(cls, session: Session) -> Place:
        """Where a session is."""
        return cls(session.order, session.filters, session.current)

    def to_json(self) -> dict[str, Any]:
        """In JSON's kinds."""
        filters = self.filters
        return {
            "order": self.order.value,
            "classes": None if filters.classes is None else sorted(filters.classes),
            "statuses": sorted(filters.statuses),
            "scores": [filters.least_score, filters.most_score],
            "cuts": dict(filters.cuts),
            "current": self.current,
        }

    @classmethod
    def from_json(cls, told: object) -> Place:
        """What `to_json` gave; a place at the start for anything else, as of another version."""
        try:
            least, most = told["scores"]
            filters = Filters(
                None if told["classes"] is None else frozenset(map(str, told["classes"])),
                frozenset(told["statuses"]).intersection(STATUSES),
                float(least),
                float(most),
                {str(name): float(cut) for name, cut in told["cuts"].items()},
            )
            current = told["current"]
            return cls(Order(told["order"]), filters, None if current is None else int(current))
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()
