"""Throughput of one process and of Dask workers on this machine, and what a cluster costs apart from the prediction.

Each way of running is measured in a process of its own, after a first scene that warms everything up.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from rs4d_core.datasets.synthetic import write_large_scene
from rs4d_core.models.card import default_model_path
from rs4d_core.models.checkpoint import LoadedModel, load_model
from rs4d_core.scenes.cluster.cluster_windows import FETCHED, cluster_windows
from rs4d_core.scenes.cluster.dask_cluster import Cluster, open_cluster
from rs4d_core.scenes.cluster.dask_worker import hold
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.pipeline import SegmentResult, WindowSourceMaker, segment_scene
from rs4d_core.scenes.prediction.local_windows import LocalWindows
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.detections import WindowDetections
from rs4d_core.scenes.windows.plan import plan

_SIDE_PX = 4096
_WARM_UP_PX = 1024
_RESOLUTION_M = 0.3
_SEED = 2_000_000_004
# Stretches of real results that go through the cluster without being computed.
_EMPTY_STRETCHES = 320
_STRETCH = 16
_WAYS = ("alone", "local:1", "local:2", "client")


def measure() -> dict[str, Any]:
    """Figures of the benchmark's section "cluster"."""
    with tempfile.TemporaryDirectory() as folder:
        warm_up, scene = Path(folder) / "warm_up.tif", Path(folder) / "scene.tif"
        write_large_scene(warm_up, _WARM_UP_PX, _WARM_UP_PX, _SEED, _RESOLUTION_M)
        write_large_scene(scene, _SIDE_PX, _SIDE_PX, _SEED, _RESOLUTION_M)
        found = {way: _in_own_process(way, warm_up, scene) for way in _WAYS}
    return {"cluster": {"side_px": _SIDE_PX, "resolution_m": _RESOLUTION_M, **found}}


def _in_own_process(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", __name__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def _alone(warm_up: Path, scene: Path) -> dict[str, Any]:
    """One process, without a cluster."""
    model = load_model(default_model_path(), "cpu")
    _segment(warm_up, model)
    return {**_figures(_segment(scene, model)), "threads": torch.get_num_threads()}


def _client(_warm_up: Path, scene: Path) -> dict[str, Any]:
    """What is left to a client: results as they arrive are read, merged and written."""
    model = load_model(default_model_path(), "cpu")
    content = _predicted(scene, model)
    result = _segment(scene, model, lambda *_: _Arriving(content))
    return {
        "merge_and_write_s_a_window": result.seconds / result.windows,
        "bytes_a_window": sum(map(len, content)) / len(content),
        "peak_mib": result.peak_rss_mb,
    }


def _clustered(where: str, warm_up: Path, scene: Path) -> dict[str, Any]:
    """Worker processes, and what results cost on their way when nothing has to be computed for them."""
    model = load_model(default_model_path(), "cpu")
    started = time.perf_counter()
    with open_cluster(where, "cpu") as cluster:
        start_s = time.perf_counter() - started
        source = cluster_windows(cluster, default_model_path(), SegmentOptions())
        _segment(warm_up, model, source)
        figures = _figures(_segment(scene, model, source))
        transport_s = _transport(cluster, _predicted(warm_up, model)[:_STRETCH])
    return {**figures, "start_s": start_s, "transport_s_a_window": transport_s}


def _segment(scene: Path, model: LoadedModel, source: WindowSourceMaker = LocalWindows) -> SegmentResult:
    with tempfile.TemporaryDirectory() as folder:
        return segment_scene(scene, Path(folder) / "out.gpkg", model, SegmentOptions(), source=source)


def _figures(result: SegmentResult) -> dict[str, Any]:
    return {
        "seconds": result.seconds,
        "model_seconds": result.model_seconds,
        "windows": result.windows,
        "instances": result.instances,
    }


class _Arriving:
    """A `WindowSource` of windows that were predicted before."""

    batch, model_seconds, interrupted = 1, 0.0, False

    def __init__(self, content: list[bytes]) -> None:
        self.notes: list[str] = []
        self._content = content

    def run(self, indices: Iterable[int]) -> Iterator[WindowDetections]:
        """See `WindowSource.run`."""
        return (WindowDetections.from_bytes(self._content[index]) for index in indices)


def _predicted(path: Path, model: LoadedModel) -> list[bytes]:
    """The windows of a scene as a worker sends them."""
    options = SegmentOptions()
    with Scene.open(path, resolution_range_m=model.resolution_m) as scene:
        windows = plan(scene.width, scene.height, *options.tiling(model))
        source = LocalWindows(scene, windows, model, options.least_scores(model), lambda: False)
        return [window.to_bytes() for window in source.run(range(len(windows)))]


def _transport(cluster: Cluster, windows: list[bytes]) -> float:
    """Seconds a window that scheduler, workers and client spend on handing out stretches and fetching their results."""
    held = cluster.client.submit(hold, windows)
    started = time.perf_counter()
    for first in range(0, _EMPTY_STRETCHES, FETCHED):
        tasks = [cluster.client.submit(_same, held, number) for number in range(first, first + FETCHED)]
        cluster.client.gather(tasks)
    return (time.perf_counter() - started) / (_EMPTY_STRETCHES * len(windows))


def _same(windows: list[bytes], _number: int) -> list[bytes]:
    """A stretch that costs nothing."""
    return windows


def _main(way: str, *scenes: str) -> dict[str, Any]:
    paths = [Path(scene) for scene in scenes]
    measures = {"alone": _alone, "client": _client}
    return measures[way](*paths) if way in measures else _clustered(way, *paths)


if __name__ == "__main__":
    print(json.dumps(_main(*sys.argv[1:])))
