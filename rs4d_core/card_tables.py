"""What the cards of models and encoders tell, as tables of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rs4d_core.console import share

if TYPE_CHECKING:
    from rs4d_core.models.encoder_card import EncoderCard

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def by_data_set(metrics: dict[str, Any]) -> Table:
    """Header and rows: one for each data set. What was not measured there is a dash.

    Where an image shows more objects of a class than COCO counts detections, a second row counts all of them.
    """
    rows = []
    for name, entry in metrics.items():
        for kinds, said in ((("box", "mask"), ""), (("box_unlimited", "mask_unlimited"), ", every detection")):
            if not said or _at(entry, kinds[0]) is not None:
                figures = (_share(entry, kind, figure) for kind in kinds for figure in ("ap", "ap50"))
                rows.append((f"{name}{said}", str(_at(entry, "images") or "-"), *figures))
    return ("measured on", "images", "box AP", "box AP50", "mask AP", "mask AP50"), rows


def by_data_set_and_class(metrics: dict[str, Any], classes: Sequence[str]) -> Table:
    """Header and rows: one for each class of each data set that shows it."""
    header = ("measured on", "class", "instances", "box AP", "box AP50", "mask AP", "mask AP50")
    return header, [
        (
            name,
            label,
            str(_at(entry, "by_class", label, "instances") or "-"),
            *(_share(entry, "by_class", label, f"{kind}_{key}") for kind in ("box", "mask") for key in ("ap", "ap50")),
        )
        for name, entry in metrics.items()
        for label in classes
        if _at(entry, "by_class", label) is not None
    ]


def by_class(metrics: dict[str, Any], classes: Sequence[str], default_scores: Sequence[float]) -> Table:
    """Header and rows: one for each class, with the AP50 of its masks on each data set and its default score."""
    header = ("mask AP50 by class" if metrics else "class", *metrics, "default score")
    return header, [
        (name, *(_share(entry, "by_class", name, "mask_ap50") for entry in metrics.values()), f"{score:.2f}")
        for name, score in zip(classes, default_scores, strict=True)
    ]


def encoder_rows(card: "EncoderCard", presets: Sequence[str]) -> list[tuple[str, str]]:
    """Names and values: where an encoder comes from, and how well it has learned.

    Args:
        presets: the models whose encoder it can be.
    """
    size, corruption, metrics = card.image_size, card.corruption, card.metrics
    config = card.config
    return [
        ("encoder", f"{card.name}, of a model to be trained: it finds no objects by itself"),
        ("preset", f"{', '.join(presets) or 'none'}; {config.depth} blocks of {config.dim} channels"),
        ("made", str(card.source)),
        ("images", "not told" if size is None else f"{size} x {size} px"),
        ("trained on", ", ".join(map(str, card.training_data)) or "not told"),
        ("corruption", _corruption(corruption) if corruption else "not told"),
        ("measured", _l1(metrics) if metrics else "not told"),
        ("created by", str(card.created_by)),
        ("to start from it", "model.encoder of a recipe of training/finetune.py"),
    ]


def _corruption(settings: dict[str, Any]) -> str:
    noise, mask, schedule, masking = (_at(settings, key) for key in ("noise", "mask", "schedule", "masking"))
    return f"noise {_number(noise)} %, mask {_number(mask)} %, {schedule} schedule, {masking} masking"


def _l1(metrics: dict[str, Any]) -> str:
    found, start, step = (_at(metrics, key) for key in ("l1", "start_l1", "step"))
    if found is None:
        return f"nothing was held back to measure; {step} steps"
    return f"L1 {_number(found)} after {step} steps, {_number(start)} before, on images held back, clean"


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else "-"


def _share(entry: Any, *keys: str) -> str:
    value = _at(entry, *keys)
    return share(value if isinstance(value, int | float) else None)


def _at(entry: Any, *keys: str) -> Any:
    """What a card holds there. Cards of others may hold anything."""
    for key in keys:
        entry = entry.get(key) if isinstance(entry, dict) else None
    return entry
