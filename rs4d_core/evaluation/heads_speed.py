"""Where the time of a window goes in the default model: encoder, neck, heads, polygons."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rs4d_core.datasets.synthetic import generate_scene
from rs4d_core.models.card import default_model_path
from rs4d_core.models.checkpoint import LoadedModel, load_model
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.windows.polygonize import polygonize

SIDES_PX = (512, 1024)
HEADS = ("rpn", "box", "mask")
_RUNS = 15


def measure() -> dict[str, Any]:
    """Seconds of each part at each side, medians, and the heads' share of the whole, as the benchmark's JSON."""
    model = load_model(default_model_path(), "cpu")
    scene = generate_scene(seed=2_000_000_003, width=max(SIDES_PX), height=max(SIDES_PX), resolution_m=0.4)
    picture = torch.from_numpy(scene.image.transpose(2, 0, 1).astype(np.float32))[None]
    return {
        "threads": torch.get_num_threads(),
        "dtype": str(model.dtype).removeprefix("torch."),
        "heads": {
            f"window_{side}": _window(model, picture[:, :, :side, :side].contiguous(), side) for side in SIDES_PX
        },
    }


def _window(model: LoadedModel, images: Tensor, side: int) -> dict[str, Any]:
    least_scores = torch.tensor(model.default_scores)
    runs: list[dict[str, float]] = []
    with _timed_parts(model) as seconds:
        for _ in range(_RUNS + 2):
            seconds.clear()
            started = time.perf_counter()
            (instances,) = model.predict(images, least_scores)
            predicted = time.perf_counter()
            found = polygonize(instances, Window(0, 0, side, side), side, side)
            ended = time.perf_counter()
            parts = dict(seconds, polygons=ended - predicted, whole=ended - started)
            runs.append(parts | {"rest": predicted - started - sum(seconds.values())})
    parts = {name: statistics.median(run[name] for run in runs[2:]) for name in runs[0]}
    share = sum(parts[name] for name in HEADS) / parts["whole"]
    return {"polygons": len(found), "seconds": parts, "heads_share": share}


@contextmanager
def _timed_parts(model: LoadedModel) -> Iterator[dict[str, float]]:
    """The seconds that the parts of the model's last prediction took."""
    segmenter, seconds = model.segmenter, {}
    calls = {
        "encoder": (segmenter.encoder, "forward"),
        "neck": (segmenter.neck, "forward"),
        "rpn": (segmenter.rpn, "propose"),
        "box": (segmenter.box_head, "forward"),
        "mask": (segmenter.mask_head, "predict"),
    }

    def timed(part: str, call: Callable) -> Callable:
        def run(*arguments, **options):
            started = time.perf_counter()
            result = call(*arguments, **options)
            seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - started
            return result

        return run

    for part, (module, name) in calls.items():
        setattr(module, name, timed(part, getattr(module, name)))
    try:
        yield seconds
    finally:
        for module, name in calls.values():
            delattr(module, name)
