"""RoIAlign on the CPU: compiled forward and backward, channels last.

Channels last makes every bilinear sample a sum of four contiguous rows of C numbers. bfloat16 maps are read as they
are: only the cells that boxes touch become float32, not the whole map.
"""

import llvmlite.ir
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor
from torch.autograd.function import once_differentiable

from rs4d_core.ops.compiled import compiled, run_spans

# Channels that one task of the backward pass writes.
BLOCK = 64

_FLOAT = np.float32


@intrinsic
def _number(typingctx, stored):
    """A float32 as it is; an int16 as the bfloat16 that has its bits."""

    def codegen(context, builder, signature, arguments):
        if signature.args[0] == types.float32:
            return arguments[0]
        bits = builder.shl(builder.zext(arguments[0], llvmlite.ir.IntType(32)), llvmlite.ir.IntType(32)(16))
        return builder.bitcast(bits, llvmlite.ir.FloatType())

    return types.float32(stored), codegen


@compiled()
def _sample_axis(start, end, cells, samples, size, low, high, weight_low, weight_high):
    """The bilinear neighbours of the `cells * samples` sample points between `start` and `end` along an axis of `size`.

    Point i lies between cells `low[i]` and `high[i]`, which have the weights of the same index; both 0 outside the map.
    """
    spacing = (end - start) / _FLOAT(cells * samples)
    for i in range(cells * samples):
        position = start + (_FLOAT(i) + _FLOAT(0.5)) * spacing
        inside = _FLOAT(1) if -1 <= position <= size else _FLOAT(0)
        position = min(max(position, _FLOAT(0)), _FLOAT(size - 1))
        # A position that is not a number passes both comparisons above; no index may be made of it.
        low[i] = int(position) if position >= 0 else 0
        high[i] = min(low[i] + 1, size - 1)
        part = position - _FLOAT(low[i])
        weight_low[i] = (_FLOAT(1) - part) * inside
        weight_high[i] = part * inside


@compiled()
def _samples(start, end, cells, sampling_ratio):
    """Samples a cell along an axis."""
    if sampling_ratio > 0:
        return sampling_ratio
    return max(int(np.ceil((end - start) / _FLOAT(cells))), 0)


@compiled(fastmath={"contract", "nsz"})
def _forward(features, boxes_xyxy, batch_index, sampling_ratio, pooled, start, stop):
    """Boxes `start..stop`: `features (B, H, W, C)`, `pooled (K, S, S, C)`."""
    _, height, width, channels = features.shape
    cells = pooled.shape[1]
    for box in range(start, stop):
        x0, y0, x1, y1 = boxes_xyxy[box]
        down, across = _samples(y0, y1, cells, sampling_ratio), _samples(x0, x1, cells, sampling_ratio)
        top, bottom = np.empty(cells * down, np.int64), np.empty(cells * down, np.int64)
        weight_top, weight_bottom = np.empty(cells * down, _FLOAT), np.empty(cells * down, _FLOAT)
        left, right = np.empty(cells * across, np.int64), np.empty(cells * across, np.int64)
        weight_left, weight_right = np.empty(cells * across, _FLOAT), np.empty(cells * across, _FLOAT)
        _sample_axis(y0, y1, cells, down, height, top, bottom, weight_top, weight_bottom)
        _sample_axis(x0, x1, cells, across, width, left, right, weight_left, weight_right)
        values = features[batch_index[box]]
        share = _FLOAT(1) / _FLOAT(max(down * across, 1))
        for row in range(cells):
            for col in range(cells):
                cell = pooled[box, row, col]
                cell[:] = _FLOAT(0)
                for i in range(row * down, (row + 1) * down):
                    for j in range(col * across, (col + 1) * across):
                        top_left, top_right = values[top[i], left[j]], values[top[i], right[j]]
                        bottom_left, bottom_right = values[bottom[i], left[j]], values[bottom[i], right[j]]
                        weight_0 = weight_top[i] * weight_left[j] * share
                        weight_1 = weight_top[i] * weight_right[j] * share
                        weight_2 = weight_bottom[i] * weight_left[j] * share
                        weight_3 = weight_bottom[i] * weight_right[j] * share
                        for c in range(channels):
                            cell[c] += (
                                weight_0 * _number(top_left[c])
                                + weight_1 * _number(top_right[c])
                                + weight_2 * _number(bottom_left[c])
                                + weight_3 * _number(bottom_right[c])
                            )


