"""All that the windows of a run depend on, save the scene's files: to tell whether a run goes on with another's."""

import json

import rs4d_core
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.reading.scene import Scene


def settings_of(scene: Scene, predictor: Predictor, options: SegmentOptions) -> dict:
    """Settings by the names that a user knows them by; plain values that JSON can hold.

    What was left to scene and model stands as it was chosen, so that naming a default changes nothing. Not so the
    windows: the size of "auto" depends on the memory that is free just then.
    """
    read = scene.record
    least = zip(predictor.classes, options.least_scores(predictor).tolist(), strict=True)
    return json.loads(
        json.dumps(
            {
                "model": [predictor.name, predictor.sha256],
                "score": {name: score for name, score in least if score <= 1},
                "bands": read["bands"],
                "resolution": read["resolution_m"],
                "part of the scene": read["scene_pixels"],
                "area": None if options.area is None else options.area.to_json(),
                "stretch": read["stretch"],
                "window": predictor.window_px if options.window_px is None else options.window_px,
                "overlap": predictor.overlap_px if options.overlap_px is None else options.overlap_px,
                "right angles": options.regularize,
                "device": predictor.device.split(":")[0],
                "rs4d": rs4d_core.__version__,
            }
        )
    )


def difference(settings: dict, other: dict) -> str:
    """What sets `settings` apart from `other`, for a person: "score 0.3 instead of 0.5"."""
    return ", ".join(
        _difference(name, value, other.get(name)) for name, value in settings.items() if value != other.get(name)
    )


def _difference(name: str, value: object, before: object) -> str:
    if name == "model" and isinstance(before, list):
        if value[0] == before[0]:
            return f"another file of model {value[0]}"
        return f"model {value[0]} instead of {before[0]}"
    if name == "score" and isinstance(before, dict):
        if set(value) != set(before):
            return f"classes {', '.join(value)} instead of {', '.join(before)}"
        scores, others = ({f"{score:g}" for score in some.values()} for some in (value, before))
        if len(scores) == len(others) == 1:
            return f"score {scores.pop()} instead of {others.pop()}"
        return "other scores"
    if name == "right angles":
        return "with right angles" if value else "without right angles"
    if isinstance(value, dict | list) or isinstance(before, dict | list) or None in (value, before):
        return f"another {name}"
    return f"{name} {value} instead of {before}"
