"""What a model sees in the windows of a scene: read, predicted and handed on in order, all at the same time."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import wait as wait_for
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rs4d_core.errors import OptionError
from rs4d_core.models.config import SIZE_DIVISOR
from rs4d_core.models.instances import Instances
from rs4d_core.models.segmenter import PIXEL_MEAN
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

# A cancelled run may leave a prediction behind that is still computing. The next run of the process waits for it, since
# neither a GPU's memory nor numba's threads are made for two.
MODEL = threading.Lock()


class Predictor(Protocol):
    """A model as the pipeline uses it; `models.checkpoint.LoadedModel` is one.

    Attributes:
        name, sha256: which model it is.
        classes, colors: names and "#rrggbb", in the order of the labels.
        resolution_m: smallest and largest ground size of a pixel, in metres.
        window_px, overlap_px: how scenes are cut unless asked otherwise.
        bytes_a_pixel: memory that a prediction takes for each pixel, at most.
        default_scores: the score below which an instance of a class is not shown unless asked otherwise.
        device: where it computes, as torch names it.
    """

    name: str
    sha256: str
    classes: tuple[str, ...]
    colors: tuple[str, ...]
    resolution_m: tuple[float, float]
    window_px: int
    overlap_px: int
    bytes_a_pixel: float
    default_scores: tuple[float, ...]
    device: str

    def predict(self, images: Tensor, least_scores: Tensor) -> list[Instances]:
        """The instances in each of `images (B, 3, H, W)`, float32 0..255 on the CPU, H and W multiples of 32.

        Those whose score is below that of their class in `least_scores (classes,)` may be left out: nobody wants them.
        """


@dataclass(frozen=True)
class Seen:
    """What was found in the window with this index; `valid (h, w)` bool is False where the scene has no data.

    `instances` is None where the window has no data at all, and was not predicted.
    """

    index: int
    instances: Instances | None
    valid: np.ndarray


class ScenePredictions:
    """The predictions for the windows of a scene, in their order.

    Reading the next windows, predicting, and what the caller does with the last ones go on side by side; a bounded
    number of windows is held. `cancelled` is asked all the time; once it says so, the batch in hand is given
    `GRACE_S` seconds, and the iteration ends.

    Args:
        windows: all of one size.
        least_scores: `(classes,)`, what an instance of each class needs to be of use.

    Attributes:
        batch: so many windows are predicted at a time.
        model_seconds: time spent in the predictor so far.
        interrupted: the iteration ended because it was cancelled.
    """

    def __init__(
        self,
        scene: Scene,
        windows: list[Window],
        predictor: Predictor,
        least_scores: np.ndarray,
        cancelled: Callable[[], bool],
    ) -> None:
        self.model_seconds = 0.0
        self.interrupted = False
        self._scene = scene
        self._windows = windows
        self._predictor = predictor
        self._least_scores = torch.from_numpy(least_scores)
        self._cancelled = cancelled
        self.batch = _batch(windows[0], predictor.device)

    def __iter__(self) -> Iterator[Seen]:
        """Predictions for the windows, one by one.

        Raises:
            SceneError: the scene is damaged.
            OptionError: a window does not fit into memory.
        """
        reader, model = Worker("rs4d-reader"), Worker("rs4d-model")
        pending: deque[tuple[Future, Future]] = deque()
        try:
            for start in range(0, len(self._windows), self.batch):
                read = reader.submit(self._read, range(start, min(start + self.batch, len(self._windows))))
                pending.append((read, model.submit(self._predict, read)))
                if len(pending) > AHEAD:
                    yield from self._wait(pending.popleft()[1])
                if self.interrupted:
                    return
            while pending and not self.interrupted:
                yield from self._wait(pending.popleft()[1])
        finally:
            for futures in pending:
                for future in futures:
                    future.cancel()
            # The scene may be closed next: nobody must be reading it. The model may go on by itself.
            reader.close(wait=True)
            model.close(wait=False)

    def _wait(self, future: Future) -> list[Seen]:
        """The result of a batch; nothing if the run is cancelled and the batch takes too long."""
        while not self._cancelled():
            if wait_for([future], timeout=_POLL_S).done:
                return future.result()
        self.interrupted = True
        return future.result() if wait_for([future], timeout=GRACE_S).done else []

    def _read(self, indices: range) -> list[tuple[int, np.ndarray, np.ndarray]]:
        return [(index, *self._scene.read(self._windows[index])) for index in indices]

    def _predict(self, read: Future) -> list[Seen]:
        batch = read.result()
        images = padded([(image, valid) for _, image, valid in batch if valid.any()])
        with MODEL:
            if self.interrupted:
                return []
            started = time.perf_counter()
            found = iter(_predict_in_memory(self._predictor, images, self._least_scores) if len(images) else ())
            self.model_seconds += time.perf_counter() - started
        return [Seen(index, next(found) if valid.any() else None, valid) for index, _, valid in batch]


def _batch(window: Window, device: str) -> int:
    """How many windows of this size are predicted at a time."""
    if device != "cpu":
        return GPU_BATCH
    return min(max(CPU_BATCH_PX // (window.width * window.height), 1), CPU_BATCH)


def padded(images: list[tuple[np.ndarray, np.ndarray]]) -> Tensor:
    """Images `(3, h, w)` of one size, with their valid pixels, on blank ground `(B, 3, H, W)`: multiples of 32."""
    if not images:
        return torch.empty(0)
    h, w = images[0][1].shape
    height, width = (-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in (h, w))
    padded = torch.tensor(PIXEL_MEAN)[:, None, None].repeat(len(images), 1, height, width)
    for number, (image, valid) in enumerate(images):
        np.copyto(padded[number, :, :h, :w].numpy(), image, where=valid)
    return padded


def _predict_in_memory(predictor: Predictor, images: Tensor, least_scores: Tensor) -> list[Instances]:
    """Predictions for a batch, in halves where it does not fit into memory as a whole."""
    try:
        return predictor.predict(images, least_scores)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        if len(images) == 1:
            raise too_large(images, predictor.device) from error
    # Outside of the handler, whose traceback holds on to the memory that is needed now.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(images) // 2
    return [
        instances
        for part in (images[:half], images[half:])
        for instances in _predict_in_memory(predictor, part, least_scores)
    ]


def too_large(images: Tensor, device: str) -> OptionError:
    """What to tell the user when `images (B, 3, H, W)` do not fit into memory."""
    height, width = images.shape[-2:]
    return OptionError(
        f"a window of {width} x {height} px does not fit into the memory of {device}: choose a smaller window"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises when memory runs out."""
    # torch has a class for this on GPUs only.
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
