"""Names of classes: as models and files have them, and as people read and write them."""

from __future__ import annotations

from collections.abc import Iterable


def class_label(name: str) -> str:
    """The name of a class for people: `storage_tank` is a name for programs."""
    return name.replace("_", " ")


def as_known(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Names as a user gives them, each by its spelling among the known ones; by its own where it is not known.

    Args:
        known: of a model, or of a layer's polygons. What they differ in is more than capitals, blanks and "_".
    """
    known = set(known)
    spelling = {_bare(name): name for name in known}
    return [name if name in known else spelling.get(_bare(name), name) for name in names]


def _bare(name: str) -> str:
    return class_label(name).casefold()
