"""`bidirectional_conv_silu` on the CPU: compiled forward and backward.

One task is one sequence, in both directions, and `_GROUPS * LANES` channels: a step's neighbours are read while they
are in the first-level cache, for both directions at once. The backward pass computes the convolution anew instead of
keeping it: eight operations are cheaper than a trip to memory.
"""

import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rs4d_core.ops import lanes as vector
from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of
from rs4d_core.ops.lanes import LANES, everywhere, lanes, load, prefetch, sigmoid, store

_GROUPS = 4
# Steps to the row that is asked for in advance.
_AHEAD = 12

_ZERO, _ONE = np.float32(0), np.float32(1)


@intrinsic
def _weighted_rows(typingctx, start, weight, weight_at, weight_stride, rows, at, stride, taps):
    """`start + sum over k < taps of weight[weight_at + k weight_stride] rows[at + k stride]`, all of them `Lanes`.

    `taps` is a tuple of that length: the sum is unrolled.
    """

    def codegen(context, builder, signature, arguments):
        total, weight, weight_at, weight_stride, rows, at, stride, _ = arguments
        for _ in range(signature.args[7].count):
            factor, row = (
                vector.load_vector(builder, vector.address(context, builder, kind, array, place))
                for kind, array, place in ((signature.args[1], weight, weight_at), (signature.args[4], rows, at))
            )
            total = vector.multiply_add(builder, factor, row, total)
            weight_at, at = builder.add(weight_at, weight_stride), builder.add(at, stride)
        return total

    index = types.intp
    return lanes(lanes, weight, index, index, rows, index, index, taps), codegen


@compiled()
def _forward(u, weight, bias, y, shape, piece, directions, taps_like, start, stop):
    """Tasks `start..stop`, each a sequence in both directions and `_GROUPS * LANES` channels. All arrays are flat.

    `u (B, L, D)`, `weight (K, D)`; the channels are a multiple of `LANES`. `piece` is the first token to compute and
    their number T, `directions` a range of the two: `y (B, T, D)` for each, the second backwards. `shape` is B, L, D;
    `taps_like` is a tuple of length K.
    """
    batch, length, channels = shape
    first_token, tokens = piece
    there, back_too = directions[0] == 0, directions[1] == 2
    second = (1 - directions[0]) * batch
    taps, width = len(taps_like), _GROUPS * LANES
    blocks = (channels + width - 1) // width
    for task in range(start, stop):
        row, first = task // blocks, task % blocks * width
        last = min(first + width, channels)
        for token in range(first_token, first_token + tokens):
            center = row * length + token
            ahead = row * tokens + token - first_token
            back = (second + row) * tokens + tokens - 1 - (token - first_token)
            for channel in range(first, last, LANES):
                prefetch(u, (center + _AHEAD) * channels + channel)
                if there:
                    total = load(bias, channel)
                    at = (center - taps + 1) * channels + channel
                    if token >= taps - 1:
                        total = _weighted_rows(total, weight, channel, channels, u, at, channels, taps_like)
                    else:
                        for tap in range(taps - 1 - token, taps):
                            total = total + load(weight, tap * channels + channel) * load(u, at + tap * channels)
                    store(y, ahead * channels + channel, total * sigmoid(total))
                if back_too:
                    other = load(bias, channel)
                    at = (center + taps - 1) * channels + channel
                    if token + taps <= length:
                        other = _weighted_rows(other, weight, channel, channels, u, at, -channels, taps_like)
                    else:
                        for tap in range(taps - (length - token), taps):
                            other = other + load(weight, tap * channels + channel) * load(u, at - tap * channels)
                    store(y, back * channels + channel, other * sigmoid(other))


@compiled(forceinline=True)
def _silu_gradient(x):
    """d silu(x) / dx."""
    share = sigmoid(x)
    return share * (everywhere(_ONE) + x * (everywhere(_ONE) - share))


