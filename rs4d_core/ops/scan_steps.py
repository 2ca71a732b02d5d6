"""For compiled scans: one step of the recurrence in `LANES` channels, with the states in registers."""

import llvmlite.ir as ir
from numba import types
from numba.extending import intrinsic

from rs4d_core.ops import lanes as vector
from rs4d_core.ops.lanes import lanes

# States that a processor holds in its registers at a time.
STATES_AT_ONCE = 16

_INDEX = ir.IntType(64)


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` up to `limit`: how many of `number` states to compute at once."""
    return next(divisor for divisor in range(min(number, limit), 0, -1) if number % divisor == 0)


def _at(builder, at, offset):
    return builder.add(at, _INDEX(offset))


@intrinsic
def load_states(typingctx, like, array, at, stride):
    """A tuple of as many `Lanes` as `like` has elements: from elements `at`, `at + stride`, ... of an array."""
    result = types.UniTuple(lanes, len(like))

    def codegen(context, builder, signature, arguments):
        _, array, at, stride = arguments
        values = []
        for _ in range(result.count):
            pointer = vector.address(context, builder, signature.args[1], array, at)
            values.append(vector.load_vector(builder, pointer))
            at = builder.add(at, stride)
        return context.make_tuple(builder, result, values)

    return result(like, array, types.intp, types.intp), codegen


@intrinsic
def store_states(typingctx, states, array, at, stride):
    """Write a tuple of `Lanes` to elements `at`, `at + stride`, ... of an array."""

    def codegen(context, builder, signature, arguments):
        states, array, at, stride = arguments
        for index in range(signature.args[0].count):
            pointer = vector.address(context, builder, signature.args[1], array, at)
            vector.store_vector(builder, builder.extract_value(states, index), pointer)
            at = builder.add(at, stride)
        return context.get_dummy_value()

    return types.void(states, array, types.intp, types.intp), codegen


@intrinsic
def step(typingctx, states, delta, inflow, rates, rates_at, sequence, b_at, c_at, out, stored):
    """`h = 2^(delta rate) h + inflow B` in each state; returns the new states, their decays, and `out + sum of C h`.

    The states' rates are the `Lanes` from `rates_at` on, one after the other; B and C are single numbers of `sequence`,
    from `b_at` and `c_at` on. Where the array `stored` holds bfloat16, decays are only as exact as results in it need.
    """
    result = types.Tuple((states, states, lanes))
    coarse = stored.dtype == types.int16

    def codegen(context, builder, signature, arguments):
        states, delta, inflow, rates, rates_at, sequence, b_at, c_at, out, _ = arguments
        new, decays = [], []
        sums = [out, None]
        for n in range(signature.args[0].count):
            rate = vector.address(context, builder, signature.args[3], rates, _at(builder, rates_at, n * vector.LANES))
            b, c = (
                vector.splat(
                    builder,
                    builder.load(vector.address(context, builder, signature.args[5], sequence, _at(builder, at, n))),
                )
                for at in (b_at, c_at)
            )
            decay = vector.exp2_of_product(builder, delta, vector.load_vector(builder, rate), coarse)
            added = vector.multiply(builder, inflow, b)
            state = vector.multiply_add(builder, decay, builder.extract_value(states, n), added)
            new.append(state)
            decays.append(decay)
            # Two sums: a single one would be a chain of N additions, each waiting for the one before.
            part = sums[n % 2]
            sums[n % 2] = (
                vector.multiply(builder, state, c) if part is None else vector.multiply_add(builder, state, c, part)
            )
        total = sums[0] if sums[1] is None else vector.add(builder, *sums)
        tuples = [context.make_tuple(builder, signature.args[0], values) for values in (new, decays)]
        return context.make_tuple(builder, result, [*tuples, total])

    index = types.intp
    return result(states, lanes, lanes, rates, index, sequence, index, index, lanes, stored), codegen


@intrinsic
def dot(typingctx, start, columns, columns_at, stride, numbers, at, count):
    """`start + sum over r < count of numbers[at + r] columns[columns_at + r stride]`, the columns being `Lanes`.

    `count` is a tuple of that length: the sum is unrolled.
    """

    def codegen(context, builder, signature, arguments):
        start, columns, columns_at, stride, numbers, at, _ = arguments
        # Four sums, added in the end: a single one would be a chain.
        sums = [start, None, None, None]
        for r in range(signature.args[6].count):
            number = builder.load(vector.address(context, builder, signature.args[4], numbers, _at(builder, at, r)))
            column = vector.load_vector(
                builder, vector.address(context, builder, signature.args[1], columns, columns_at)
            )
            columns_at = builder.add(columns_at, stride)
            factor, part = vector.splat(builder, number), sums[r % 4]
            if part is None:
                sums[r % 4] = vector.multiply(builder, column, factor)
            else:
                sums[r % 4] = vector.multiply_add(builder, column, factor, part)
        total = sums[0]
        for part in sums[1:]:
            total = total if part is None else vector.add(builder, total, part)
        return total

    index = types.intp
    return lanes(lanes, columns, index, index, numbers, index, count), codegen


@intrinsic
def step_back(
    typingctx, carry, rate_sums, history, decays, at, delta, inflow, grad_out, rates, rates_at, sequence, b_at, c_at,
    grad_inflow, grad_step, grad_b, grad_c, grads_at,
):  # fmt: skip
    """The gradients that one step hands on, of as many states as `carry` has.

    With g the gradient of a state after the step, `g = C grad_out + carry`, where carry is what the next step hands on.
    `history` holds the states before the step from element `at` on, those after it right behind them; `decays` the
    step's decays. The sums over the lanes that are the gradients of B and C are added to `grad_b` and `grad_c`, from
    element `grads_at` on, where there is room for `LANES` numbers.

    Returns:
        carry for the step before; `rate_sums` and what it gains, the gradient of A; `grad_inflow` and what it gains;
        `grad_step` and what it gains, the gradient of the step size through the decays, times log2(e).
    """
    result = types.Tuple((carry, carry, lanes, lanes))
    count = carry.count

    def codegen(context, builder, signature, arguments):
        carry, rate_sums, history, decays, at, delta, inflow, grad_out, rates, rates_at, sequence, b_at, c_at = (
            arguments[:13]
        )
        grad_inflow, grad_step, grad_b, grad_c, grads_at = arguments[13:]

        def pointer(index, array, place, offset):
            return vector.address(context, builder, signature.args[index], array, _at(builder, place, offset))

        def row(index, array, place, offset):
            return vector.load_vector(builder, pointer(index, array, place, offset * vector.LANES))

        carries, sums, b_parts, c_parts = [], [], [], []
        for n in range(count):
            b, c = (vector.splat(builder, builder.load(pointer(10, sequence, place, n))) for place in (b_at, c_at))
            grad = vector.multiply_add(builder, grad_out, c, builder.extract_value(carry, n))
            before, after = row(2, history, at, n), row(2, history, at, n + count)
            c_parts.append(vector.multiply(builder, grad_out, after))
            b_parts.append(vector.multiply(builder, grad, inflow))
            grad_inflow = vector.multiply_add(builder, grad, b, grad_inflow)
            handed_on = vector.multiply(builder, grad, row(3, decays, at, n))
            grad_exponent = vector.multiply(builder, handed_on, before)
            grad_step = vector.multiply_add(builder, grad_exponent, row(8, rates, rates_at, n), grad_step)
            sums.append(vector.multiply_add(builder, grad_exponent, delta, builder.extract_value(rate_sums, n)))
            carries.append(handed_on)
        for index, array, parts in ((15, grad_b, b_parts), (16, grad_c, c_parts)):
            gained = _sums_over_lanes(builder, parts)
            place = builder.bitcast(pointer(index, array, grads_at, 0), gained.type.as_pointer())
            total = builder.load(place)
            total.align = 4
            builder.store(vector.add(builder, total, gained), place).align = 4
        tuples = [context.make_tuple(builder, signature.args[0], values) for values in (carries, sums)]
        return context.make_tuple(builder, result, [*tuples, grad_inflow, grad_step])

    index = types.intp
    return result(
        carry, carry, history, decays, index, lanes, lanes, lanes, rates, index, sequence, index, index, lanes, lanes,
        grad_b, grad_c, index,
    ), codegen  # fmt: skip


def _sums_over_lanes(builder, vectors):
    """The sums over the lanes of up to `LANES` vectors, as one vector that is filled up with zeros to a power of two.

    Vectors are merged by pairs: the first halves of what belongs to each original vector, plus the second halves.
    """
    size = 1 << (len(vectors) - 1).bit_length()
    merged = [*vectors, *[vector.constant(0.0)] * (size - len(vectors))]
    owners = 1
    while len(merged) > 1:
        merged = [_halves_added(builder, owners, *merged[at : at + 2]) for at in range(0, len(merged), 2)]
        owners *= 2
    total = merged[0]
    while total.type.count > size:
        total = _halves_added(builder, size, total)
    return total


def _halves_added(builder, owners, *pair):
    """Of one or two vectors, in each of which `owners` numbers are still spread over neighbouring lanes."""
    width = pair[0].type.count
    share = width // owners
    firsts = [
        at * width + owner * share + lane
        for at in range(len(pair))
        for owner in range(owners)
        for lane in range(share // 2)
    ]
    halves = []
    for shift in (0, share // 2):
        mask = ir.Constant(ir.VectorType(ir.IntType(32), len(firsts)), [lane + shift for lane in firsts])
        halves.append(builder.shuffle_vector(pair[0], pair[-1], mask))
    return vector.add(builder, *halves)
