"""`bidirectional_conv_silu` on the CPU: compiled forward and backward.

One task is one sequence, in one or in both directions, and one block of `LANES` channels, whose last K rows stay in the
first-level cache. The backward pass computes the convolution anew instead of keeping it: eight operations are cheaper
than a trip to memory.
"""

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import LOG2_E, array_of, exp2, number, rounded_like

LANES = 64

_FLOAT = np.float32


@compiled(fastmath={"contract", "nsz"}, forceinline=True)
def _sigmoid(x):
    power = exp2(-abs(x) * LOG2_E)
    return (_FLOAT(1) if x >= _FLOAT(0) else power) / (_FLOAT(1) + power)


@compiled(fastmath={"contract", "nsz"})
def _forward(u, weight, bias, y, start, stop):
    """Tasks `start..stop`; `y (2B, L, D)`, its second half backwards."""
    batch, length, channels = u.shape
    taps = weight.shape[0]
    blocks = (channels + LANES - 1) // LANES
    total = np.empty(LANES, np.float32)
    for task in range(start, stop):
        row, first = task // blocks, task % blocks * LANES
        last = min(first + LANES, channels)
        backwards = row >= batch
        source = row - batch if backwards else row
        for t in range(length):
            total[: last - first] = bias[first:last]
            for tap in range(max(0, taps - 1 - t), taps):
                at = t - (taps - 1) + tap
                u_row = u[source, length - 1 - at if backwards else at, first:last]
                w = weight[tap, first:last]
                for lane in range(last - first):
                    total[lane] += w[lane] * number(u_row[lane])
            y_row = y[row, t, first:last]
            for lane in range(last - first):
                y_row[lane] = rounded_like(total[lane] * _sigmoid(total[lane]), y_row[lane])


@compiled(fastmath={"contract", "nsz"})
def _backward(grad_y, u, weight, bias, grad_u, grad_weight, grad_bias, start, stop):
    """Tasks `start..stop`, each both directions of a sequence: they add to the same `grad_u (B, L, D)`.

    `grad_weight (B, K, D)` and `grad_bias (B, D)` are summed over the batch by the caller.
    """
    batch, length, channels = u.shape
    taps = weight.shape[0]
    blocks = (channels + LANES - 1) // LANES
    total = np.empty(LANES, np.float32)
    # Gradients of the convolution at the last K steps, in a ring; and of u, until both directions are in.
    recent = np.empty((taps, LANES), np.float32)
    gathered = np.empty((length, LANES), np.float32)
    weight_sum = np.empty((taps, LANES), np.float32)
    bias_sum = np.empty(LANES, np.float32)
    for task in range(start, stop):
        source, first = task // blocks, task % blocks * LANES
        last = min(first + LANES, channels)
        width = last - first
        gathered[:] = _FLOAT(0)
        weight_sum[:] = _FLOAT(0)
        bias_sum[:] = _FLOAT(0)
        for direction in range(2):
            recent[:] = _FLOAT(0)
            for t in range(length - 1, -1, -1):
                total[:width] = bias[first:last]
                for tap in range(max(0, taps - 1 - t), taps):
                    at = t - (taps - 1) + tap
                    u_row = u[source, length - 1 - at if direction else at, first:last]
                    w = weight[tap, first:last]
                    for lane in range(width):
                        total[lane] += w[lane] * number(u_row[lane])
                grad_row = grad_y[source + direction * batch, t, first:last]
                now = recent[t % taps]
                for lane in range(width):
                    share = _sigmoid(total[lane])
                    grad = number(grad_row[lane]) * share * (_FLOAT(1) + total[lane] * (_FLOAT(1) - share))
                    now[lane] = grad
                    bias_sum[lane] += grad
                for tap in range(max(0, taps - 1 - t), taps):
                    at = t - (taps - 1) + tap
                    u_row = u[source, length - 1 - at if direction else at, first:last]
                    sums = weight_sum[tap]
                    for lane in range(width):
                        sums[lane] += now[lane] * number(u_row[lane])
                # Step t was seen by the steps t to t + K - 1, all of which are in the ring.
                into = gathered[length - 1 - t if direction else t]
                for tap in range(taps):
                    later, w = recent[(t + taps - 1 - tap) % taps], weight[tap, first:last]
                    for lane in range(width):
                        into[lane] += w[lane] * later[lane]
        for t in range(length):
            grad_u_row = grad_u[source, t, first:last]
            for lane in range(width):
                grad_u_row[lane] = rounded_like(gathered[t, lane], grad_u_row[lane])
        for lane in range(width):
            grad_bias[source, first + lane] = bias_sum[lane]
            for tap in range(taps):
                grad_weight[source, tap, first + lane] = weight_sum[tap, lane]


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(u, weight, bias)
        batch, length, channels = u.shape
        y = u.new_empty(2 * batch, length, channels)
        arrays = [array_of(tensor) for tensor in (u, weight, bias, y)]
        run_spans(lambda start, stop: _forward(*arrays, start, stop), 2 * batch * -(-channels // LANES))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor):
        u, weight, bias = ctx.saved_tensors
        batch, _, channels = u.shape
        grad_u = torch.empty_like(u)
        grad_weight, grad_bias = weight.new_empty(batch, *weight.shape), bias.new_empty(batch, channels)
        arrays = [array_of(tensor) for tensor in (grad_y.contiguous(), u, weight, bias, grad_u, grad_weight, grad_bias)]
        run_spans(lambda start, stop: _backward(*arrays, start, stop), batch * -(-channels // LANES))
        return grad_u, grad_weight.sum(0), grad_bias.sum(0)


def conv_silu_numba(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `bidirectional_conv_silu`. Computed in float32, stored in u's dtype. Differentiable once."""
    return _ConvSilu.apply(u.contiguous(), weight.float().T.contiguous(), bias.float().contiguous())
