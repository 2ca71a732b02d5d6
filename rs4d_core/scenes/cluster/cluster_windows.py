"""The windows of a scene, predicted by the workers of a Dask cluster.

A task is a stretch of windows that follow one another in the plan. A bounded number of them is on its way, counted from
the first whose result has not been handed on; results stay on the workers that computed them until it is their turn.
So neither client nor scheduler holds more than that, however large the scene. A worker that dies takes its results
along; Dask has other workers compute them again.
"""

import math
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import rs4d_core
from rs4d_core.errors import ClusterError, ModelFileError, OptionError, RS4DError
from rs4d_core.scenes.cluster.dask_cluster import Cluster
from rs4d_core.scenes.cluster.dask_worker import Job, detect, hold, shown_by
from rs4d_core.scenes.options import SegmentOptions
from rs4d_core.scenes.prediction.local_windows import batch_of
from rs4d_core.scenes.prediction.predictor import Predictor
from rs4d_core.scenes.prediction.worker import Worker
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.detections import WindowDetections
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.wording import counted, one_line

if TYPE_CHECKING:
    from distributed import Future as Task

# Pixels of a stretch, about: 16 windows of 384 px, a second or two of a processor. Shorter ones cost the scheduler
# more; longer ones make a worker that dies, and the end of a run, more expensive.
STRETCH_PX = 2_400_000
# Stretches on their way for each thread of a worker: the one that it computes, and those that it can go on with while
# the first in order takes longer than the others.
AHEAD = 4
# Stretches that are fetched in one request.
FETCHED = 16
# With nobody to compute for so long, a run gives up. Others may be starting workers meanwhile.
PATIENCE_S = 300.0
_WINDOWS = "rs4d-windows"  # the names of tasks begin so
_COUNT_S = 5.0
_POLL_S = 0.05


