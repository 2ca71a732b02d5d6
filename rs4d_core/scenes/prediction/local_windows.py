"""The windows of a scene, predicted in this process: read, predicted and handed on in order, all at the same time."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np
import torch

from rs4d_core.models.instances import Instances
from rs4d_core.scenes.prediction.parts import joined, parts_of, smaller_side
from rs4d_core.scenes.prediction.predictor import MODEL, Predictor, padded, predict_in_memory, too_large
from rs4d_core.scenes.prediction.worker import Worker
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.detections import Box, WindowDetections
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.windows.polygonize import Detection, polygonize

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
class _Read:
    """A window's pixels: image `(3, h, w)`, validity `(h, w)`, and what could not be read."""

    index: int
    image: np.ndarray
    valid: np.ndarray
    not_read: tuple[Box, ...]


@dataclass(frozen=True)
class _Seen:
    """What was found in a window: in itself, or in the parts that it was seen in.

    Attributes:
        read: the window, without its image.
        parts: the windows that were predicted.
        found: in each of them; None where it has no data, and was not predicted.
    """

    read: _Read
    parts: Sequence[Window]
    found: list[Instances | None]


class LocalWindows:
    """A `WindowSource`: this process and its device.

    Reading the next windows, predicting, and what the caller does with the last ones go on side by side; a bounded
    number of windows is held. `cancelled` is asked all the time; once it says so, the batch in hand is given
    `GRACE_S` seconds, and the iteration ends.

    Where memory does not hold a batch, it is halved; where it does not hold a window, that is seen in parts.

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
        self.notes: list[str] = []
        self._side: int | None = None  # of the parts that windows are seen in, once one did not fit into memory
        self._scene = scene
        self._windows = windows
        self._predictor = predictor
        self._least_scores = least_scores
        self._cancelled = cancelled

    def run(self, indices: Iterable[int]) -> Iterator[WindowDetections]:
        """See `WindowSource.run`."""
        reader, model = Worker("rs4d-reader"), Worker("rs4d-model")
        pending: deque[tuple[set[int], Future, Future]] = deque()
        try:
            for number, wanted in groupby(indices, lambda index: index // self.batch):
                start = number * self.batch
                read = reader.submit(self._read, range(start, min(start + self.batch, len(self._windows))))
                pending.append((set(wanted), read, model.submit(self._predict, read)))
                if len(pending) > AHEAD:
                    yield from self._shown(*pending.popleft())
                if self.interrupted:
                    return
            while pending and not self.interrupted:
                yield from self._shown(*pending.popleft())
        finally:
            for _, *futures in pending:
                for future in futures:
                    future.cancel()
            # The scene may be closed next: nobody must be reading it. The model may go on by itself.
            reader.close(wait=True)
            model.close(wait=False)

    def _shown(self, wanted: set[int], _read: Future, predicted: Future) -> Iterator[WindowDetections]:
        """A batch as polygons; nothing if the run is cancelled and the batch takes too long."""
        for seen in self._wait(predicted):
            if seen.read.index in wanted:
                yield WindowDetections(seen.read.index, self._detections(seen), seen.read.not_read)

    def _wait(self, future: Future) -> list[_Seen]:
        while not self._cancelled():
            if wait_for([future], timeout=_POLL_S).done:
                return future.result()
        self.interrupted = True
        return future.result() if wait_for([future], timeout=GRACE_S).done else []

    def _detections(self, seen: _Seen) -> list[Detection]:
        window, size = self._windows[seen.read.index], (self._scene.width, self._scene.height)
        shown = [
            polygonize(_wanted(found, self._least_scores), part, *size, _crop(seen.read.valid, part, window))
            if found is not None
            else []
            for part, found in zip(seen.parts, seen.found, strict=True)
        ]
        return shown[0] if len(shown) == 1 else joined(seen.parts, shown, window, *size)

    def _read(self, indices: range) -> list[_Read]:
        return [_Read(index, *self._scene.read_readable(self._windows[index])) for index in indices]

    def _predict(self, read: Future) -> list[_Seen]:
        batch: list[_Read] = read.result()
        with MODEL:
            if self.interrupted:
                return []
            started = time.perf_counter()
            found = iter(self._predicted([(read.image, read.valid) for read in batch if read.valid.any()]))
            seen = [self._seen(read, next(found) if read.valid.any() else None) for read in batch]
            self.model_seconds += time.perf_counter() - started
        return seen

    def _seen(self, read: _Read, found: Instances | None) -> _Seen:
        window = self._windows[read.index]
        without_image = replace(read, image=np.empty((3, 0, 0), np.float32))
        if found is not None or not read.valid.any():
            return _Seen(without_image, [window], [found])
        # It does not fit into memory, nor will the next ones: all are of one size.
        overlap_px = self._predictor.overlap_px
        self._side = self._side or smaller_side(max(window.width, window.height), overlap_px)
        while self._side is not None:
            parts = parts_of(window, self._side, min(overlap_px, self._side // 2))
            shown = [self._part(read, part, window) for part in parts]
            if None not in shown:
                self.notes = [
                    f"memory does not hold windows of {window.width} x {window.height} px: some were seen in parts of "
                    f"{self._side} px"
                ]
                return _Seen(without_image, parts, [instances for (instances,) in shown])
            self._side = smaller_side(self._side, overlap_px)
        raise too_large(window.width, window.height, self._predictor.device)

    def _part(self, read: _Read, part: Window, window: Window) -> tuple[Instances | None] | None:
        """What was found in a part of a window, if anything is there to see; None where it does not fit into memory."""
        valid = _crop(read.valid, part, window)
        if not valid.any():
            return (None,)
        (found,) = predict_in_memory(
            self._predictor, padded([(_crop(read.image, part, window), valid)]), torch.from_numpy(self._least_scores)
        )
        return None if found is None else (found,)

    def _predicted(self, images: list[tuple[np.ndarray, np.ndarray]]) -> list[Instances | None]:
        if not images or self._side is not None:
            return [None] * len(images)
        return predict_in_memory(self._predictor, padded(images), torch.from_numpy(self._least_scores))


def _crop(pixels: np.ndarray, part: Window, window: Window) -> np.ndarray:
    """Of the pixels `(..., h, w)` of a window, those of a part of it."""
    row, col = part.row - window.row, part.col - window.col
    return pixels[..., row : row + part.height, col : col + part.width]


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
