"""`bidirectional_scan` on the CPU: compiled forward and backward.

One task is one sequence, in both directions, and `WIDTH` of its channels. It walks along the sequence in chunks of
`STEPS` steps, whose step sizes, inflows and outputs stay in the first-level cache; the states stay in registers along a
chunk. What the first direction gave waits in one buffer for the second one, which adds, gates and writes.

For a backward pass the forward pass keeps the state at the start of each chunk, and nothing else: step sizes, states
and outputs are computed anew, which is cheaper than a trip to memory. Memory is that of the arguments plus `L / STEPS`
states a channel.
"""

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of
from rs4d_core.ops.lanes import (
    LANES,
    LOG2_E,
    everywhere,
    load,
    prefetch,
    sigmoid,
    softplus,
    stack_floats,
    store,
)
from rs4d_core.ops.scan_steps import (
    STATES_AT_ONCE,
    dot,
    largest_divisor,
    load_states,
    step,
    step_back,
    store_states,
)

STEPS = 32
_GROUPS = 4
WIDTH = _GROUPS * LANES

# Backwards: as many states at a time as leave room for their gradients in registers, and for a chunk of them, and of
# their decays, in the first-level cache.
_STATES_AT_ONCE_BACK = 4

_ZERO, _HALF, _ONE, _LOG_2 = np.float32(0), np.float32(0.5), np.float32(1), np.float32(np.log(2))
_tile = stack_floats(STEPS * WIDTH)


@compiled()
def _forward(
    u, projected, dt_weight, dt_bias, rates, d, z, out, first_result, carried, states,
    keep, begin, directions, shape, group, ranks, start, stop,
):  # fmt: skip
    """Tasks `start..stop`. All arrays are flat, the channels a multiple of `LANES`.

    `rates (D / LANES, N, LANES)` is A log2(e), `dt_weight (R, D)`; `first_result (tasks, L, WIDTH)` is what the first
    direction gives and the second one takes; `carried (tasks, N, WIDTH)` are the states at the end, and at the start
    unless `begin`; `states (2B, chunks, N, D)` is filled where `keep`.
    `directions` is a range of the two, `u` and `projected` hold the sequences of these alone. `shape` is B, L, D, N;
    `group` and `ranks` are tuples as long as the states computed at once and as R.
    """
    batch, length, channels, n_states = shape
    rank, at_once = len(ranks), len(group)
    columns = rank + 2 * n_states
    blocks, chunks = (channels + WIDTH - 1) // WIDTH, (length + STEPS - 1) // STEPS
    delta, inflow, y = _tile(), _tile(), _tile()
    for task in range(start, stop):
        row, first, waiting = task // blocks, task % blocks * WIDTH, task * length * WIDTH
        groups, at_task = min(channels - first, WIDTH) // LANES, task * n_states * WIDTH
        for direction in range(directions[0], directions[1]):
            if begin:
                carried[at_task : at_task + n_states * WIDTH] = _ZERO
            sequence = (direction - directions[0]) * batch + row
            for chunk in range(chunks):
                at = chunk * STEPS
                steps = min(STEPS, length - at)
                top = sequence * length + at
                for g in range(groups):
                    channel = first + g * LANES
                    bias, skip = load(dt_bias, channel), load(d, channel)
                    for t in range(steps):
                        i = (t * _GROUPS + g) * LANES
                        value = load(u, (top + t) * channels + channel)
                        size = softplus(dot(bias, dt_weight, channel, channels, projected, (top + t) * columns, ranks))
                        store(delta, i, size)
                        store(inflow, i, size * value)
                        store(y, i, skip * value)
                for g in range(groups):
                    channel = first + g * LANES
                    for n in range(0, n_states, at_once):
                        place = at_task + (g * n_states + n) * LANES
                        h = load_states(group, carried, place, LANES)
                        if keep:
                            kept_at = ((sequence * chunks + chunk) * n_states + n) * channels + channel
                            store_states(h, states, kept_at, channels)
                        for t in range(steps):
                            i = (t * _GROUPS + g) * LANES
                            b = (top + t) * columns + rank + n
                            h, _, total = step(
                                h, load(delta, i), load(inflow, i), rates, channel * n_states + n * LANES, projected, b,
                                b + n_states, load(y, i), u,
                            )  # fmt: skip
                            store(y, i, total)
                            prefetch(u, (top + STEPS + t) * channels + channel)
                            if direction:
                                prefetch(z, (row * length + length - 1 - at - STEPS - t) * channels + channel)
                        store_states(h, carried, place, LANES)
                for g in range(groups):
                    for t in range(steps):
                        found = load(y, (t * _GROUPS + g) * LANES)
                        if not direction:
                            store(first_result, waiting + (at + t) * WIDTH + g * LANES, found)
                            continue
                        token = length - 1 - at - t
                        place = (row * length + token) * channels + first + g * LANES
                        gate = load(z, place)
                        both = load(first_result, waiting + token * WIDTH + g * LANES) + found
                        store(out, place, everywhere(_HALF) * both * gate * sigmoid(gate))


