"""A model as scenes use it, and what memory allows it."""

import threading
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rs4d_core.errors import OptionError
from rs4d_core.models.config import PIXEL_MEAN, SIZE_DIVISOR
from rs4d_core.models.instances import Instances

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


def predict_in_memory(predictor: Predictor, images: Tensor, least_scores: Tensor) -> list[Instances | None]:
    """Predictions for a batch, in halves where memory does not hold it as a whole; None for an image it cannot hold."""
    try:
        return predictor.predict(images, least_scores)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
    # Outside of the handler, whose traceback holds on to the memory that is needed now.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if len(images) == 1:
        return [None]
    half = len(images) // 2
    return [
        instances
        for part in (images[:half], images[half:])
        for instances in predict_in_memory(predictor, part, least_scores)
    ]


def too_large(width: int, height: int, device: str) -> OptionError:
    """What to tell the user when a window does not fit into memory."""
    return OptionError(
        f"a window of {width} x {height} px does not fit into the memory of {device}: choose a smaller window"
    )


def out_of_memory(error: Exception) -> bool:
    """Whether this is what torch raises when memory runs out."""
    # torch has a class for this on GPUs only.
    return isinstance(error, MemoryError | torch.cuda.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
