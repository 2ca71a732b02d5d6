"""One HTML page that tells how good a model is: figures, curves, its best and worst images, and how it was measured.

The page needs nothing beside it and loads nothing: pictures are inside. Whatever it shows of a data set or a card is
escaped: names of classes and files are anybody's.
"""

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rs4d_core.datasets.sample import Sample
from rs4d_core.errors import DependencyError, OutputError
from rs4d_core.evaluation.coco_metrics import MOST_DETECTIONS, Comparison, ImageResult
from rs4d_core.installation import add_command
from rs4d_core.models.checkpoint import LoadedModel
from rs4d_core.models.instances import Instances
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import counted

SHOWN = 6
"""Images that are drawn of the best, and of the worst."""


@dataclass(frozen=True)
class Measurement:
    """What a page is about.

    Attributes:
        model: that predicted.
        samples: the images, with labels that are the model's.
        predictions: one for each.
        source: where the images are from, in words.
        command: that was run.
        time: when, in words.
    """

    model: LoadedModel
    samples: Sequence[Sample]
    predictions: Sequence[Instances]
    source: str
    command: str
    time: str


def write_page(measurement: Measurement, comparison: Comparison, path: Path) -> None:
    """Write the page as one HTML file, whole or not at all.

    Raises:
        DependencyError: matplotlib or jinja2 is not installed.
        DatasetError: an image cannot be read.
        OutputError: the file cannot be written.
    """
    content = render_page(measurement, comparison).encode()
    try:
        write_whole(path, content)
    except OSError as error:
        raise OutputError(f"cannot write the page {path} ({error.strerror}): choose another place") from error


def render_page(measurement: Measurement, comparison: Comparison) -> str:
    """The page's HTML. Raises what `write_page` raises, but for OutputError."""
    try:
        from jinja2 import Environment, StrictUndefined

        from rs4d_core.evaluation.page_pictures import draw_comparison, draw_curves
        from rs4d_core.evaluation.page_template import PAGE
    except ImportError as error:
        raise DependencyError(f"{error.name} is needed for pages: {add_command('train')}") from error

    model, card = measurement.model, measurement.model.card
    colors = dict(zip(card.classes, card.colors, strict=True))
    curves = {"boxes": comparison.curves("box"), "masks": comparison.curves("mask")}
    drawn = [name for name in card.classes if any(name in kind for kind in curves.values())]
    results = comparison.by_image(card.default_scores)

    def group(title: str, chosen: str, places: list[int]) -> dict[str, Any]:
        pictures = [
            {
                "name": Path(measurement.samples[place].name).name,
                "data": _base64(
                    draw_comparison(
                        measurement.samples[place], measurement.predictions[place], results[place], card.colors
                    )
                ),
                "f1": results[place].f1,
                **{key: len(getattr(results[place], key)) for key in ("right", "wrong", "missed")},
            }
            for place in places
        ]
        return {"title": title, "chosen": chosen, "pictures": pictures}

    best = best_images(results)
    groups = [
        group("The best images", f"{_BEST} {_DRAWN}", best),
        group("The worst images", f"{_WORST} {_DRAWN}", worst_images(results, best)),
    ]
    metrics = comparison.metrics
    figures_of = {
        "boxes": metrics.box,
        "masks": metrics.mask,
        "boxes, all detections": metrics.box_unlimited,
        "masks, all detections": metrics.mask_unlimited,
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    return environment.from_string(PAGE).render(
        card=card,
        colors=colors,
        default_scores=dict(zip(card.classes, card.default_scores, strict=True)),
        metrics=metrics.to_json(),
        figures_of=[(title, asdict(figures)) for title, figures in figures_of.items() if figures is not None],
        most_detections=MOST_DETECTIONS,
        source=f"{counted(metrics.images, 'image')} of {measurement.source}",
        time=measurement.time,
        curves=_base64(draw_curves(curves, colors)) if drawn else "",
        drawn_classes=drawn,
        groups=[each for each in groups if each["pictures"]],
        model_facts=_model_facts(model),
        command=measurement.command,
    )


_BEST = (
    f"At most {SHOWN} images with the highest F1 at IoU 0.5, of instances with their class's default score or more; "
    "among equals, those with most instances."
)
_WORST = (
    f"At most {SHOWN} others with the lowest F1; among equals, those with most mistakes. Images without any are left "
    "out."
)
_DRAWN = "Left the truth, missed instances filled red; right the predictions, wrong ones filled red."


def best_images(results: Sequence[ImageResult]) -> list[int]:
    """Places of the `SHOWN` images with the highest F1, those with most instances first; of images with a right one."""
    places = [place for place, result in enumerate(results) if result.right]
    return sorted(places, key=lambda place: (-results[place].f1, -len(results[place].right), place))[:SHOWN]


def worst_images(results: Sequence[ImageResult], but: Sequence[int]) -> list[int]:
    """Places of the `SHOWN` images with the lowest F1, those with most mistakes first; of images with a mistake."""
    mistakes = [len(result.wrong) + len(result.missed) for result in results]
    places = [place for place in range(len(results)) if mistakes[place] and place not in but]
    return sorted(places, key=lambda place: (results[place].f1, -mistakes[place], place))[:SHOWN]


def _model_facts(model: LoadedModel) -> list[tuple[str, str]]:
    card = model.card
    low, high = card.resolution_m
    config = card.config
    return [
        ("preset and head", f"{config.preset}, {config.head}"),
        ("classes", ", ".join(card.classes)),
        ("metres a pixel", f"{low:g}" if low == high else f"{low:g} to {high:g}"),
        ("window", f"{card.window_px} px, overlap {card.overlap_px} px"),
        ("bands", ", ".join(card.bands)),
        ("parameters", f"{sum(p.numel() for p in model.segmenter.parameters()) / 1e6:.2f} M"),
        ("sha256", model.sha256),
        ("made with", card.created_by),
        ("measured on", f"{model.device}, {str(model.dtype).removeprefix('torch.')}"),
        ("measured before", counted(len(card.metrics.keys() - {"all"}), "data set") + " on its card: see rs4d info"),
    ]


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
