"""The measured accuracy on a model's card, as tables of text."""

from collections.abc import Sequence
from typing import Any

from rs4d_core.console import share

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def by_data_set(metrics: dict[str, Any]) -> Table:
    """Header and rows: one for each data set. What was not measured there is a dash."""
    header = ("measured on", "images", "box AP", "box AP50", "mask AP", "mask AP50")
    return header, [
        (
            name,
            str(_at(entry, "images") or "-"),
            *(_share(entry, kind, figure) for kind in ("box", "mask") for figure in ("ap", "ap50")),
        )
        for name, entry in metrics.items()
    ]


def by_class(metrics: dict[str, Any], classes: Sequence[str], default_scores: Sequence[float]) -> Table:
    """Header and rows: one for each class, with the AP50 of its masks on each data set and its default score."""
    header = ("mask AP50 by class" if metrics else "class", *metrics, "default score")
    return header, [
        (name, *(_share(entry, "by_class", name, "mask_ap50") for entry in metrics.values()), f"{score:.2f}")
        for name, score in zip(classes, default_scores, strict=True)
    ]


def _share(entry: Any, *keys: str) -> str:
    value = _at(entry, *keys)
    return share(value if isinstance(value, int | float) else None)


def _at(entry: Any, *keys: str) -> Any:
    """What a card holds there. Cards of others may hold anything."""
    for key in keys:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