_row_tile = stack_floats(STEPS * LANES)
_history = stack_floats((STEPS + 1) * _STATES_AT_ONCE_BACK * LANES)


@compiled()
def _backward(
    grad_out, u, projected, dt_weight, dt_bias, rates, d, z, states,
    grad_u, grad_pre, grad_z, grad_a, grad_d, grad_bc, shape, group, ranks, start, stop,
):  # fmt: skip
    """Tasks `start..stop`, with the arguments of `_forward`.

    `grad_pre (2B, L, D)` is the gradient of what the softplus takes. Sums over the batch, or over blocks of channels,
    are left to the caller, so that no two tasks write to one place: `grad_a (2B, N, D)`, `grad_d (2B, D)`,
    `grad_bc (blocks, 2B, L, 2N)`.
    """
    batch, length, channels, n_states = shape
    rank, at_once = len(ranks), len(group)
    columns = rank + 2 * n_states
    blocks, chunks = (channels + WIDTH - 1) // WIDTH, (length + STEPS - 1) // STEPS
    delta, slope, inflow, y, grad_y = _row_tile(), _row_tile(), _row_tile(), _row_tile(), _row_tile()
    grad_inflow, grad_step, history, decays = _row_tile(), _row_tile(), _history(), _history()
    one, half, log_2 = everywhere(_ONE), everywhere(_HALF), everywhere(_LOG_2)
    first_result = np.empty(length * WIDTH, np.float32)
    carried, rate_sums = np.empty(n_states * WIDTH, np.float32), np.empty(n_states * WIDTH, np.float32)
    # Sums over the lanes are written `LANES` at a time, whatever the number of states.
    stride = n_states + LANES
    grad_b, grad_c = np.empty(STEPS * stride, np.float32), np.empty(STEPS * stride, np.float32)
    skip_sums = np.empty(WIDTH, np.float32)
    for task in range(start, stop):
        row, block = task // blocks, task % blocks
        first = block * WIDTH
        groups = min(channels - first, WIDTH) // LANES
        for direction in range(2):
            carried[:] = _ZERO
            rate_sums[:] = _ZERO
            skip_sums[:] = _ZERO
            sequence = direction * batch + row
            for chunk in range(chunks - 1, -1, -1):
                at = chunk * STEPS
                steps = min(STEPS, length - at)
                top = sequence * length + at
                grad_b[:] = _ZERO
                grad_c[:] = _ZERO
                for g in range(groups):
                    channel = first + g * LANES
                    bias, skip, skip_sum = load(dt_bias, channel), load(d, channel), load(skip_sums, g * LANES)
                    for t in range(steps):
                        i = t * LANES
                        place = (top + t) * channels + channel
                        token = length - 1 - at - t if direction else at + t
                        value, gate_at = load(u, place), (row * length + token) * channels + channel
                        gate = load(z, gate_at)
                        pre = dot(bias, dt_weight, channel, channels, projected, (top + t) * columns, ranks)
                        size, grad = softplus(pre), half * load(grad_out, gate_at) * gate * sigmoid(gate)
                        skip_sum = skip_sum + grad * value
                        store(delta, i, size)
                        store(slope, i, sigmoid(pre))
                        store(inflow, i, size * value)
                        store(y, i, skip * value)
                        store(grad_y, i, grad)
                        store(grad_inflow, i, everywhere(_ZERO))
                        store(grad_step, i, everywhere(_ZERO))
                    store(skip_sums, g * LANES, skip_sum)
                    for n in range(0, n_states, at_once):
                        place, rates_at = (g * n_states + n) * LANES, channel * n_states + n * LANES
                        kept_at = ((sequence * chunks + chunk) * n_states + n) * channels + channel
                        h = load_states(group, states, kept_at, channels)
                        store_states(h, history, 0, LANES)
                        for t in range(steps):
                            i, b = t * LANES, (top + t) * columns + rank + n
                            h, kept, total = step(
                                h, load(delta, i), load(inflow, i), rates, rates_at, projected, b, b + n_states,
                                load(y, i), u,
                            )  # fmt: skip
                            store(y, i, total)
                            store_states(kept, decays, t * at_once * LANES, LANES)
                            store_states(h, history, (t + 1) * at_once * LANES, LANES)
                        carry, sums = (
                            load_states(group, carried, place, LANES),
                            load_states(group, rate_sums, place, LANES),
                        )
                        for t in range(steps - 1, -1, -1):
                            i, b = t * LANES, (top + t) * columns + rank + n
                            carry, sums, to_inflow, to_step = step_back(
                                carry, sums, history, decays, t * at_once * LANES, load(delta, i), load(inflow, i),
                                load(grad_y, i), rates, rates_at, projected, b, b + n_states, load(grad_inflow, i),
                                load(grad_step, i), grad_b, grad_c, t * stride + n,
                            )  # fmt: skip
                            store(grad_inflow, i, to_inflow)
                            store(grad_step, i, to_step)
                        store_states(carry, carried, place, LANES)
                        store_states(sums, rate_sums, place, LANES)
                    for t in range(steps):
                        i = t * LANES
                        place = (top + t) * channels + channel
                        value, to_inflow = load(u, place), load(grad_inflow, i)
                        store(grad_u, place, skip * load(grad_y, i) + load(delta, i) * to_inflow)
                        store(grad_pre, place, load(slope, i) * (log_2 * load(grad_step, i) + value * to_inflow))
                        if not direction:
                            store(first_result, (at + t) * WIDTH + g * LANES, load(y, i))
                            continue
                        token = length - 1 - at - t
                        place = (row * length + token) * channels + channel
                        gate = load(z, place)
                        share = sigmoid(gate)
                        both = load(first_result, token * WIDTH + g * LANES) + load(y, i)
                        silu_slope = share * (one + gate * (one - share))
                        store(grad_z, place, half * load(grad_out, place) * both * silu_slope)
                for t in range(steps):
                    place = ((block * 2 * batch + sequence) * length + at + t) * 2 * n_states
                    for n in range(n_states):
                        grad_bc[place + n] = grad_b[t * stride + n]
                        grad_bc[place + n_states + n] = grad_c[t * stride + n]
            for g in range(groups):
                channel = first + g * LANES
                store(grad_d, sequence * channels + channel, load(skip_sums, g * LANES))
                for n in range(n_states):
                    place = (sequence * n_states + n) * channels + channel
                    store(grad_a, place, load(rate_sums, (g * n_states + n) * LANES))