class ClusterWindows:
    """A `WindowSource`: the workers of a cluster. Made by `cluster_windows`.

    Once `cancelled` says so, the iteration ends; what workers have in hand then, they finish for nobody.
    """

    def __init__(self, cluster: Cluster, job: Job, windows: list[Window], cancelled: Callable[[], bool]) -> None:
        pixels = windows[0].width * windows[0].height
        # Windows are predicted with the same others as in a run without a cluster: stretches are of whole batches.
        whole = math.lcm(*(batch_of(windows[0], device) for device in cluster.devices))
        self.batch = max(STRETCH_PX // pixels // whole, 1) * whole
        self.model_seconds = 0.0
        self.interrupted = False
        self.notes: list[str] = []
        self._cluster = cluster
        self._job = job
        self._cancelled = cancelled
        self._finished = threading.Event()
        self._threads = len(cluster.devices)
        self._counted_at = -math.inf
        self._deserted_at: float | None = None

    def run(self, indices: Iterable[int]) -> Iterator[WindowDetections]:
        """See `WindowSource.run`.

        Raises:
            ClusterError: the scheduler or all workers have gone, a stretch has killed several workers one after
                another, or a worker cannot take part: its rs4d is another, or it does not find the scene.
        """
        stretches = (list(stretch) for _, stretch in groupby(indices, lambda index: index // self.batch))
        job = self._cluster.client.submit(hold, self._job, key=f"rs4d-job-{self._job.run}")
        fetcher, counter = Worker("rs4d-fetch"), Worker("rs4d-count")
        tasks: deque[Task] = deque()
        fetch: Future | None = None
        try:
            while True:
                self._keep_count(counter)
                for stretch in islice(stretches, max(AHEAD * self._threads - len(tasks), 0)):
                    tasks.append(self._submit(job, stretch))
                fetch = fetch or self._fetch(fetcher, tasks)
                if self._cancelled():
                    self.interrupted = True
                    return
                if fetch is None and not tasks:
                    return
                if fetch is None:
                    came = self._finished.wait(_POLL_S)
                    self._finished.clear()
                else:
                    came = bool(wait_for([fetch], _POLL_S).done)
                if not came and job.status == "error":
                    # Results that were finished are lost with their worker, and what they were made of cannot be made
                    # again: Dask tells the client nothing of them, however long it waits.
                    raise self._failure(job.exception())
                if fetch is not None and came:
                    results = self._result(fetch)
                    fetch = self._fetch(fetcher, tasks)  # goes on while these are merged
                    for seconds, notes, shown in results:
                        self.model_seconds += seconds
                        self.notes += [note for note in notes if note not in self.notes]
                        for one in shown:
                            if self._cancelled():
                                self.interrupted = True
                                return
                            yield WindowDetections.from_bytes(one)
        finally:
            # Dask drops what nobody refers to any more, and does not begin with what it has not begun with.
            tasks.clear()
            del job
            fetcher.close(wait=False)
            counter.close(wait=False)

    def _submit(self, job: "Task", stretch: list[int]) -> "Task":
        if self._cluster.client.status == "closed":
            raise self._scheduler_has_gone()
        key = f"{_WINDOWS}-{self._job.run}-{stretch[0]}-{stretch[-1]}"
        task = self._cluster.client.submit(detect, job, stretch, key=key)
        task.add_done_callback(lambda _: self._finished.set())
        return task

    def _fetch(self, fetcher: Worker, tasks: "deque[Task]") -> Future | None:
        """Has the results of the first tasks fetched where these are finished, and takes them from `tasks`."""
        ready = []
        while tasks and len(ready) < FETCHED and tasks[0].status == "finished":
            ready.append(tasks.popleft())
        if ready:
            return fetcher.submit(self._cluster.client.gather, ready)
        if tasks and tasks[0].status == "cancelled":
            raise self._scheduler_has_gone()
        if tasks and tasks[0].status == "error":
            raise self._failure(tasks[0].exception())
        if self._deserted_at is not None and time.monotonic() - self._deserted_at > PATIENCE_S:
            raise ClusterError(
                f"the cluster at {self._cluster.asked_for} has had no workers for {PATIENCE_S:.0f} s: start some, then "
                "run this again; what is finished is kept"
            )
        return None

    def _result(self, fetch: Future) -> list[tuple[float, list[str], list[bytes]]]:
        try:
            return fetch.result()
        except Exception as error:
            raise self._failure(error) from error

    def _keep_count(self, counter: Worker) -> None:
        """Has the threads of the workers counted now and again: they come and go."""
        now = time.monotonic()
        if now - self._counted_at >= _COUNT_S:
            self._counted_at = now
            counter.submit(self._count)

    def _count(self) -> None:
        threads = sum(self._cluster.client.nthreads().values())
        if threads:
            self._threads = threads
            self._deserted_at = None
        elif self._deserted_at is None:
            self._deserted_at = time.monotonic()

    def _failure(self, error: BaseException) -> RS4DError:
        """What a task or its transport ended with, for the user."""
        from distributed import KilledWorker
        from distributed.client import FutureCancelledError

        if isinstance(error, RS4DError):
            return error
        if isinstance(error, FutureCancelledError):
            return self._scheduler_has_gone()
        if isinstance(error, KilledWorker):
            what, first, last = error.task.rsplit("-", 2)
            over = f"windows {first} to {last}" if what.startswith(_WINDOWS) else "taking the model in"
            return ClusterError(
                f"{counted(error.allowed_failures + 1, 'worker')} ended over {over}, the last at "
                f"{error.last_worker.address}: give workers more memory, or choose a smaller window; what is finished "
                "is kept"
            )
        return ClusterError(
            f"a worker failed: {type(error).__name__}: {one_line(str(error))}; what is finished is kept"
        )

    def _scheduler_has_gone(self) -> ClusterError:
        return ClusterError(
            f"the Dask scheduler at {self._cluster.asked_for} has gone: start it and its workers, then run this again; "
            "what is finished is kept"
        )


def cluster_windows(
    cluster: Cluster, model_path: Path, options: SegmentOptions
) -> Callable[[Scene, list[Window], Predictor, np.ndarray, Callable[[], bool]], ClusterWindows]:
    """What `segment_scene` takes as its `source` to have a scene predicted on a cluster.

    Args:
        model_path: of the predictor that `segment_scene` gets. Its content goes to every worker.
        options: that `segment_scene` gets.

    Raises:
        OptionError: the size of the windows is left to the memory of one machine.
        ModelFileError: the file cannot be read any more.
    """
    if options.window_px == "auto":
        raise OptionError("window 'auto' is for the memory of one machine: with a cluster, give a number of pixels")
    try:
        model = model_path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"the model file {model_path} cannot be read: {error}") from error

    def source(
        scene: Scene,
        windows: list[Window],
        predictor: Predictor,
        least_scores: np.ndarray,
        cancelled: Callable[[], bool],
    ) -> ClusterWindows:
        window_px, overlap_px = options.tiling(predictor)
        job = Job(
            run=uuid.uuid4().hex,
            version=rs4d_core.__version__,
            # Workers have a folder of their own to be in.
            scene=os.path.abspath(scene.path) if os.path.exists(scene.path) else str(scene.path),
            shown=shown_by(scene),
            options=replace(options, window_px=window_px, overlap_px=overlap_px),
            least_scores=least_scores,
            model=model,
            sha256=predictor.sha256,
            device=cluster.wanted_device,
        )
        return ClusterWindows(cluster, job, windows, cancelled)

    return source
