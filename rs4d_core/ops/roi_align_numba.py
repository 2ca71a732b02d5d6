"""RoIAlign on the CPU: compiled forward and backward, channels last.

Channels last makes every bilinear sample a sum of four contiguous rows of C numbers. bfloat16 maps are read as they
are: only the cells that boxes touch become float32, not the whole map.
"""

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of, number, rounded_like

# Channels that one task of the backward pass writes.
BLOCK = 128

_FLOAT = np.float32


@compiled()
def _neighbours(start, end, points, size):
    """The cells on both sides of each of the `points` sample points between `start` and `end` on an axis of `size`.

    Point i lies between cells `low[i]` and `high[i]`, whose values count with the weights of the same index: both 0
    where the point is outside the map.
    """
    low, high = np.empty(points, np.int64), np.empty(points, np.int64)
    weight_low, weight_high = np.empty(points, _FLOAT), np.empty(points, _FLOAT)
    for i in range(points):
        position = start + (_FLOAT(i) + _FLOAT(0.5)) * ((end - start) / _FLOAT(points))
        inside = _FLOAT(1) if -1 <= position <= size else _FLOAT(0)
        position = min(max(position, _FLOAT(0)), _FLOAT(size - 1))
        low[i] = int(position)
        high[i] = min(low[i] + 1, size - 1)
        part = position - _FLOAT(low[i])
        weight_low[i] = (_FLOAT(1) - part) * inside
        weight_high[i] = part * inside
    return low, high, weight_low, weight_high


@compiled()
def _taps(start, end, cells, samples, size):
    """What each of the `cells` between `start` and `end` takes from an axis of `size`, all its `samples` together.

    Cell i is the sum of the features from `first[i]` to before `stop[i]`, each times its weight: that of feature f is
    `weights[i, f - first[i]]`.
    """
    low, high, weight_low, weight_high = _neighbours(start, end, cells * samples, size)
    first, stop = np.zeros(cells, np.int64), np.zeros(cells, np.int64)
    widest = 0
    for i in range(cells * samples):
        cell = i // samples
        first[cell] = min(first[cell], low[i]) if i % samples else low[i]
        stop[cell] = max(stop[cell], high[i] + 1)
        widest = max(widest, stop[cell] - first[cell])
    weights = np.zeros((cells, widest), _FLOAT)
    for i in range(cells * samples):
        cell = i // samples
        weights[cell, low[i] - first[cell]] += weight_low[i]
        weights[cell, high[i] - first[cell]] += weight_high[i]
    return first, stop, weights


@compiled(fastmath={"contract", "nsz"})
def _forward(features, boxes_xyxy, batch_index, samples, pooled, start, stop):
    """Boxes `start..stop`: `features (B, H, W, C)`, `pooled (K, S, S, C)`.

    The weight of a sample is one across times one down. So the rows that a row of cells reads are summed first, over
    the columns that the box covers, and then the columns of this one line: fewer sums than one for each sample.
    """
    _, height, width, channels = features.shape
    cells = pooled.shape[1]
    line = np.empty((width, channels), _FLOAT)
    total = np.empty(channels, _FLOAT)
    for box in range(start, stop):
        x0, y0, x1, y1 = boxes_xyxy[box]
        across, down = samples[box]
        if across * down == 0:
            pooled[box] = 0
            continue
        top, bottom, weights_y = _taps(y0, y1, cells, down, height)
        left, right, weights_x = _taps(x0, x1, cells, across, width)
        weights_y *= _FLOAT(1) / _FLOAT(down * across)
        values = features[batch_index[box]]
        first, last = left.min(), right.max()
        for row in range(cells):
            line[first:last] = 0
            for y in range(top[row], bottom[row]):
                weight = weights_y[row, y - top[row]]
                if weight:
                    for x in range(first, last):
                        of_line, value = line[x], values[y, x]
                        for c in range(channels):
                            of_line[c] += weight * number(value[c])
            for col in range(cells):
                total[:] = 0
                for x in range(left[col], right[col]):
                    weight, of_line = weights_x[col, x - left[col]], line[x]
                    for c in range(channels):
                        total[c] += weight * of_line[c]
                cell = pooled[box, row, col]
                for c in range(channels):
                    cell[c] = rounded_like(total[c], cell[c])


