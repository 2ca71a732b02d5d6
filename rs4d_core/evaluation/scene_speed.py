"""Time and memory of whole scenes: the default model on generated suburbs, and the pipeline alone on huge blank ones.

Each scene is segmented in a process of its own, so that its peak memory is its own.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch

from rs4d_core.datasets.synthetic import default_transform, generate_scene, write_large_scene, write_scene
from rs4d_core.models.card import default_model_path
from rs4d_core.models.checkpoint import load_model
from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene

_SCENES_PX = ((8192, 4096), (8192, 8192))
_EXTENT_PX = 1024
_MEMORY_SIDES_PX = (4_096, 32_768)
_RESOLUTION_M = 0.4
_SEED = 2_000_000_003


def measure_scenes() -> dict[str, Any]:
    """Figures of the benchmark's section "scene": seconds in all and outside the model, and until the first polygon."""
    with tempfile.TemporaryDirectory() as folder:
        found = {}
        for width, height in _SCENES_PX:
            path = Path(folder) / f"{width}x{height}.tif"
            write_large_scene(path, width, height, _SEED, _RESOLUTION_M)
            found[f"{width}x{height}"] = _in_own_process("scene", path)
        path = Path(folder) / "extent.tif"
        write_scene(generate_scene(_SEED, _EXTENT_PX, _EXTENT_PX, _RESOLUTION_M), path)
        first = _in_own_process("first", path)
    small, large = (found[f"{width}x{height}"]["seconds"] for width, height in _SCENES_PX)
    return {"scene": {**found, "twice_the_scene": large / small, **first}}


def measure_memory() -> dict[str, Any]:
    """Figures of the benchmark's section "memory": peaks of a small and a huge scene at the same window, MiB."""
    with tempfile.TemporaryDirectory() as folder:
        peaks = {}
        for side in _MEMORY_SIDES_PX:
            path = Path(folder) / f"{side}.tif"
            # No block of it is stored, but each is read, cached and decoded as any other.
            options = {"tiled": True, "sparse_ok": True, "photometric": "RGB"}
            transform = default_transform(_RESOLUTION_M)
            with rasterio.open(path, "w", "GTiff", side, side, 3, "EPSG:32631", transform, "uint8", **options):
                pass
            peaks[f"{side}x{side}"] = _in_own_process("discs", path)
    small, large = (peaks[f"{side}x{side}"]["peak_mib"] for side in _MEMORY_SIDES_PX)
    return {"memory": {**peaks, "ratio": large / small}}


def _in_own_process(what: str, scene: Path) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", __name__, what, str(scene)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)


class _Discs:
    """A predictor that costs no time, so that all time and memory is the pipeline's: 20 discs in every window."""

    name, sha256, device = "discs", "0" * 64, "cpu"
    classes, colors, default_scores = ("disc",), ("#ff0000",), (0.5,)
    resolution_m, window_px, overlap_px = (0.01, 100.0), 1024, 64

    def __init__(self) -> None:
        y, x = np.mgrid[-1:1:28j, -1:1:28j]
        self._disc = torch.from_numpy(np.clip(1.4 - np.hypot(x, y), 0, 1).astype(np.float32))
        self._random = np.random.default_rng(0)

    def predict(self, images: torch.Tensor, least_scores: torch.Tensor) -> list[Instances]:
        return [self._somewhere(*image.shape[1:]) for image in images]

    def _somewhere(self, height: int, width: int, count: int = 20) -> Instances:
        left, top = self._random.uniform(0, width - 60, count), self._random.uniform(0, height - 60, count)
        boxes = np.stack([left, top, left + 60, top + 60], axis=1).astype(np.float32)
        scores = np.sort(self._random.uniform(0.5, 1, count).astype(np.float32))[::-1].copy()
        return Instances(
            torch.from_numpy(boxes),
            torch.from_numpy(scores),
            torch.zeros(count, dtype=torch.int64),
            [MaskPatch(self._disc, tuple(box)) for box in boxes.tolist()],
        )


def _segment(scene: Path, predictor: Any) -> dict[str, Any]:
    result = segment_scene(scene, scene.with_suffix(".gpkg"), predictor, SegmentOptions())
    return {
        "seconds": result.seconds,
        "model_seconds": result.model_seconds,
        "outside_share": 1 - result.model_seconds / result.seconds,
        "windows": result.windows,
        "instances": result.instances,
        "peak_mib": result.peak_rss_mb,
    }


def _first_polygon(scene: Path) -> dict[str, float]:
    """Seconds from the request for a scene of 1024 px to its first polygons, and to all, once the model is warm."""
    model = load_model(default_model_path(), "cpu")
    told: list[float] = []
    for _ in range(3):
        told.clear()
        started = time.perf_counter()
        segment_scene(
            scene, None, model, SegmentOptions(), on_features=lambda features: told.append(time.perf_counter())
        )
        ended = time.perf_counter()
    return {"first_polygon_s": told[0] - started, f"extent_{_EXTENT_PX}_s": ended - started}


def _main(what: str, scene: str) -> dict[str, Any]:
    if what == "first":
        return _first_polygon(Path(scene))
    return _segment(Path(scene), _Discs() if what == "discs" else load_model(default_model_path(), "cpu"))


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