@compiled(fastmath={"contract", "nsz"})
def _backward(grad_pooled, boxes_xyxy, batch_index, sampling_ratio, grad_features, start, stop):
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
            down, across = _samples(y0, y1, cells, sampling_ratio), _samples(x0, x1, cells, sampling_ratio)
            top, bottom = np.empty(cells * down, np.int64), np.empty(cells * down, np.int64)
            weight_top, weight_bottom = np.empty(cells * down, _FLOAT), np.empty(cells * down, _FLOAT)
            left, right = np.empty(cells * across, np.int64), np.empty(cells * across, np.int64)
            weight_left, weight_right = np.empty(cells * across, _FLOAT), np.empty(cells * across, _FLOAT)
            _sample_axis(y0, y1, cells, down, height, top, bottom, weight_top, weight_bottom)
            _sample_axis(x0, x1, cells, across, width, left, right, weight_left, weight_right)
            share = _FLOAT(1) / _FLOAT(max(down * across, 1))
            for i in range(cells * down):
                for j in range(cells * across):
                    cell = grad_pooled[box, i // down, j // across, first:last]
                    _add(grad[top[i], left[j], first:last], cell, weight_top[i] * weight_left[j] * share)
                    _add(grad[top[i], right[j], first:last], cell, weight_top[i] * weight_right[j] * share)
                    _add(grad[bottom[i], left[j], first:last], cell, weight_bottom[i] * weight_left[j] * share)
                    _add(grad[bottom[i], right[j], first:last], cell, weight_bottom[i] * weight_right[j] * share)


@compiled(fastmath={"contract", "nsz"})
def _add(target, source, weight):
    """`target += weight * source`."""
    for c in range(len(target)):
        target[c] += weight * source[c]


class _RoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, boxes_xyxy, batch_index, output_size, sampling_ratio):
        ctx.save_for_backward(boxes_xyxy, batch_index)
        ctx.shape, ctx.dtype, ctx.sampling_ratio = features.shape, features.dtype, sampling_ratio
        stored = _channels_last(features)
        stored = stored.view(torch.int16).numpy() if stored.dtype == torch.bfloat16 else stored.numpy()
        pooled = torch.empty(len(boxes_xyxy), output_size, output_size, features.shape[1])
        inputs = stored, boxes_xyxy.numpy(), batch_index.numpy(), sampling_ratio, pooled.numpy()
        run_spans(lambda start, stop: _forward(*inputs, start, stop), len(boxes_xyxy))
        return pooled.permute(0, 3, 1, 2).to(features.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_pooled):
        boxes_xyxy, batch_index = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        grad_features = torch.zeros(batch, height, width, channels)
        inputs = (
            _channels_last(grad_pooled.float()).numpy(),
            boxes_xyxy.numpy(),
            batch_index.numpy(),
            ctx.sampling_ratio,
            grad_features.numpy(),
        )
        run_spans(lambda start, stop: _backward(*inputs, start, stop), batch * -(-channels // BLOCK))
        return grad_features.permute(0, 3, 1, 2).to(ctx.dtype), None, None, None, None


def roi_align_numba(
    features: Tensor, boxes_xyxy: Tensor, batch_index: Tensor, output_size: int, sampling_ratio: int
) -> Tensor:
    """RoIAlign (see `roi_align`) of float32 or bfloat16 `features (B, C, H, W)` on the CPU.

    `boxes_xyxy (K, 4)` float32 in feature cells, cell centres at whole numbers; `batch_index (K,)` int64.
    """
    boxes_xyxy, batch_index = boxes_xyxy.cpu().contiguous(), batch_index.cpu().contiguous()
    return _RoIAlign.apply(features, boxes_xyxy, batch_index, output_size, sampling_ratio)


def _channels_last(tensor: Tensor) -> Tensor:
    return tensor.detach().permute(0, 2, 3, 1).contiguous()
