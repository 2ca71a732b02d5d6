"""`bidirectional_scan` on a CUDA GPU, in Triton: compiled forward and backward.

The sequence is cut into chunks, and all chunks of all channels work at once, in three passes:

1. each chunk finds the state that it would leave behind if it began with none;
2. one walk along the chunks turns these into the state at the start of every chunk;
3. each chunk computes its states from there (an associative scan inside the chunk), and from both directions' states
   its part of the output: skip, mean and gate never go through memory by themselves.

The backward pass does the same with the gradient of the state, which runs against the states, and recomputes those from
the start of each chunk. So memory is that of the arguments and of `L / CHUNK` states.

Exponents are summed before they are raised, and all are negative: nothing overflows.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

CHUNK = 64
CHANNELS = 32
_WARPS = 8
# Chunks that one walk takes at a time, and (channel, state) pairs beside each other.
_WALK = 128
_PAIRS = 16

_LOG2_E = tl.constexpr(1.4426950408889634)


def bidirectional_scan_triton(
    u: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, z: Tensor
) -> Tensor:
    """`bidirectional_scan` of tensors of float32 or half precision on one device. Differentiable once.

    Computed in float32. Every sum has a fixed order: the same input gives the same bits.
    """
    rank, states = dt_weight.shape[1], A.shape[1]
    dt, B, C = projected.split([rank, states, states], dim=-1)
    with torch.cuda.device_of(u):  # Triton launches on the current device
        return _BidirectionalScan.apply(u, F.linear(dt, dt_weight.to(dt.dtype)), dt_bias, A, B, C, D, z)


@triton.jit
def _compose(decay_a, value_a, decay_b, value_b):
    return decay_a * decay_b, value_b + decay_b * value_a


@triton.jit
def _softplus(x):
    return tl.where(x > 20.0, x, tl.log(1.0 + tl.exp(tl.minimum(x, 20.0))))


@triton.jit
def _tile(pointer, sequence, token, channel, inside, length, channels):
    """`(CHUNK, CHANNELS)` of `pointer (sequences, L, D)`, in float32; zeros outside."""
    offsets = (sequence * length + token)[:, None] * channels + channel[None, :]
    return tl.load(pointer + offsets, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _step_sizes(dt, bias, sequence, token, channel, inside, length, channels):
    """softplus(dt + bias); 0 outside, which leaves a state as it is."""
    raw = _tile(dt, sequence, token, channel, inside, length, channels)
    raw += tl.load(bias + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    return tl.where(inside, _softplus(raw), 0.0), raw


@triton.jit
def _column(pointer, sequence, token, n, length, states: tl.constexpr):
    """`(CHUNK,)`: state n of `pointer (sequences, L, N)`; zeros outside."""
    inside = (token >= 0) & (token < length)
    return tl.load(pointer + (sequence * length + token) * states + n, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _rates(a, channel, n, channels, states: tl.constexpr):
    """The exponents of base 2 a unit of step size, `(CHANNELS,)`."""
    return tl.load(a + channel * states + n, mask=channel < channels, other=0.0).to(tl.float32) * _LOG2_E


@triton.jit
def _place(length, channels, CHUNK: tl.constexpr, CHANNELS: tl.constexpr):
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    token = tl.program_id(1) * CHUNK + tl.arange(0, CHUNK)
    inside = (token < length)[:, None] & (channel < channels)[None, :]
    return channel, token, inside


@triton.jit
def _stored(token, from_last, length):
    """The row of a step: sequences of the second half of the batch are stored from their last step to their first."""
    return tl.where(from_last, length - 1 - token, token)


@triton.jit
def _kept(sequence, chunk, chunks, channel, n, channels, states: tl.constexpr):
    """Where `(sequences, chunks, D, N)` holds state n."""
    return ((sequence * chunks + chunk) * channels + channel) * states + n


@triton.jit
def _store_sums(
    value, steps, total, weights, a, sums, decays, sequence, stored, chunk, channel, length, channels, chunks,
    N: tl.constexpr,
):  # fmt: skip
    """What a chunk hands on of its own, the sum of `value (CHUNK, CHANNELS)` decayed over `steps`, and its decay."""
    for n in range(N):
        rate = _rates(a, channel, n, channels, N)
        weight = _column(weights, sequence, stored, n, length, N)
        at = _kept(sequence, chunk, chunks, channel, n, channels, N)
        decayed = tl.sum(tl.exp2(steps * rate[None, :]) * value * weight[:, None], 0)
        tl.store(sums + at, decayed, mask=channel < channels)
        tl.store(decays + at, tl.exp2(total * rate), mask=channel < channels)


@triton.jit
def _end_states(
    u, dt, bias, a, b, ends, decays, length, channels, chunks, batch,
    N: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Pass 1: what every chunk leaves behind of its own, and the decay of what it is given."""
    channel, token, inside = _place(length, channels, CHUNK, CHANNELS)
    sequence, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    stored = _stored(token, sequence >= batch, length)
    delta, _ = _step_sizes(dt, bias, sequence, stored, channel, inside, length, channels)
    inflow = delta * _tile(u, sequence, stored, channel, inside, length, channels)
    total = tl.sum(delta, 0)
    until = tl.cumsum(delta, 0)
    # From a step to the end of its chunk, in the direction that the sequence is read.
    remaining = tl.where(sequence < batch, total[None, :] - until, until - delta)
    _store_sums(
        inflow, remaining, total, b, a, ends, decays, sequence, stored, chunk, channel, length, channels, chunks, N
    )


