"""What a Dask worker does of a run: it predicts stretches of the windows of a scene, and keeps model and scene open.

Dask sends functions by name, so that workers run their own rs4d: it has to be installed there, in the same version.
"""

import hashlib
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rs4d_core
from rs4d_core.errors import ClusterError, SceneError

if TYPE_CHECKING:
    import numpy as np
    from distributed import Worker

    from rs4d_core.models.checkpoint import LoadedModel
    from rs4d_core.scenes.options import SegmentOptions
    from rs4d_core.scenes.reading.scene import Scene


@dataclass(frozen=True)
class Job:
    """What all stretches of a run have in common.

    Attributes:
        run: tells runs apart.
        version: of the client's rs4d.
        scene: a path or address, as workers open it.
        shown: what the client sees under this name (`shown_by`): its size, place, and how it is read.
        options: with the size and overlap of the windows filled in.
        least_scores: `(classes,)`.
        model: the content of its file.
        sha256: of `model`.
        device: "auto", "cpu", "cuda" or "cuda:N".
    """

    run: str
    version: str
    scene: str
    shown: str
    options: "SegmentOptions"
    least_scores: "np.ndarray"
    model: bytes
    sha256: str
    device: str


def introduce(device: str) -> dict[str, str]:
    """Which rs4d this worker has, where it runs, and on which device and in which type it would compute.

    Raises:
        OptionError: it has no such device.
    """
    from rs4d_core.device import choose_device, fast_dtype

    chosen = choose_device(device)
    dtype = str(fast_dtype(chosen.name)).removeprefix("torch.")
    return {"rs4d": rs4d_core.__version__, "host": socket.gethostname(), "device": chosen.name, "dtype": dtype}


def hold(job: Job) -> Job:
    """The task that all stretches of a run depend on: Dask brings its result to each worker once."""
    return job


def detect(job: Job, indices: list[int]) -> tuple[float, list[str], list[bytes]]:
    """Predicts the windows of these indices of the plan.

    Returns:
        Seconds in the model, notes for the user, and one `WindowDetections.to_bytes()` for each window.

    Raises:
        ClusterError: this worker has another rs4d, cannot open the scene, or sees another one under its name.
        ModelFileError, OptionError, SceneError: as in a run without a cluster.
    """
    # Before anything of the job is used that another version may not have.
    if job.version != rs4d_core.__version__:
        raise ClusterError(
            f"{_here()} has rs4d {rs4d_core.__version__}, and this is {job.version}: install the same version on both"
        )
    from rs4d_core.scenes.prediction.local_windows import LocalWindows
    from rs4d_core.scenes.windows.plan import plan

    model = _PROCESS.model(job)
    with _PROCESS.scene(job, model) as scene:
        windows = plan(scene.width, scene.height, job.options.window_px, job.options.overlap_px)
        source = LocalWindows(scene, windows, model, job.least_scores, cancelled=lambda: False)
        shown = [window.to_bytes() for window in source.run(indices)]
    return source.model_seconds, source.notes, shown


def shown_by(scene: "Scene") -> str:
    """What tells whether two processes see the same scene under a name: its size, place, and how it is read."""
    place = (scene.width, scene.height, scene.source_width, scene.source_height, *scene.transform[:6], scene.crs_wkt)
    return hashlib.sha256(repr((place, scene.record)).encode()).hexdigest()


class _Process:
    """What a worker process keeps for its next task: the last model, and the last run's scene.

    A worker of several threads has several tasks in hand, and a GDAL handle is for one thread at a time: the scene is
    open as many times as there are tasks. The model is there once. Predictions take turns, with all of the threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._model: tuple[tuple[str, str], LoadedModel] | None = None
        self._run: str | None = None
        self._scenes: list[Scene] = []

    def model(self, job: Job) -> "LoadedModel":
        """The job's model on its device."""
        import torch

        from rs4d_core.models.checkpoint import load_model

        with self._lock:
            key = job.sha256, job.device
            if self._model is None or self._model[0] != key:
                self._model = None  # before the next is loaded: memory may not hold both
                if hashlib.sha256(job.model).hexdigest() != job.sha256:
                    raise ClusterError(f"the model did not reach {_here()} as it was sent: start again")
                # Dask keeps libraries to one thread in a worker.
                torch.set_num_threads(_worker().state.nthreads)
                # In the worker's own folder, which Dask clears away also where this process is killed just now.
                with tempfile.TemporaryDirectory(dir=_worker().local_directory) as folder:
                    path = Path(folder) / "model.safetensors"
                    path.write_bytes(job.model)
                    self._model = key, load_model(path, job.device)
            return self._model[1]

    @contextmanager
    def scene(self, job: Job, model: "LoadedModel") -> Iterator["Scene"]:
        """The job's scene, for one thread."""
        with self._lock:
            if self._run != job.run:
                for old in self._scenes:
                    old.close()
                self._run, self._scenes = job.run, []
            scene = self._scenes.pop() if self._scenes else None
        if scene is None:
            scene = _open(job, model)
        yield scene
        # Not after an error: whoever tries again shall open it anew.
        with self._lock:
            if self._run == job.run:
                self._scenes.append(scene)
                return
        scene.close()


_PROCESS = _Process()


def _open(job: Job, model: "LoadedModel") -> "Scene":
    from rs4d_core.scenes.reading.scene import Scene

    options = job.options
    try:
        scene = Scene.open(
            job.scene,
            options.bands,
            model.resolution_m,
            options.resolution_m,
            options.bbox,
            options.bbox_crs,
            options.area,
        )
    except SceneError as error:
        raise ClusterError(
            f"{_here()} cannot read the scene: {error}; every worker has to find it under this very name, in a folder "
            "that all machines share or by its URL"
        ) from error
    if shown_by(scene) != job.shown:
        scene.close()
        raise ClusterError(f"{_here()} sees another scene under {job.scene}: give a path or URL that is one for all")
    return scene


def _here() -> str:
    return f"worker {_worker().address} (on {socket.gethostname()})"


def _worker() -> "Worker":
    from distributed import get_worker

    return get_worker()


def dask_setup(_: Any) -> None:
    """Called by Dask in the workers of `local:N` as they start, which have this module as a preload.

    Ctrl-C in a terminal reaches all processes of the program. It is the client that decides what it means.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
