"""Selective scan on the CPU in float32: compiled forward and backward.

One task is one sequence and one block of `LANES` channels. The forward pass holds the states of some channels in
registers along a chunk of `STEPS` steps, and keeps the state at the start of each chunk; the backward pass recomputes
the states inside, one of the N after the other, so that all it touches (`STEPS x LANES` floats a buffer) stays in the
first-level cache. Memory is therefore that of the arguments plus `L / STEPS` states.

The backward pass's buffers are on the stack because LLVM can see that two stack arrays do not overlap; of two numpy
arrays it cannot know, and would test for it at every entry of every innermost loop.
"""

import llvmlite.ir
import numpy as np
import torch
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from rs4d_core.ops import lanes as vector
from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import LOG2_E, array_of, exp2, number, rounded_like
from rs4d_core.ops.scan_steps import STATES_AT_ONCE, largest_divisor, load_states, step, store_states

LANES = 64
STEPS = 32

_FLOAT = np.float32


def _stack_floats(size):
    """A compiled function that returns a pointer to `size` uninitialised float32 on its caller's stack."""

    @intrinsic
    def allocate(typingctx):
        def codegen(context, builder, signature, arguments):
            array = cgutils.alloca_once(builder, llvmlite.ir.ArrayType(llvmlite.ir.FloatType(), size))
            array.align = 64
            return builder.bitcast(array, context.get_value_type(signature.return_type))

        return types.CPointer(types.float32)(), codegen

    return allocate


_lane_buffer = _stack_floats(LANES)
_chunk_buffer = _stack_floats(STEPS * LANES)
_chunk_buffer_and_one = _stack_floats((STEPS + 1) * LANES)


@compiled()
def _forward(u, delta, rates, bc, d, y, states, keep, shape, group, start, stop):
    """Tasks `start..stop` of the forward pass. All arrays are flat, the channels a multiple of `vector.LANES`.

    `rates (D / LANES, N, LANES)` is A log2(e), `bc (B, L, 2N)` B and C; `states (B, chunks, N, D)` is filled where
    `keep`. `shape` is B, L, D, N; `group` is a tuple as long as the states computed at once.
    """
    _, length, channels, n_states = shape
    at_once, lanes = len(group), vector.LANES
    blocks, chunks = (channels + LANES - 1) // LANES, (length + STEPS - 1) // STEPS
    out = _chunk_buffer()
    carried = np.empty(n_states * LANES, np.float32)
    for task in range(start, stop):
        row, first = task // blocks, task % blocks * LANES
        carried[:] = _FLOAT(0)
        for chunk in range(chunks):
            at = chunk * STEPS
            steps = min(STEPS, length - at)
            top = row * length + at
            for channel in range(first, min(first + LANES, channels), lanes):
                skip = vector.load(d, channel)
                for n in range(0, n_states, at_once):
                    place = (channel - first) * n_states + n * lanes
                    h = load_states(group, carried, place, lanes)
                    if keep:
                        kept_at = ((row * chunks + chunk) * n_states + n) * channels + channel
                        store_states(h, states, kept_at, channels)
                    for t in range(steps):
                        here, b = (top + t) * channels + channel, (top + t) * 2 * n_states + n
                        size, value = vector.load(delta, here), vector.load(u, here)
                        total = vector.load(out, t * lanes) if n else skip * value
                        # Decays of float32, whatever y holds: the backward pass has its own, which are that exact.
                        h, _, total = step(
                            h, size, size * value, rates, channel * n_states + n * lanes, bc, b, b + n_states, total,
                            rates,
                        )  # fmt: skip
                        if n + at_once < n_states:
                            vector.store(out, t * lanes, total)
                        else:
                            vector.store(y, here, total)
                        vector.prefetch(u, here + STEPS * channels)
                        vector.prefetch(delta, here + STEPS * channels)
                    store_states(h, carried, place, lanes)


