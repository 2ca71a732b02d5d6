"""Measure a model on a run's held-back images, and put the figures on its card."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from rs4d_core.datasets.sample import Sample
from rs4d_core.evaluation.coco_metrics import CocoMetrics, measure
from rs4d_core.evaluation.predict_samples import predict_samples
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.models.card import ModelCard
from rs4d_core.models.config import SegmenterConfig
from rs4d_core.models.instances import Instances

ALL = "all"
"""Name of the figures over all held-back images together."""
_FALLBACK_SCORE = 0.5
_OVERLAP_SHARE = 4
"""Windows of a scene overlap by this part of their side."""


def measure_held_back(
    predict: Callable[[Tensor], list[Instances]],
    held_back: Mapping[str, list[Sample]],
    fit_px: Mapping[str, int],
    classes: tuple[str, ...],
    limit: int | None,
    stopped: Callable[[], bool],
) -> dict[str, CocoMetrics] | None:
    """Metrics by name of the data set, and over `ALL` together; None where `stopped` said so before the end.

    Args:
        fit_px: data sets that are trained on with their images scaled to fit, and to which side: measured alike.
        limit: at most so many images of each data set.
    """
    predictions: dict[str, list[Instances]] = {}
    chosen = {name: samples[:limit] for name, samples in held_back.items()}
    for name, samples in chosen.items():
        predictions[name] = []
        for instances in predict_samples(predict, samples, fit_px.get(name)):
            if stopped():
                return None
            predictions[name].append(instances)
    metrics = {name: measure(predictions[name], samples, classes) for name, samples in chosen.items()}
    metrics[ALL] = measure(
        [instances for entries in predictions.values() for instances in entries],
        [sample for samples in chosen.values() for sample in samples],
        classes,
    )
    return metrics


def selection_score(metrics: dict[str, CocoMetrics]) -> float:
    """What the best model of a run is chosen by: mask precision over all, box precision where no mask is known."""
    overall = metrics[ALL]
    score = overall.mask.ap if overall.mask.ap is not None else overall.box.ap
    return 0.0 if score is None else score


def build_card(recipe: Recipe, config: SegmenterConfig, metrics: dict[str, dict[str, Any]]) -> ModelCard:
    """The card of a model that the recipe made, with its figures; see `with_figures`."""
    side = recipe.optimization.image_size
    card = ModelCard(
        name=recipe.model.name,
        config=config,
        colors=recipe.model.colors,
        resolution_m=recipe.model.resolution_m,
        window_px=side,
        overlap_px=side // _OVERLAP_SHARE,
        default_scores=(_FALLBACK_SCORE,) * len(recipe.model.classes),
        training_data=tuple({"name": data.name, "licence": data.licence} for data in recipe.datasets),
    )
    return with_figures(card, metrics)


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
