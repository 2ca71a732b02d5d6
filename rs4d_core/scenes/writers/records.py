"""What is written: the instances of a scene, and the record of the run that found them."""

import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timezone

import shapely


@dataclass(frozen=True)
class Feature:
    """One instance, as it is written.

    Attributes:
        geometry: in the scene's CRS, valid.
        class_name: one of the model's classes.
        score: 0..1.
        area_m2: on the ellipsoid; NaN where it is unknown, written as null.
    """

    geometry: shapely.MultiPolygon
    class_name: str
    score: float
    area_m2: float


@dataclass(frozen=True)
class RunRecord:
    """How a result came about. Kept with it, so that it can be told apart from others, and repeated.

    Attributes:
        run: the run's id, which each of its instances carries.
        time: when it started, ISO 8601, UTC.
        model, model_sha256: the model's name and the checksum of its file.
        parameters: everything else that the result depends on; plain values that JSON can hold.
        scene: the path of the scene.
        scene_width, scene_height: its own pixels.
        scene_transform: `(a, b, c, d, e, f)`: x = a col + b row + c, y = d col + e row + f.
        device: where the model ran.
    """

    run: str
    time: str
    model: str
    model_sha256: str
    parameters: dict
    scene: str
    scene_width: int
    scene_height: int
    scene_transform: tuple[float, float, float, float, float, float]
    device: str

    def __post_init__(self):
        # At the start of a run, not at its end.
        json.dumps(self.parameters, allow_nan=False)

    @staticmethod
    def new_id() -> tuple[str, str]:
        """A run id that no other run has and that sorts by time, and the time itself."""
        now = datetime.now(timezone.utc)
        return f"{now:%Y%m%dT%H%M%S}-{secrets.token_hex(3)}", f"{now:%Y-%m-%dT%H:%M:%SZ}"
