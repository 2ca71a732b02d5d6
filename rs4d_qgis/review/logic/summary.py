"""How many objects of which class have which status, and how much ground they cover. Pure: no Qt, no QGIS."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass, field

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED, STATUSES
from rs4d_qgis.review.logic.objects import ReviewObject

_ORDER = (ACCEPTED, PENDING, REJECTED)


@dataclass
class SummaryRow:
    """One class, or all.

    Attributes:
        name: of the class; "" for objects without one, and for all.
        counts: objects, by status.
        areas_m2: on the ground, by status, of the objects whose area is known.
        unknown_areas: objects whose area is not.
    """

    name: str
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    areas_m2: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0.0))
    unknown_areas: int = 0

    @property
    def total(self) -> int:
        """Objects of any status."""
        return sum(self.counts.values())

    @property
    def decided(self) -> int:
        """Objects that are accepted or rejected."""
        return self.total - self.counts[PENDING]

    def add(self, item: ReviewObject) -> None:
        """Count one more."""
        self.counts[item.status] += 1
        if item.area_m2 is None:
            self.unknown_areas += 1
        else:
            self.areas_m2[item.status] += item.area_m2


@dataclass(frozen=True)
class Summary:
    """Rows by class, in the order of their names, and one for all."""

    rows: list[SummaryRow]
    all: SummaryRow


def summarize(objects: Iterable[ReviewObject]) -> Summary:
    """The summary of these objects."""
    rows: dict[str, SummaryRow] = {}
    every = SummaryRow("")
    for item in objects:
        rows.setdefault(item.class_name, SummaryRow(item.class_name)).add(item)
        every.add(item)
    return Summary([rows[name] for name in sorted(rows)], every)


def to_csv(summary: Summary) -> str:
    """A table with a row a class and one for all, areas in square metres; as programs read it: commas, points."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\r\n")
    table.writerow(
        ["class", *_ORDER, "total", *(f"{status}_area_m2" for status in _ORDER), "total_area_m2", "unknown_areas"]
    )
    for name, row in [*((row.name, row) for row in summary.rows), ("(all)", summary.all)]:
        areas = [row.areas_m2[status] for status in _ORDER]
        table.writerow(
            [
                name,
                *(row.counts[status] for status in _ORDER),
                row.total,
                *(f"{area:.2f}" for area in (*areas, sum(areas))),
                row.unknown_areas,
            ]
        )
    return text.getvalue()