@compiled(fastmath={"contract", "nsz"})
def _backward(grad_pooled, boxes_xyxy, batch_index, samples, grad_features, start, stop):
    """Tasks `start..stop`, each a block of channels of one map: no two write to the same place."""
    _, height, width, channels = grad_features.shape
    cells = grad_pooled.shape[1]
    blocks = (channels + BLOCK - 1) // BLOCK
    for task in range(start, stop):
        image, first = task // blocks, task % blocks * BLOCK
        last = min(first + BLOCK, channels)
        grad = grad_features[image]
        for box in range(len(boxes_xyxy)):
            if batch_index[box] != image:
                continue
            x0, y0, x1, y1 = boxes_xyxy[box]
            across, down = samples[box]
            top, bottom, weight_top, weight_bottom = _neighbours(y0, y1, cells * down, height)
            left, right, weight_left, weight_right = _neighbours(x0, x1, cells * across, width)
            share = _FLOAT(1) / _FLOAT(max(down * across, 1))
            for i in range(cells * down):
                for j in range(cells * across):
                    cell = grad_pooled[box, i // down, j // across, first:last]
                    top_left = grad[top[i], left[j], first:last]
                    top_right = grad[top[i], right[j], first:last]
                    bottom_left = grad[bottom[i], left[j], first:last]
                    bottom_right = grad[bottom[i], right[j], first:last]
                    weight_0 = weight_top[i] * weight_left[j] * share
                    weight_1 = weight_top[i] * weight_right[j] * share
                    weight_2 = weight_bottom[i] * weight_left[j] * share
                    weight_3 = weight_bottom[i] * weight_right[j] * share
                    for c in range(last - first):
                        top_left[c] += weight_0 * cell[c]
                        top_right[c] += weight_1 * cell[c]
                        bottom_left[c] += weight_2 * cell[c]
                        bottom_right[c] += weight_3 * cell[c]


class _RoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, boxes_xyxy, batch_index, samples, output_size):
        ctx.save_for_backward(boxes_xyxy, batch_index, samples)
        ctx.shape, ctx.dtype = features.shape, features.dtype
        pooled = torch.empty(len(boxes_xyxy), output_size, output_size, features.shape[1], dtype=features.dtype)
        tensors = _channels_last(features), boxes_xyxy, batch_index, samples, pooled
        arrays = [array_of(tensor) for tensor in tensors]
        run_spans(lambda start, stop: _forward(*arrays, start, stop), len(boxes_xyxy))
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        batch, channels, height, width = ctx.shape
        grad_features = torch.zeros(batch, height, width, channels)
        tensors = _channels_last(grad_pooled.float()), *ctx.saved_tensors, grad_features
        arrays = [array_of(tensor) for tensor in tensors]
        run_spans(lambda start, stop: _backward(*arrays, start, stop), batch * -(-channels // BLOCK))
        return grad_features.permute(0, 3, 1, 2).to(ctx.dtype), None, None, None, None


def roi_align_numba(
    features: Tensor, boxes_xyxy: Tensor, batch_index: Tensor, samples: Tensor, output_size: int
) -> Tensor:
    """RoIAlign (see `roi_align`) of float32 or bfloat16 `features (B, C, H, W)` on the CPU.

    `boxes_xyxy (K, 4)` float32 in feature cells, cell centres at whole numbers; `batch_index (K,)` int64;
    `samples (K, 2)` int64, across and down.
    """
    positions = (tensor.cpu().contiguous() for tensor in (boxes_xyxy, batch_index, samples))
    return _RoIAlign.apply(features, *positions, output_size)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.detach().permute(0, 2, 3, 1).contiguous()
