"""RoIAlign on the CPU: compiled forward and backward, channels last.

Channels last makes every bilinear sample a sum of four contiguous rows of C numbers. bfloat16 maps are read as they
are: only the cells that boxes touch become float32, not the whole map.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of, number, rounded_like
from rs4d_core.ops.lanes import LANES, everywhere, load, store

MOST_LEVELS = 4
# Channels that one task of the backward pass writes.
BLOCK = 128

_FLOAT = np.float32
_ZERO = _FLOAT(0)


@compiled(forceinline=True)
def _point(i, start, end, points, size):
    """The cells on both sides of the i-th of `points` sample points between `start` and `end` on an axis of `size`, and
    the weights that their values count with: both 0 where the point is outside the map.
    """
    position = start + (_FLOAT(i) + _FLOAT(0.5)) * ((end - start) / _FLOAT(points))
    inside = _FLOAT(1) if -1 <= position <= size else _FLOAT(0)
    position = min(max(position, _FLOAT(0)), _FLOAT(size - 1))
    low = int(position)
    part = position - _FLOAT(low)
    return low, min(low + 1, size - 1), (_FLOAT(1) - part) * inside, part * inside


@compiled()
def _neighbours(start, end, points, size):
    """What `_point` says of all of them, an array each."""
    low, high = np.empty(points, np.int64), np.empty(points, np.int64)
    weight_low, weight_high = np.empty(points, _FLOAT), np.empty(points, _FLOAT)
    for i in range(points):
        low[i], high[i], weight_low[i], weight_high[i] = _point(i, start, end, points, size)
    return low, high, weight_low, weight_high


@compiled()
def _taps(start, end, cells, samples, size, scale, ends, taken, weights):
    """What each of the `cells` between `start` and `end` takes from an axis of `size`, all its `samples` together.

    Cell i is the sum of the features `taken[ends[i]]` to before `taken[ends[i + 1]]`, each times its weight, in which
    `scale` is. Returns the range of the features.
    """
    count, first, stop = 0, size, 0
    for cell in range(cells):
        begin = count
        ends[cell] = begin
        for sample in range(samples):
            low, high, weight_low, weight_high = _point(cell * samples + sample, start, end, cells * samples, size)
            for feature, weight in ((low, weight_low * scale), (high, weight_high * scale)):
                if not weight:
                    continue
                first, stop = min(first, feature), max(stop, feature + 1)
                at = count
                # Points come in order: what they share are the last two features.
                while at > begin and taken[at - 1] > feature:
                    at -= 1
                if at > begin and taken[at - 1] == feature:
                    weights[at - 1] += weight
                else:
                    taken[count], weights[count] = feature, weight
                    count += 1
    ends[cells] = count
    return first, stop


@compiled(fastmath={"contract", "nsz"}, forceinline=True)
def _sum(source, at, offsets, weights, begin, end, target, to, channels):
    """Write to `target[to : to + channels]` the sum, over `begin..end`, of `weights` times as much of `source` from
    `at + offsets` on. Two vectors at a time: they are independent, and share what surrounds them.
    """
    c = 0
    while c + 2 * LANES <= channels:
        first, second = everywhere(_ZERO), everywhere(_ZERO)
        for tap in range(begin, end):
            weight, place = everywhere(weights[tap]), at + offsets[tap] + c
            first = first + weight * load(source, place)
            second = second + weight * load(source, place + LANES)
        store(target, to + c, first)
        store(target, to + c + LANES, second)
        c += 2 * LANES
    if c + LANES <= channels:
        first = everywhere(_ZERO)
        for tap in range(begin, end):
            first = first + everywhere(weights[tap]) * load(source, at + offsets[tap] + c)
        store(target, to + c, first)
        c += LANES
    for rest in range(c, channels):
        total = _ZERO
        for tap in range(begin, end):
            total += weights[tap] * number(source[at + offsets[tap] + rest])
        target[to + rest] = rounded_like(total, target[to + rest])


@compiled()
def _forward(levels, sizes, level_of, boxes_xyxy, batch_index, samples, most, pooled, cells, channels, start, stop):
    """Boxes `start..stop`: flat `levels (B, H, W, C)` of `sizes (4, 2)`, at `most` samples, flat `pooled (K, S, S, C)`.

    The weight of a sample is one across times one down. So the rows that a row of cells reads are summed first, over
    the columns that the box covers, and then the columns of this one line: fewer sums than one for each sample.
    """
    line = np.empty(sizes[:, 1].max() * channels, _FLOAT)
    taps = 2 * cells * most
    ends_y, rows, weights_y = np.empty(cells + 1, np.int64), np.empty(taps, np.int64), np.empty(taps, _FLOAT)
    ends_x, columns, weights_x = np.empty(cells + 1, np.int64), np.empty(taps, np.int64), np.empty(taps, _FLOAT)
    for box in range(start, stop):
        values = levels[level_of[box]]
        height, width = sizes[level_of[box]]
        x0, y0, x1, y1 = boxes_xyxy[box]
        across, down = samples[box]
        share = _FLOAT(1) / _FLOAT(max(down * across, 1))
        _taps(y0, y1, cells, down, height, share, ends_y, rows, weights_y)
        first, last = _taps(x0, x1, cells, across, width, _FLOAT(1), ends_x, columns, weights_x)
        rows[: ends_y[cells]] *= width * channels
        columns[: ends_x[cells]] *= channels
        image = batch_index[box] * height * width * channels
        for row in range(cells):
            for at in range(first * channels, last * channels, channels):
                _sum(values, image + at, rows, weights_y, ends_y[row], ends_y[row + 1], line, at, channels)
            for column in range(cells):
                to = ((box * cells + row) * cells + column) * channels
                _sum(line, 0, columns, weights_x, ends_x[column], ends_x[column + 1], pooled, to, channels)


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
    def forward(ctx, boxes_xyxy, batch_index, samples, level_of, output_size, *levels):
        ctx.save_for_backward(boxes_xyxy, batch_index, samples, level_of)
        ctx.shapes, ctx.dtype = [level.shape for level in levels], levels[0].dtype
        channels = levels[0].shape[1]
        pooled = torch.empty(len(boxes_xyxy), output_size, output_size, channels, dtype=ctx.dtype)
        # Always as many levels, so that one kernel is compiled.
        maps = tuple(array_of(_channels_last(level)).reshape(-1) for level in levels)
        maps += maps[-1:] * (MOST_LEVELS - len(maps))
        sizes = np.array([level.shape[2:] for level in levels])
        boxes = [array_of(tensor) for tensor in (level_of, boxes_xyxy, batch_index, samples)]
        most = int(samples.max()) if len(samples) else 0
        into = array_of(pooled).reshape(-1)
        run_spans(
            lambda start, stop: _forward(maps, sizes, *boxes, most, into, output_size, channels, start, stop),
            len(boxes_xyxy),
        )
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        *positions, level_of = ctx.saved_tensors
        grad_pooled = _channels_last(grad_pooled.float())
        grads = []
        for level, (batch, channels, height, width) in enumerate(ctx.shapes):
            mine = torch.nonzero(level_of == level).squeeze(1)
            grad = torch.zeros(batch, height, width, channels)
            arrays = [array_of(tensor[mine]) for tensor in (grad_pooled, *positions)] + [array_of(grad)]
            _run_backward(arrays, batch * -(-channels // BLOCK))
            grads.append(grad.permute(0, 3, 1, 2).to(ctx.dtype))
        return None, None, None, None, None, *grads


def _run_backward(arrays: list[np.ndarray], tasks: int) -> None:
    run_spans(lambda start, stop: _backward(*arrays, start, stop), tasks)


def roi_align_numba(
    levels: Sequence[Tensor],
    level_of: Tensor,
    boxes_xyxy: Tensor,
    batch_index: Tensor,
    samples: Tensor,
    output_size: int,
) -> Tensor:
    """RoIAlign (see `roi_align`) of float32 or bfloat16 maps `(B, C, H, W)`, up to `MOST_LEVELS`, on the CPU.

    `level_of (K,)` int64, the map that each box reads; `boxes_xyxy (K, 4)` float32 in feature cells of that map, cell
    centres at whole numbers; `batch_index (K,)` int64; `samples (K, 2)` int64, across and down.
    """
    positions = (tensor.cpu().contiguous() for tensor in (boxes_xyxy, batch_index, samples, level_of))
    return _RoIAlign.apply(*positions, output_size, *levels)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.detach().permute(0, 2, 3, 1).contiguous()