@compiled(fastmath={"contract", "nsz", "reassoc"})
def _backward(grad_y, u, delta, a, b, c, d, states, grad_u, grad_delta, grad_a, grad_b, grad_c, grad_d, start, stop):
    """Tasks `start..stop` of the backward pass.

    With g_t the gradient of the state after step t: `g_t = C_t dy_t + exp(delta_(t+1) A) g_(t+1)`. Sums over the batch
    or over blocks of channels are left to the caller, so that no two tasks write to one place: `grad_a (B, N, D)`,
    `grad_d (B, D)`, `grad_b, grad_c (blocks, B, L, N)`.
    """
    length, channels, n_states = u.shape[1], u.shape[2], a.shape[1]
    blocks = (channels + LANES - 1) // LANES
    rate = carray(_lane_buffer(), (LANES,), np.float32)
    rate_log2 = carray(_lane_buffer(), (LANES,), np.float32)
    carry = carray(_lane_buffer(), (LANES,), np.float32)
    rate_sum = carray(_lane_buffer(), (LANES,), np.float32)
    skip_sum = carray(_lane_buffer(), (LANES,), np.float32)
    skip_total = carray(_lane_buffer(), (LANES,), np.float32)
    step_size = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    inflow = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    grad_out = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    grad_inflow = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    grad_step = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    decay = carray(_chunk_buffer(), (STEPS, LANES), np.float32)
    state = carray(_chunk_buffer_and_one(), (STEPS + 1, LANES), np.float32)
    carried = np.empty((n_states, LANES), np.float32)
    rates = np.empty((n_states, LANES), np.float32)
    rate_sums = np.empty((n_states, LANES), np.float32)
    chunks = (length + STEPS - 1) // STEPS

    for task in range(start, stop):
        row, block = task // blocks, task % blocks
        first = block * LANES
        last = min(first + LANES, channels)
        width = last - first
        # The channels that a last, narrower block lacks add zeros to every sum.
        step_size[:] = _FLOAT(0)
        inflow[:] = _FLOAT(0)
        grad_out[:] = _FLOAT(0)
        state[:] = _FLOAT(0)
        skip_total[:] = _FLOAT(0)
        skip = d[first:last]
        carried[:] = _FLOAT(0)
        rate_sums[:] = _FLOAT(0)
        rates[:] = _FLOAT(0)
        for lane in range(width):
            for n in range(n_states):
                rates[n, lane] = a[first + lane, n]
        for chunk in range(chunks - 1, -1, -1):
            at = chunk * STEPS
            steps = min(STEPS, length - at)
            skip_sum[:] = _FLOAT(0)
            for t in range(steps):
                u_row, delta_row = u[row, at + t, first:last], delta[row, at + t, first:last]
                grad_row = grad_y[row, at + t, first:last]
                for lane in range(width):
                    step_size[t, lane] = number(delta_row[lane])
                    inflow[t, lane] = number(delta_row[lane]) * number(u_row[lane])
                    grad_out[t, lane] = number(grad_row[lane])
                    skip_sum[lane] += number(grad_row[lane]) * number(u_row[lane])
            for lane in range(LANES):
                skip_total[lane] += skip_sum[lane]
            grad_inflow[:] = _FLOAT(0)
            grad_step[:] = _FLOAT(0)
            for n in range(n_states):
                kept = states[row, chunk, n, first:last]
                for lane in range(width):
                    state[0, lane] = kept[lane]
                for lane in range(LANES):
                    rate[lane] = rates[n, lane]
                    rate_log2[lane] = rates[n, lane] * LOG2_E
                    carry[lane] = carried[n, lane]
                    rate_sum[lane] = _FLOAT(0)
                for t in range(steps):
                    b_t = b[row, at + t, n]
                    for lane in range(LANES):
                        kept_part = exp2(step_size[t, lane] * rate_log2[lane])
                        decay[t, lane] = kept_part
                        state[t + 1, lane] = kept_part * state[t, lane] + inflow[t, lane] * b_t
                for t in range(steps - 1, -1, -1):
                    b_t, c_t = b[row, at + t, n], c[row, at + t, n]
                    b_sum, c_sum = _FLOAT(0), _FLOAT(0)
                    for lane in range(LANES):
                        grad_state = grad_out[t, lane] * c_t + carry[lane]
                        c_sum += grad_out[t, lane] * state[t + 1, lane]
                        b_sum += grad_state * inflow[t, lane]
                        grad_inflow[t, lane] += grad_state * b_t
                        to_previous = grad_state * decay[t, lane]
                        carry[lane] = to_previous
                        grad_exponent = to_previous * state[t, lane]
                        grad_step[t, lane] += grad_exponent * rate[lane]
                        rate_sum[lane] += grad_exponent * step_size[t, lane]
                    grad_b[block, row, at + t, n] = b_sum
                    grad_c[block, row, at + t, n] = c_sum
                for lane in range(LANES):
                    carried[n, lane] = carry[lane]
                    rate_sums[n, lane] += rate_sum[lane]
            for t in range(steps):
                u_row, grad_u_row = u[row, at + t, first:last], grad_u[row, at + t, first:last]
                grad_delta_row = grad_delta[row, at + t, first:last]
                for lane in range(width):
                    to_u = skip[lane] * grad_out[t, lane] + step_size[t, lane] * grad_inflow[t, lane]
                    to_delta = grad_step[t, lane] + number(u_row[lane]) * grad_inflow[t, lane]
                    grad_u_row[lane] = rounded_like(to_u, grad_u_row[lane])
                    grad_delta_row[lane] = rounded_like(to_delta, grad_delta_row[lane])
        for lane in range(width):
            grad_d[row, first + lane] = skip_total[lane]
            for n in range(n_states):
                grad_a[row, n, first + lane] = rate_sums[n, lane]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx, *arguments: Tensor) -> Tensor:
        y, states = _run_forward(arguments, keep_states=True)
        ctx.save_for_backward(*arguments, states)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y: Tensor):
        *arguments, states = ctx.saved_tensors
        u, delta, a, _, _, _ = arguments
        (batch, length, channels), n_states = u.shape, a.shape[1]
        blocks = -(-channels // LANES)
        grad_u, grad_delta = torch.empty_like(u), torch.empty_like(delta)
        grad_a, grad_d = a.new_empty(batch, n_states, channels), a.new_empty(batch, channels)
        grad_b, grad_c = (a.new_empty(blocks, batch, length, n_states) for _ in range(2))
        inputs = [array_of(tensor) for tensor in (grad_y.contiguous(), *arguments, states)]
        outputs = [array_of(tensor) for tensor in (grad_u, grad_delta, grad_a, grad_b, grad_c, grad_d)]
        run_spans(lambda start, stop: _backward(*inputs, *outputs, start, stop), batch * blocks)
        return grad_u, grad_delta, grad_a.sum(0).T, grad_b.sum(0), grad_c.sum(0), grad_d.sum(0)


def scan_numba(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The selective scan (see `selective_scan`) on the CPU, computed in float32. Differentiable once.

    The kernels read and write bfloat16 `u` and `delta` as such.
    """
    u, delta = (tensor if tensor.dtype == torch.bfloat16 else tensor.float() for tensor in (u, delta))
    arguments = tuple(tensor.contiguous() for tensor in (u, delta, A.float(), B.float(), C.float(), D.float()))
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in arguments):
        return _Scan.apply(*arguments)
    return _run_forward(arguments, keep_states=False)[0]


def _run_forward(arguments: tuple[Tensor, ...], keep_states: bool) -> tuple[Tensor, Tensor]:
    u, delta, a, b, c, d = arguments
    batch, length, channels = u.shape
    n_states = a.shape[1]
    chunks = -(-length // STEPS) if keep_states else 0
    # Channels of zeros fill the last group of lanes.
    missing = -channels % vector.LANES
    padded = [F.pad(tensor, (0, missing)) for tensor in (u, delta, a.T, d)] if missing else [u, delta, a.T, d]
    rates = (padded[2] * LOG2_E).view(n_states, -1, vector.LANES).transpose(0, 1).contiguous()
    bc = torch.cat([b, c], dim=-1)
    y, states = torch.empty_like(padded[0]), a.new_empty(batch, chunks, n_states, channels + missing)
    arrays = [array_of(tensor).reshape(-1) for tensor in (*padded[:2], rates, bc, padded[3], y, states)]
    sizes, group = (batch, length, channels + missing, n_states), (0.0,) * largest_divisor(n_states, STATES_AT_ONCE)
    tasks = batch * -(-channels // LANES)
    run_spans(lambda start, stop: _forward(*arrays, keep_states, sizes, group, start, stop), tasks)
    if missing:
        y, states = y[..., :channels].contiguous(), states[..., :channels].contiguous()
    return y, states