class _BidirectionalScan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments: Tensor) -> Tensor:
        out, states = _run_forward(arguments, keep_states=True)
        ctx.save_for_backward(*arguments, states)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_out: Tensor):
        *arguments, states = ctx.saved_tensors
        u, projected, dt_weight, dt_bias, A, D, z = arguments
        batch, length, channels = z.shape
        rank, n_states, blocks = len(dt_weight), A.shape[1], -(-channels // WIDTH)
        grad_u, grad_pre, grad_z = torch.empty_like(u), torch.empty_like(u), torch.empty_like(z)
        grad_a, grad_d = A.new_empty(2 * batch, n_states, channels), A.new_empty(2 * batch, channels)
        grad_bc = A.new_empty(blocks, 2 * batch, length, 2 * n_states)
        tensors = (grad_out.contiguous(), u, projected, dt_weight, dt_bias, _rates(A), D, z, states)
        arrays = [_flat(tensor) for tensor in (*tensors, grad_u, grad_pre, grad_z, grad_a, grad_d, grad_bc)]
        sizes = (batch, length, channels, n_states)
        tuples = (0.0,) * largest_divisor(n_states, _STATES_AT_ONCE_BACK), (0.0,) * rank
        run_spans(lambda start, stop: _backward(*arrays, sizes, *tuples, start, stop), batch * blocks)
        with torch.autocast("cpu", enabled=False):
            flat, dt = grad_pre.flatten(0, 1), projected[..., :rank].flatten(0, 1).to(u.dtype)
            grad_dt = (flat @ dt_weight.T.to(u.dtype)).float().unflatten(0, (2 * batch, length))
            grad_weight = (dt.T @ flat).float()
        grad_projected = torch.cat([grad_dt, grad_bc.sum(0)], dim=-1)
        grad_bias = flat.sum(0, dtype=torch.float32)
        return grad_u, grad_projected, grad_weight, grad_bias, grad_a.sum(0).T, grad_d.sum(0), grad_z


def bidirectional_scan_numba(
    u: Tensor, projected: Tensor, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, z: Tensor
) -> Tensor:
    """See `bidirectional_scan`. Computed in float32; u, z and the result may be bfloat16. Differentiable once."""
    channels = u.shape[2]
    u, z = u.contiguous(), z.to(u.dtype).contiguous()
    weights = [tensor.float() for tensor in (dt_weight.T, dt_bias, A, D)]
    missing = -channels % LANES
    if missing:
        # Channels of zeros, which add nothing to anything.
        u, z = F.pad(u, (0, missing)), F.pad(z, (0, missing))
        weights = [
            F.pad(weights[0], (0, missing)),
            F.pad(weights[1], (0, missing)),
            F.pad(weights[2], (0, 0, 0, missing)),
            F.pad(weights[3], (0, missing)),
        ]
    arguments = (u, projected.float().contiguous(), *(tensor.contiguous() for tensor in weights), z)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments):
        found = _BidirectionalScan.apply(*arguments)
    else:
        found = _run_forward(arguments, keep_states=False)[0]
    return found[..., :channels] if missing else found


