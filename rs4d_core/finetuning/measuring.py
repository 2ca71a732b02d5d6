"""Measure a model on a run's held-back images, and put the figures on its card."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from rs4d_core.datasets.sample import Sample
from rs4d_core.evaluation.coco_metrics import CocoMetrics, measure
from rs4d_core.evaluation.predict_samples import predict_samples
from rs4d_core.finetuning.recipe import ALL, Recipe
from rs4d_core.models.card import ModelCard, join_training_data
from rs4d_core.models.config import SegmenterConfig
from rs4d_core.models.encoder_card import EncoderCard
from rs4d_core.models.instances import Instances

Entry = TypeVar("Entry")
_FALLBACK_SCORE = 0.5
_OVERLAP_SHARE = 4
"""Windows of a scene overlap by this part of their side."""


def few_of(by_set: Mapping[str, list[Entry]], most: int | None) -> dict[str, list[Entry]]:
    """At most so many of each list, in their order: drawn, and the same ones for any lists as long as these."""
    few = {}
    for name, entries in by_set.items():
        drawn = np.random.default_rng(0).permutation(len(entries))[:most]
        few[name] = [entries[place] for place in sorted(drawn.tolist())]
    return few


def predict_held_back(
    predict: Callable[[Tensor], list[Instances]],
    held_back: Mapping[str, list[Sample]],
    fit_px: Mapping[str, int],
    stopped: Callable[[], bool] = lambda: False,
) -> dict[str, list[Instances]] | None:
    """The instances of each sample, by name of the data set; None where `stopped` said so before the end.

    Args:
        fit_px: data sets that are trained on with their images scaled to fit, and to which side: measured alike.
    """
    predictions: dict[str, list[Instances]] = {}
    for name, samples in held_back.items():
        predictions[name] = []
        for instances in predict_samples(predict, samples, fit_px.get(name)):
            if stopped():
                return None
            predictions[name].append(instances)
    return predictions


def measure_held_back(
    predictions: Mapping[str, list[Instances]], held_back: Mapping[str, list[Sample]], classes: tuple[str, ...]
) -> dict[str, CocoMetrics]:
    """Metrics by name of the data set, and over `ALL` together, of one prediction for each sample."""
    metrics = {name: measure(predictions[name], samples, classes) for name, samples in held_back.items()}
    metrics[ALL] = measure(
        [instances for entries in predictions.values() for instances in entries],
        [sample for samples in held_back.values() for sample in samples],
        classes,
    )
    return metrics


def selection_score(metrics: dict[str, CocoMetrics]) -> float:
    """What the best model of a run is chosen by: mask precision over all, box precision where no mask is known."""
    overall = metrics[ALL]
    score = overall.mask.ap if overall.mask.ap is not None else overall.box.ap
    return 0.0 if score is None else score


def build_card(
    recipe: Recipe, config: SegmenterConfig, metrics: dict[str, dict[str, Any]], origins: Iterable[dict[str, str]]
) -> ModelCard:
    """The card of a model that the recipe made, with its figures; see `with_figures`.

    Args:
        origins: training data of what the model started from, as `origins_of` gives it.
    """
    side = recipe.optimization.image_size
    card = ModelCard(
        name=recipe.model.name,
        config=config,
        colors=tuple(color.lower() for color in recipe.model.colors),
        resolution_m=recipe.model.resolution_m,
        window_px=side,
        overlap_px=side // _OVERLAP_SHARE,
        default_scores=(_FALLBACK_SCORE,) * len(recipe.model.classes),
        training_data=join_training_data(
            ({"name": data.name, "licence": data.licence} for data in recipe.datasets), origins
        ),
    )
    return with_figures(card, metrics)


def origins_of(card: ModelCard | EncoderCard) -> list[dict[str, str]]:
    """What a model was trained on by way of another one that it starts from: `via` has that model's name."""
    if isinstance(card, EncoderCard):
        via = f"{card.name}, {card.source}"
        return [{"name": name, "licence": "not told", "via": via} for name in card.training_data or ("not told",)]
    told = {"name": "not told", "licence": "not told", "via": card.name}
    return [{**told, **data} for data in card.training_data or ({},)]


def with_figures(card: ModelCard, metrics: dict[str, dict[str, Any]]) -> ModelCard:
    """The card with other figures, and with the default scores that follow from them.

    A class's default score is where its F1 was best; 0.5 where that is not known.

    Args:
        metrics: `CocoMetrics.to_json` by name of the data set, with `ALL`; empty where nothing was measured.
    """
    by_class = metrics[ALL]["by_class"] if metrics else {}
    scores = [by_class.get(name, {}).get("best_score") for name in card.classes]
    return dataclasses.replace(
        card,
        default_scores=tuple(round(_FALLBACK_SCORE if score is None else score, 3) for score in scores),
        metrics={name: _summary(entry) for name, entry in metrics.items()},
    )


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    kinds = [kind for kind in ("box", "mask", "box_unlimited", "mask_unlimited") if metrics[kind] is not None]
    return {
        "images": metrics["images"],
        **{kind: {key: _rounded(metrics[kind][key]) for key in ("ap", "ap50")} for kind in kinds},
        "by_class": {
            name: {
                "instances": entry["instances"],
                **{key: _rounded(entry[key]) for key in ("box_ap", "box_ap50", "mask_ap", "mask_ap50")},
            }
            for name, entry in metrics["by_class"].items()
            if entry["instances"]
        },
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
