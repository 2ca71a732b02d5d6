"""The methods of the engine. Each takes a job with checked parameters and returns its result.

Imports torch and the geo libraries, which takes a second or two.
"""

import math
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import shapely

import rs4d_core
from rs4d_core.device import choose_device
from rs4d_core.engine.editing import outline, reshape
from rs4d_core.engine.job import Job
from rs4d_core.engine.models import ModelCache
from rs4d_core.engine.protocol import PROTOCOL_VERSION
from rs4d_core.errors import ModelFileError, OptionError
from rs4d_core.evaluation.layer_metrics import evaluate_layers
from rs4d_core.models.card import default_model_path
from rs4d_core.scenes.layers.chip_export import export_chips
from rs4d_core.scenes.layers.export import export_layer
from rs4d_core.scenes.layers.layer_file import WrittenLayer
from rs4d_core.scenes.layers.postprocess import PostprocessOptions, postprocess_layer
from rs4d_core.scenes.pipeline import Progress, RunStart, SegmentOptions, segment_scene
from rs4d_core.scenes.reading.area import Area
from rs4d_core.scenes.writers import Feature, RunRecord

# So that a message stays small, and a client can draw while it reads.
FEATURES_A_MESSAGE = 200

_OPTIONS = ("bands", "bbox", "bbox_crs", "resolution_m", "window_px", "overlap_px", "score", "classes", "regularize")
_RECORDED = ("run", "time", "model", "model_sha256", "parameters", "scene", "device")


def hello(job: Job, models: ModelCache) -> dict[str, Any]:
    """What this engine is, and the models that it finds."""
    device = choose_device("auto")
    try:
        default = default_model_path()
    except ModelFileError:
        default = None
    return {
        "version": rs4d_core.__version__,
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "executable": sys.executable,
        "device": {"name": device.name, "reason": device.reason, "gpu": device.gpu},
        "default_model": None if default is None else str(default),
        "models": _models(default, job.params.get("model_folders", ()), job, models),
    }


def segment(job: Job, models: ModelCache) -> dict[str, Any]:
    """Finds the instances in a scene; they are told as they are found."""
    params = job.params
    area = Area.from_wkb(params["area"]["wkb"], params["area"]["crs_wkt"]) if "area" in params else None
    options = SegmentOptions(**{name: params[name] for name in _OPTIONS if name in params}, area=area)
    job.tell("progress", {"fraction": 0.0, "message": "loading the model", "seconds_left": None})
    model = models.get(Path(params.get("model") or default_model_path()), params.get("device", "auto"))
    job.check()
    job.tell("progress", {"fraction": 0.0, "message": "opening the scene", "seconds_left": None})
    place: dict[str, Any] = {}

    def on_start(start: RunStart) -> None:
        job.keeps_what_it_has = True
        job.check()
        place.update(run=start.record.run, crs_wkt=start.crs_wkt)
        job.tell("instances", {**place, "features": [], "record": _record(start.record)})

    def on_features(features: list[Feature]) -> None:
        for first in range(0, len(features), FEATURES_A_MESSAGE):
            some = features[first : first + FEATURES_A_MESSAGE]
            job.tell("instances", {**place, "features": [_feature(feature) for feature in some]})

    def on_progress(progress: Progress) -> None:
        job.tell(
            "progress",
            {
                "fraction": progress.fraction,
                "message": progress.message,
                "seconds_left": progress.seconds_left,
                "windows_done": progress.windows_done,
                "windows": progress.windows,
            },
        )

    output, journal = (Path(params[name]) if name in params else None for name in ("output", "journal"))
    result = segment_scene(
        params["scene"],
        output,
        model,
        options,
        on_progress,
        on_features,
        job.cancelled,
        on_start,
        journal=journal,
    )
    return {
        "output": None if result.output is None else str(result.output),
        "run": result.record.run,
        "crs_wkt": result.crs_wkt,
        "instances": result.instances,
        "by_class": result.by_class,
        "windows": result.windows,
        "windows_total": result.windows_total,
        "seconds": result.seconds,
        "model_seconds": result.model_seconds,
        "device": result.device,
        "device_reason": model.device_reason,
        "peak_rss_mb": result.peak_rss_mb,
        "interrupted": result.interrupted,
        "notes": list(result.notes),
        "record": _record(result.record),
    }


def evaluate(job: Job, _models: ModelCache) -> dict[str, Any]:
    """Compares two layers."""
    params = dict(job.params)
    errors = Path(params.pop("errors")) if "errors" in params else None
    return evaluate_layers(**params, errors=errors, cancelled=job.cancelled).to_json()


def export(job: Job, _models: ModelCache) -> dict[str, Any]:
    """Writes a result layer in another format, or as chips to train on."""
    params = dict(job.params)
    source, output = params.pop("layer"), Path(params.pop("output"))
    if "chip_px" not in params:
        if "resolution_m" in params:
            raise OptionError("a resolution is for chips, whose size (chip_px) is missing: give both, or neither")
        return _written(export_layer(source, output, **params, cancelled=job.cancelled))
    result = export_chips(source, output, **params, on_progress=_progress(job), cancelled=job.cancelled)
    return {**_written(result), "chips": result.chips, "annotations": result.annotations}


def postprocess(job: Job, _models: ModelCache) -> dict[str, Any]:
    """Works over a layer: choice, merging, outlines."""
    params = dict(job.params)
    source, output = params.pop("layer"), Path(params.pop("output"))
    return _written(postprocess_layer(source, output, PostprocessOptions(**params), _progress(job), job.cancelled))


METHODS = {
    "hello": hello,
    "segment": segment,
    "outline": outline,
    "reshape": reshape,
    "evaluate": evaluate,
    "export": export,
    "postprocess": postprocess,
}


def _progress(job: Job) -> Callable[[float, str], None]:
    """Tells how far the work is."""

    def tell(fraction: float, message: str) -> None:
        job.tell("progress", {"fraction": fraction, "message": message, "seconds_left": None})

    return tell


def _written(result: WrittenLayer) -> dict[str, Any]:
    return {
        "output": str(result.output),
        "instances": result.instances,
        "by_class": result.by_class,
        "notes": list(result.notes),
    }


def _models(default: Path | None, folders: tuple[str, ...], job: Job, models: ModelCache) -> list[dict[str, Any]]:
    """The default model and those in the folders, each once."""
    found: dict[str, dict[str, Any]] = {}
    paths = [] if default is None else [default]
    for folder in folders:
        try:
            paths += sorted(path for path in Path(folder).iterdir() if path.suffix.lower() == ".safetensors")
        except OSError as error:
            found[folder] = {"path": folder, "error": f"the folder cannot be read ({error.strerror})"}
    for path in paths:
        job.check()
        if str(path.resolve()) not in found:
            found[str(path.resolve())] = _model(path, models)
    return list(found.values())


def _model(path: Path, models: ModelCache) -> dict[str, Any]:
    try:
        sha256, card = models.identify(path)
    except OSError as error:  # ModelFileError is one
        return {"path": str(path), "error": str(error)}
    return {
        "path": str(path),
        "name": card.name,
        "sha256": sha256,
        "card": {**card.to_json(), "classes": card.classes},
    }


def _record(record: RunRecord) -> dict[str, Any]:
    fields = asdict(record)
    return {name: fields[name] for name in _RECORDED}


def _feature(feature: Feature) -> dict[str, Any]:
    return {
        "wkb": shapely.to_wkb(feature.geometry, hex=True),
        "class": feature.class_name,
        "score": feature.score,
        "area_m2": None if math.isnan(feature.area_m2) else feature.area_m2,
    }