def _run_forward(arguments: tuple[Tensor, ...], keep_states: bool) -> tuple[Tensor, Tensor]:
    u, projected, dt_weight, dt_bias, A, D, z = arguments
    batch, length, channels = z.shape
    n_states, blocks = A.shape[1], -(-channels // WIDTH)
    chunks = -(-length // STEPS) if keep_states else 0
    out, states = torch.empty_like(z), A.new_empty(2 * batch, chunks, n_states, channels)
    first_result, carried = A.new_empty(batch, blocks, length, WIDTH), A.new_empty(batch, blocks, n_states, WIDTH)
    tensors = (u, projected, dt_weight, dt_bias, _rates(A), D, z, out, first_result, carried, states)
    _call_forward(tensors, keep_states, True, (0, 2), (batch, length, channels, n_states), len(dt_weight))
    return out, states


def _call_forward(
    tensors: tuple[Tensor, ...],
    keep: bool,
    begin: bool,
    directions: tuple[int, int],
    sizes: tuple[int, int, int, int],
    rank: int,
) -> None:
    arrays = [_flat(tensor) for tensor in tensors]
    tuples = (0.0,) * largest_divisor(sizes[3], STATES_AT_ONCE), (0.0,) * rank
    tasks = sizes[0] * -(-sizes[2] // WIDTH)
    run_spans(lambda start, stop: _forward(*arrays, keep, begin, directions, sizes, *tuples, start, stop), tasks)


class PiecewiseScan:
    """`bidirectional_scan` of sequences of which a piece is at hand at a time: from the first one to the last and back.

    The arguments are those of `bidirectional_scan`, for D a multiple of `LANES`; no gradients.
    """

    def __init__(self, dt_weight: Tensor, dt_bias: Tensor, A: Tensor, D: Tensor, batch: int) -> None:
        weights = (dt_weight.T, dt_bias, _rates(A.float()), D)
        self._weights = tuple(tensor.detach().float().contiguous() for tensor in weights)
        self._rank, self._n_states = dt_weight.shape[1], A.shape[1]
        self._carried = dt_bias.new_empty(batch * -(-len(D) // WIDTH), self._n_states, WIDTH, dtype=torch.float32)
        self._none = self._carried[:0]

    def there(self, u: Tensor, projected: Tensor, waiting: Tensor, begin: bool) -> None:
        """Scan a piece `u (B, T, D)`, `projected (B, T, R + 2N)` of the first direction; `begin`: the first piece.

        What `back` needs of it goes to `waiting`, `waiting_size(B, T, D)` numbers of float32 or bfloat16.
        """
        self._run(u, projected, u, u, waiting, begin, 0)

    def back(self, u: Tensor, projected: Tensor, waiting: Tensor, begin: bool, z: Tensor, out: Tensor) -> None:
        """Scan the same piece in the second direction, u and projected from its last step to its first one.

        `begin`: it is the last piece. The gate `z` and the result `out` are from first to last step, `(B, T, D)`.
        """
        self._run(u, projected, z, out, waiting, begin, 1)

    def _run(
        self, u: Tensor, projected: Tensor, z: Tensor, out: Tensor, waiting: Tensor, begin: bool, direction: int
    ) -> None:
        tensors = (u, projected.float(), *self._weights, z, out, waiting, self._carried, self._none)
        _call_forward(tensors, False, begin, (direction, direction + 1), (*u.shape, self._n_states), self._rank)


def waiting_size(batch: int, length: int, channels: int) -> int:
    """How many numbers hold the first direction's result until the second one meets it."""
    return batch * -(-channels // WIDTH) * length * WIDTH


def _rates(A: Tensor) -> Tensor:
    """A log2(e) as `(D / LANES, N, LANES)`."""
    return (A * LOG2_E).view(-1, LANES, A.shape[1]).transpose(1, 2).contiguous()


def _flat(tensor: Tensor) -> np.ndarray:
    return array_of(tensor).reshape(-1)