@compiled()
def _backward(grad_y, u, weight, bias, grad_u, grad_weight, grad_bias, shape, taps_like, start, stop):
    """Tasks `start..stop`, as in `_forward`, whose argument `grad_y` has the shape of y.

    `grad_weight (B, K, D)` and `grad_bias (B, D)` are summed over the batch by the caller.
    """
    batch, length, channels = shape
    taps, width = len(taps_like), _GROUPS * LANES
    blocks = (channels + width - 1) // width
    margin = taps - 1
    # u and the gradients of the two convolutions, in the order of the tokens, between margins of zeros.
    rows = np.zeros((length + 2 * margin) * LANES, np.float32)
    ahead = np.zeros((length + 2 * margin) * LANES, np.float32)
    back = np.zeros((length + 2 * margin) * LANES, np.float32)
    taps_here = np.empty(taps * LANES, np.float32)
    sums = np.empty((taps + 1) * LANES, np.float32)
    for task in range(start, stop):
        row, first = task // blocks, task % blocks * width
        for channel in range(first, min(first + width, channels), LANES):
            sums[:] = _ZERO
            for tap in range(taps):
                store(taps_here, tap * LANES, load(weight, tap * channels + channel))
            for token in range(length):
                store(rows, (margin + token) * LANES, load(u, (row * length + token) * channels + channel))
            for token in range(length):
                center = (margin + token) * LANES
                total = _weighted_rows(
                    load(bias, channel), taps_here, 0, LANES, rows, token * LANES, LANES, taps_like
                )  # fmt: skip
                other = _weighted_rows(
                    load(bias, channel), taps_here, 0, LANES, rows, center + margin * LANES, -LANES, taps_like
                )  # fmt: skip
                place = (row * length + token) * channels + channel
                total = load(grad_y, place) * _silu_gradient(total)
                place = ((batch + row) * length + length - 1 - token) * channels + channel
                other = load(grad_y, place) * _silu_gradient(other)
                store(ahead, center, total)
                store(back, center, other)
                for tap in range(taps):
                    seen = load(rows, (token + tap) * LANES) * total
                    seen = seen + load(rows, center + (margin - tap) * LANES) * other
                    store(sums, tap * LANES, load(sums, tap * LANES) + seen)
                store(sums, taps * LANES, load(sums, taps * LANES) + (total + other))
            for token in range(length):
                center = (margin + token) * LANES
                # A token was seen by itself and the K - 1 after it, and by the K - 1 before it on the way back.
                into = _weighted_rows(
                    everywhere(_ZERO), taps_here, margin * LANES, -LANES, ahead, center, LANES, taps_like
                )  # fmt: skip
                into = _weighted_rows(into, taps_here, 0, LANES, back, token * LANES, LANES, taps_like)
                store(grad_u, (row * length + token) * channels + channel, into)
            for tap in range(taps):
                store(grad_weight, (row * taps + tap) * channels + channel, load(sums, tap * LANES))
            store(grad_bias, row * channels + channel, load(sums, taps * LANES))


class _ConvSilu(torch.autograd.Function):
    @staticmethod
    def forward(ctx, u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(u, weight, bias)
        batch, length, channels = u.shape
        y = u.new_empty(2 * batch, length, channels)
        _run(_forward, (u, weight, bias, y), u.shape, len(weight), (0, length), (0, 2))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor):
        u, weight, bias = ctx.saved_tensors
        batch, _, channels = u.shape
        grad_u = torch.empty_like(u)
        grad_weight, grad_bias = weight.new_empty(batch, *weight.shape), bias.new_empty(batch, channels)
        tensors = (grad_y.contiguous(), u, weight, bias, grad_u, grad_weight, grad_bias)
        _run(_backward, tensors, u.shape, len(weight))
        return grad_u, grad_weight.sum(0), grad_bias.sum(0)


def _run(kernel, tensors: tuple[Tensor, ...], shape: tuple[int, int, int], taps: int, *what: tuple[int, int]) -> None:
    arrays = [array_of(tensor).reshape(-1) for tensor in tensors]
    tasks = shape[0] * -(-shape[2] // (_GROUPS * LANES))
    run_spans(lambda start, stop: kernel(*arrays, tuple(shape), *what, (0.0,) * taps, start, stop), tasks)


def conv_silu_numba(u: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See `bidirectional_conv_silu`. Computed in float32, stored in u's dtype. Differentiable once."""
    channels = u.shape[2]
    weight, bias = weight.float().T, bias.float()
    missing = -channels % LANES
    if missing:
        # Channels of zeros, for the kernels compute `LANES` of them at a time.
        u, weight, bias = (F.pad(tensor, (0, missing)) for tensor in (u, weight, bias))
    y = _ConvSilu.apply(u.contiguous(), weight.contiguous(), bias.contiguous())
    return y[..., :channels] if missing else y


class PiecewiseConv:
    """`bidirectional_conv_silu`, of the steps and the direction that are asked for; no gradients.

    `weight (D, K)` and `bias (D,)`, for D a multiple of `LANES`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight.detach().float().T.contiguous(), bias.detach().float()

    def there(self, u: Tensor, first: int, out: Tensor) -> None:
        """Write the steps `first..first + T` of `u (B, L, D)` to `out (B, T, D)`; u is read up to the last of them."""
        self._run(u, first, out, 0)

    def back(self, u: Tensor, first: int, out: Tensor) -> None:
        """As `there`, of the sequence from its last step to its first one: step `first` comes last."""
        self._run(u, first, out, 1)

    def _run(self, u: Tensor, first: int, out: Tensor, direction: int) -> None:
        piece, directions = (first, out.shape[1]), (direction, direction + 1)
        _run(_forward, (u, self._weight, self._bias, out), u.shape, len(self._weight), piece, directions)
