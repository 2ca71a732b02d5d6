"""What is exported, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.logic.session import Session
from rs4d_qgis.translation import tr

NOT_REJECTED, ACCEPTED_ONLY, SHOWN = "not_rejected", "accepted", "shown"
CHIPS, COCO = "chips", "coco"
# What comes with chips.
ANNOTATIONS = "annotations.json"


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: for programs.
        label: for people.
        suffix: of its files; "" for a folder.
        replaceable: a file of this name that is there already can be replaced as a whole.
    """

    name: str
    label: str
    suffix: str
    replaceable: bool

    def output(self, path: str) -> Path:
        """The file to write, for what was typed: with the format's own ending."""
        place = Path(path)
        if not self.suffix:
            return place / ANNOTATIONS
        return place if place.suffix.lower() == self.suffix else place.with_name(place.name + self.suffix)


def formats() -> list[Format]:
    """All of them, in the order in which they are offered."""
    return [
        Format("gpkg", "GeoPackage", ".gpkg", False),
        Format("geojson", "GeoJSON", ".geojson", True),
        Format("shp", "Shapefile", ".shp", False),
        Format("fgb", "FlatGeobuf", ".fgb", True),
        Format(CHIPS, tr("COCO with image chips"), "", False),
        Format(COCO, tr("COCO, pixels of the scene"), ".json", True),
    ]


def renamed(place: Path, kind: Format) -> Path:
    """A name for another format: an ending that is one of ours changes, and any other dot is the name's own."""
    ours = {each.suffix for each in formats() if each.suffix}
    stem = place.with_suffix("") if place.suffix.lower() in ours else place
    return stem.with_name(stem.name + kind.suffix)


def chosen(session: Session, which: str) -> list[int]:
    """Ids of the objects to be exported."""
    if which == SHOWN:
        return session.shown
    objects = session.objects.values()
    if which == ACCEPTED_ONLY:
        return [item.id for item in objects if item.status == ACCEPTED]
    return [item.id for item in objects if item.status != REJECTED]


def numbers(session: Session) -> dict[str, int]:
    """How many objects each choice has. Quick, whatever their number: it is asked after each decision."""
    counts = session.counts().values()
    accepted, rejected = (sum(count[status] for count in counts) for status in (ACCEPTED, REJECTED))
    return {NOT_REJECTED: len(session.objects) - rejected, ACCEPTED_ONLY: accepted, SHOWN: session.left}


def statuses_for_chips(session: Session, wanted: list[int]) -> dict[int, str]:
    """Of every object, what it is to a data set: accepted if it is wanted and not rejected, rejected, or else pending.

    What is pending there is a place to ignore: it is in the picture, and neither an object to learn nor background.
    """
    wanted_ids = set(wanted)
    return {
        item.id: REJECTED if item.status == REJECTED else ACCEPTED if item.id in wanted_ids else PENDING
        for item in session.objects.values()
    }
