"""The last steps of a mask on the CPU and without gradients, in one pass over what takes the most memory of all."""

import numpy as np
import torch
from torch import Tensor

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of
from rs4d_core.ops.lanes import LANES, everywhere, largest, load, sum_of

_DTYPES = (torch.float32, torch.bfloat16)
_ZERO = np.float32(0)


def can_draw(device: str, dtype: torch.dtype, channels: int) -> bool:
    """Whether `drawn_masks` takes such pixels now."""
    return device == "cpu" and dtype in _DTYPES and channels % LANES == 0 and not torch.is_grad_enabled()


@compiled()
def _draw(pixels, bias, weights, rows, columns, channels, logits, start, stop):
    """Regions `start..stop`; all arrays are flat."""
    for region in range(start, stop):
        own = region * channels
        for y in range(rows):
            for x in range(columns):
                first = ((region * rows + y) * columns + x) * 4 * channels
                for part in range(4):
                    total = everywhere(_ZERO)
                    for c in range(0, channels, LANES):
                        value = load(pixels, first + part * channels + c) + load(bias, c)
                        total = total + largest(value, everywhere(_ZERO)) * load(weights, own + c)
                    row = region * 2 * rows + 2 * y + part // 2
                    logits[row * 2 * columns + 2 * x + part % 2] = sum_of(total)


def drawn_masks(pixels: Tensor, bias: Tensor, weights: Tensor) -> Tensor:
    """The masks of K regions from what each of their pixels becomes: `relu(pixel + bias) . weights`.

    Args:
        pixels: `(K, H, W, 2, 2, C)`, the four of each pixel, rows before columns; float32 or bfloat16, C a multiple of
            `LANES`.
        bias: `(C,)`.
        weights: `(K, C)`, each region's own.

    Returns:
        `(K, 2 H, 2 W)` float32.
    """
    count, rows, columns, _, _, channels = pixels.shape
    logits = torch.empty(count, 2 * rows, 2 * columns)
    tensors = pixels.contiguous(), bias.float(), weights.float().contiguous()
    arrays = [array_of(tensor).reshape(-1) for tensor in tensors]
    into = array_of(logits).reshape(-1)
    run_spans(lambda start, stop: _draw(*arrays, rows, columns, channels, into, start, stop), count)
    return logits