@triton.jit
def _state_gradients(
    grad, z, dt, bias, a, c, starts, decays, length, channels, chunks, batch,
    N: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Pass 1 of the backward pass: the gradient that every chunk hands on to the state it began with."""
    channel, token, inside = _place(length, channels, CHUNK, CHANNELS)
    sequence, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    stored = _stored(token, sequence >= batch, length)
    delta, _ = _step_sizes(dt, bias, sequence, stored, channel, inside, length, channels)
    gate = _tile(z, sequence % batch, token, channel, inside, length, channels)
    outer = _tile(grad, sequence % batch, token, channel, inside, length, channels) * 0.5 * gate * tl.sigmoid(gate)
    total = tl.sum(delta, 0)
    until = tl.cumsum(delta, 0)
    since = tl.where(sequence < batch, until, total[None, :] - until + delta)
    _store_sums(
        outer, since, total, c, a, starts, decays, sequence, stored, chunk, channel, length, channels, chunks, N
    )


@triton.jit
def _walk(
    values, decays, pairs, chunks, batch, against,
    WALK: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Pass 2: turns `values (sequences, chunks, pairs)`, what each chunk adds, into what each chunk is given.

    Sequences of the first half are walked from the first chunk to the last, those of the second half from the last to
    the first; `against` is 1 for the other way round.
    """
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    sequence = tl.program_id(1).to(tl.int64)
    from_last = (sequence >= batch) != (against == 1)
    given = tl.zeros((PAIRS,), tl.float32)
    step = tl.arange(0, WALK)
    for first in range(0, chunks, WALK):
        order = first + step
        chunk = tl.where(from_last, chunks - 1 - order, order)
        inside = (order < chunks)[:, None] & (pair < pairs)[None, :]
        at = (sequence * chunks + chunk)[:, None] * pairs + pair[None, :]
        decay = tl.load(decays + at, mask=inside, other=1.0)
        value = tl.load(values + at, mask=inside, other=0.0)
        decay_so_far, value_so_far = tl.associative_scan((decay, value), 0, _compose)
        after = value_so_far + decay_so_far * given[None, :]
        # Every place is read before any is written: chunk k is given what stands after chunk k - 1.
        following = tl.where(from_last, chunk - 1, chunk + 1)
        has_following = inside & (order + 1 < chunks)[:, None]
        tl.debug_barrier()
        last = tl.sum(tl.where((step == WALK - 1)[:, None], after, 0.0), 0)
        tl.store(values + (sequence * chunks + following)[:, None] * pairs + pair[None, :], after,
                 mask=has_following & (step < WALK - 1)[:, None])  # fmt: skip
        first_chunk = tl.where(from_last, chunks - 1 - first, first)
        tl.store(values + (sequence * chunks + first_chunk) * pairs + pair, given, mask=pair < pairs)
        given = last


@triton.jit
def _states(
    n, sequence, chunk, stored, channel, delta, inflow, a, b, given, length, channels, chunks,
    N: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """State n after every step of a chunk `(CHUNK, CHANNELS)`, its rate, and what the steps added."""
    rate = _rates(a, channel, n, channels, N)
    added = inflow * _column(b, sequence, stored, n, length, N)[:, None]
    decay = tl.exp2(delta * rate[None, :])
    decay_so_far, state = tl.associative_scan((decay, added), 0, _compose, reverse=REVERSE)
    start = tl.load(given + _kept(sequence, chunk, chunks, channel, n, channels, N), mask=channel < channels, other=0.0)
    return state + decay_so_far * start[None, :], rate, added


@triton.jit
def _scanned(
    sequence, chunk, token, channel, inside, u, dt, bias, a, b, c, d, given, length, channels, chunks,
    N: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """One direction's output of a chunk, before mean and gate."""
    stored = _stored(token, REVERSE, length)
    delta, _ = _step_sizes(dt, bias, sequence, stored, channel, inside, length, channels)
    value = _tile(u, sequence, stored, channel, inside, length, channels)
    out = value * tl.load(d + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    inflow = delta * value
    for n in range(N):
        state, _, _ = _states(
            n, sequence, chunk, stored, channel, delta, inflow, a, b, given, length, channels, chunks, N, REVERSE
        )
        out += state * _column(c, sequence, stored, n, length, N)[:, None]
    return out


@triton.jit
def _outputs(
    u, dt, bias, a, b, c, d, z, given, y, length, channels, chunks, batch,
    N: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Pass 3."""
    channel, token, inside = _place(length, channels, CHUNK, CHANNELS)
    row, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    out = _scanned(
        row, chunk, token, channel, inside, u, dt, bias, a, b, c, d, given, length, channels, chunks, N, False
    )
    out += _scanned(
        row + batch, chunk, token, channel, inside, u, dt, bias, a, b, c, d, given, length, channels, chunks, N, True
    )
    gate = _tile(z, row, token, channel, inside, length, channels)
    out = 0.5 * out * gate * tl.sigmoid(gate)
    tl.store(y + (row * length + token)[:, None] * channels + channel[None, :], out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _direction_gradients(
    sequence, chunk, token, channel, inside, outer, u, dt, bias, a, b, c, d, given, given_gradient,
    grad_u, grad_dt, grad_a, grad_b, grad_c, grad_d, length, channels, chunks, sequences,
    N: tl.constexpr, REVERSE: tl.constexpr,
):  # fmt: skip
    """The gradients of one direction in one chunk, from `outer`, the gradient of its output. Returns that output."""
    stored = _stored(token, REVERSE, length)
    delta, raw = _step_sizes(dt, bias, sequence, stored, channel, inside, length, channels)
    value = _tile(u, sequence, stored, channel, inside, length, channels)
    skip = tl.load(d + channel, mask=channel < channels, other=0.0).to(tl.float32)[None, :]
    out = value * skip
    inflow = delta * value
    # The gradient of a state reaches the one before it through the decay of the step between: shifted by one step.
    later = token - 1 if REVERSE else token + 1
    first_of_chunk = chunk * token.shape[0]
    in_chunk = (later >= first_of_chunk) & (later < first_of_chunk + token.shape[0]) & (later < length)
    later_delta, _ = _step_sizes(
        dt,
        bias,
        sequence,
        _stored(later, REVERSE, length),
        channel,
        in_chunk[:, None] & (channel < channels)[None, :],
        length,
        channels,
    )
    grad_inflow = tl.zeros_like(delta)
    grad_delta = tl.zeros_like(delta)
    block = tl.program_id(0)
    in_channel = channel < channels
    for n in range(N):
        state, rate, added = _states(
            n, sequence, chunk, stored, channel, delta, inflow, a, b, given, length, channels, chunks, N, REVERSE
        )
        weight_b = _column(b, sequence, stored, n, length, N)
        weight_c = _column(c, sequence, stored, n, length, N)
        out += state * weight_c[:, None]
        decay_so_far, grad_state = tl.associative_scan(
            (tl.exp2(later_delta * rate[None, :]), outer * weight_c[:, None]), 0, _compose, reverse=not REVERSE
        )
        at = _kept(sequence, chunk, chunks, channel, n, channels, N)
        grad_state += decay_so_far * tl.load(given_gradient + at, mask=in_channel, other=0.0)[None, :]
        grad_inflow += grad_state * weight_b[:, None]
        # state - added is the decayed state before the step: the derivative of the decay without a division.
        grad_exponent = grad_state * (state - added)
        grad_delta += grad_exponent * (rate / _LOG2_E)[None, :]
        tl.store(grad_a + at, tl.sum(grad_exponent * delta, 0), mask=in_channel)
        column = ((block * sequences + sequence) * length + stored) * N + n
        tl.store(grad_b + column, tl.sum(tl.where(inside, grad_state * inflow, 0.0), 1), mask=token < length)
        tl.store(grad_c + column, tl.sum(tl.where(inside, outer * state, 0.0), 1), mask=token < length)
    offsets = (sequence * length + stored)[:, None] * channels + channel[None, :]
    tl.store(grad_u + offsets, (grad_inflow * delta + outer * skip).to(grad_u.dtype.element_ty), mask=inside)
    grad_delta = (grad_delta + grad_inflow * value) * tl.sigmoid(raw)
    tl.store(grad_dt + offsets, grad_delta.to(grad_dt.dtype.element_ty), mask=inside)
    tl.store(grad_d + (sequence * chunks + chunk) * channels + channel, tl.sum(outer * value, 0), mask=in_channel)
    return out


@triton.jit
def _gradients(
    grad, u, dt, bias, a, b, c, d, z, given, given_gradient,
    grad_u, grad_dt, grad_a, grad_b, grad_c, grad_d, grad_z, length, channels, chunks, batch,
    N: tl.constexpr, CHUNK: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Pass 3 of the backward pass."""
    channel, token, inside = _place(length, channels, CHUNK, CHANNELS)
    row, chunk = tl.program_id(2).to(tl.int64), tl.program_id(1)
    gate = _tile(z, row, token, channel, inside, length, channels)
    open_part = tl.sigmoid(gate)
    whole = _tile(grad, row, token, channel, inside, length, channels)
    outer = whole * 0.5 * gate * open_part
    out = _direction_gradients(
        row, chunk, token, channel, inside, outer, u, dt, bias, a, b, c, d, given, given_gradient,
        grad_u, grad_dt, grad_a, grad_b, grad_c, grad_d, length, channels, chunks, 2 * batch, N, False,
    )  # fmt: skip
    out += _direction_gradients(
        row + batch, chunk, token, channel, inside, outer, u, dt, bias, a, b, c, d, given, given_gradient,
        grad_u, grad_dt, grad_a, grad_b, grad_c, grad_d, length, channels, chunks, 2 * batch, N, True,
    )  # fmt: skip
    slope = open_part * (1.0 + gate * (1.0 - open_part))
    offsets = (row * length + token)[:, None] * channels + channel[None, :]
    tl.store(grad_z + offsets, (whole * 0.5 * out * slope).to(grad_z.dtype.element_ty), mask=inside)


class _BidirectionalScan(torch.autograd.Function):
    @staticmethod
    def forward(context, u, dt, bias, a, b, c, d, z):
        u, dt, bias, a, b, c, d, z = (tensor.contiguous() for tensor in (u, dt, bias, a, b, c, d, z))
        sequences, length, channels = u.shape
        states, batch = a.shape[1], sequences // 2
        blocks, chunks = triton.cdiv(channels, CHANNELS), triton.cdiv(length, CHUNK)
        sizes = {"N": states, "CHUNK": CHUNK, "CHANNELS": CHANNELS, "num_warps": _WARPS}
        given = u.new_empty(sequences, chunks, channels, states, dtype=torch.float32)
        decays = torch.empty_like(given)
        y = torch.empty_like(z, dtype=u.dtype)
        _end_states[(blocks, chunks, sequences)](
            u, dt, bias, a, b, given, decays, length, channels, chunks, batch, **sizes
        )
        _walk_chunks(given, decays, batch, against=0)
        _outputs[(blocks, chunks, batch)](
            u, dt, bias, a, b, c, d, z, given, y, length, channels, chunks, batch, **sizes
        )
        context.save_for_backward(u, dt, bias, a, b, c, d, z, given)
        return y

    @staticmethod
    @once_differentiable
    def backward(context, grad):
        u, dt, bias, a, b, c, d, z, given = context.saved_tensors
        grad = grad.contiguous()
        sequences, length, channels = u.shape
        states, batch = a.shape[1], sequences // 2
        blocks, chunks = triton.cdiv(channels, CHANNELS), triton.cdiv(length, CHUNK)
        sizes = {"N": states, "CHUNK": CHUNK, "CHANNELS": CHANNELS, "num_warps": _WARPS}
        given_gradient, decays = torch.empty_like(given), torch.empty_like(given)
        _state_gradients[(blocks, chunks, sequences)](
            grad, z, dt, bias, a, c, given_gradient, decays, length, channels, chunks, batch, **sizes
        )
        _walk_chunks(given_gradient, decays, batch, against=1)
        # What several programs would add to has a place for each of them, and is summed after: the same every time.
        grad_u, grad_dt, grad_z = torch.empty_like(u), torch.empty_like(dt), torch.empty_like(z)
        grad_a, grad_d = torch.empty_like(given), given.new_empty(sequences, chunks, channels)
        grad_b, grad_c = (given.new_empty(blocks, *b.shape) for _ in range(2))
        _gradients[(blocks, chunks, batch)](
            grad, u, dt, bias, a, b, c, d, z, given, given_gradient,
            grad_u, grad_dt, grad_a, grad_b, grad_c, grad_d, grad_z, length, channels, chunks, batch, **sizes,
        )  # fmt: skip
        return (
            grad_u,
            grad_dt,
            grad_dt.sum((0, 1), dtype=torch.float32).to(bias.dtype),
            grad_a.sum((0, 1)).to(a.dtype),
            grad_b.sum(0).to(b.dtype),
            grad_c.sum(0).to(c.dtype),
            grad_d.sum((0, 1)).to(d.dtype),
            grad_z,
        )


def _walk_chunks(values: Tensor, decays: Tensor, batch: int, against: int) -> None:
    sequences, chunks, channels, states = values.shape
    pairs = channels * states
    _walk[(triton.cdiv(pairs, _PAIRS), sequences)](
        values, decays, pairs, chunks, batch, against, WALK=_WALK, PAIRS=_PAIRS
    )
