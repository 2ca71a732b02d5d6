"""The windows of a scene, predicted in this process: read, predicted and handed on in order, all at the same time."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass

import numpy as np
import torch

from rs4d_core.models.instances import Instances
from rs4d_core.scenes.detections import WindowDetections
from rs4d_core.scenes.polygonize import polygonize
from rs4d_core.scenes.prediction import MODEL, Predictor, padded, predict_in_memory
from rs4d_core.scenes.reader import Scene
from rs4d_core.scenes.windows import Window
from rs4d_core.scenes.worker import Worker

GPU_BATCH = 8
# On a CPU a window of 1024 px keeps all threads busy. Of smaller ones several go together, up to so many pixels: what
# it takes to share the work out among the threads is then paid once. Four windows of 384 px take half the time.
CPU_BATCH_PX = 600_000
CPU_BATCH = 4
# Batches that are being read or predicted while one is being turned into polygons.
AHEAD = 2
# How long a cancelled run waits for the batch in hand; with the writing after it, cancelling takes less than 2 s.
GRACE_S = 1.0
_POLL_S = 0.05


@dataclass(frozen=True)
class _Seen:
    """What was found in the window with this index; `valid (h, w)` bool is False where the scene has no data.

    `instances` is None where the window has no data at all, and was not predicted.
    """

    index: int
    instances: Instances | None
    valid: np.ndarray


class LocalWindows:
    """A `WindowSource`: this process and its device.

    Reading the next windows, predicting, and what the caller does with the last ones go on side by side; a bounded
    number of windows is held. `cancelled` is asked all the time; once it says so, the batch in hand is given
    `GRACE_S` seconds, and the iteration ends.

    Args:
        windows: the plan, all of one size.
        least_scores: `(classes,)`, what an instance of each class needs to be kept.
    """

    def __init__(
        self,
        scene: Scene,
        windows: list[Window],
        predictor: Predictor,
        least_scores: np.ndarray,
        cancelled: Callable[[], bool],
    ) -> None:
        self.batch = batch_of(windows[0], predictor.device)
        self.model_seconds = 0.0
        self.interrupted = False
        self._scene = scene
        self._windows = windows
        self._predictor = predictor
        self._least_scores = least_scores
        self._cancelled = cancelled

    def run(self, indices: Sequence[int]) -> Iterator[WindowDetections]:
        """See `WindowSource.run`."""
        wanted = set(indices)
        reader, model = Worker("rs4d-reader"), Worker("rs4d-model")
        pending: deque[Future] = deque()
        try:
            for number in sorted({index // self.batch for index in wanted}):
                start = number * self.batch
                read = reader.submit(self._read, range(start, min(start + self.batch, len(self._windows))))
                pending += [read, model.submit(self._predict, read)]
                if len(pending) > 2 * AHEAD:
                    yield from self._shown(pending, wanted)
                if self.interrupted:
                    return
            while pending and not self.interrupted:
                yield from self._shown(pending, wanted)
        finally:
            for future in pending:
                future.cancel()
            # The scene may be closed next: nobody must be reading it. The model may go on by itself.
            reader.close(wait=True)
            model.close(wait=False)

    def _shown(self, pending: deque[Future], wanted: set[int]) -> Iterator[WindowDetections]:
        """The next batch as polygons; nothing if the run is cancelled and the batch takes too long."""
        _, predicted = pending.popleft(), pending.popleft()
        for seen in self._wait(predicted):
            if seen.index in wanted:
                yield WindowDetections(seen.index, self._detections(seen))

    def _wait(self, future: Future) -> list[_Seen]:
        while not self._cancelled():
            if wait_for([future], timeout=_POLL_S).done:
                return future.result()
        self.interrupted = True
        return future.result() if wait_for([future], timeout=GRACE_S).done else []

    def _detections(self, seen: _Seen) -> list:
        if seen.instances is None:
            return []
        instances = _wanted(seen.instances, self._least_scores)
        return polygonize(instances, self._windows[seen.index], self._scene.width, self._scene.height, seen.valid)

    def _read(self, indices: range) -> list[tuple[int, np.ndarray, np.ndarray]]:
        return [(index, *self._scene.read(self._windows[index])) for index in indices]

    def _predict(self, read: Future) -> list[_Seen]:
        batch = read.result()
        images = padded([(image, valid) for _, image, valid in batch if valid.any()])
        with MODEL:
            if self.interrupted:
                return []
            started = time.perf_counter()
            least_scores = torch.from_numpy(self._least_scores)
            found = iter(predict_in_memory(self._predictor, images, least_scores) if len(images) else ())
            self.model_seconds += time.perf_counter() - started
        return [_Seen(index, next(found) if valid.any() else None, valid) for index, _, valid in batch]


def batch_of(window: Window, device: str) -> int:
    """How many windows of this size are predicted at a time."""
    if device != "cpu":
        return GPU_BATCH
    return min(max(CPU_BATCH_PX // (window.width * window.height), 1), CPU_BATCH)


def _wanted(instances: Instances, least_scores: np.ndarray) -> Instances:
    """The instances whose score suffices for their class."""
    keep = instances.scores.numpy() >= least_scores[instances.labels.numpy()]
    indices = np.flatnonzero(keep)
    return Instances(
        instances.boxes_xyxy[indices],
        instances.scores[indices],
        instances.labels[indices],
        [instances.masks[i] for i in indices],
    )
