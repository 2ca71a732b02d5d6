"""For compiled kernels: `LANES` float32 numbers as one value, which the processor computes with at once.

LLVM makes vector code of a plain loop where it can prove enough, and then of half the width that the processor has. A
`Lanes` value is vector code from the start: it stays in registers, and so does a tuple of them. LLVM splits it into
what a processor has (one AVX-512 register, two of AVX2, four of NEON).

Kernels compute with `+`, `-` and `*` (two of which may become one fused instruction), `largest`, and the functions
here. Memory is reached through `load` and `store`, which take a flat array of float32, or of bfloat16 as int16 (see
`float_bits`), or a stack buffer, and an index that is not checked.
"""

import operator

import llvmlite.ir as ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

LANES = 16

_FLAGS = ("contract", "nsz")
_FLOAT, _INT16, _INT32 = ir.FloatType(), ir.IntType(16), ir.IntType(32)
VECTOR = ir.VectorType(_FLOAT, LANES)
_INT_VECTOR = ir.VectorType(_INT32, LANES)
_SHORT_VECTOR = ir.VectorType(_INT16, LANES)


class LanesType(types.Type):
    """numba's type of `LANES` float32."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type) -> None:
        super().__init__(dmm, fe_type, VECTOR)


# Building blocks for intrinsics: each adds instructions that compute with LLVM values of type VECTOR.


def constant(value: float) -> ir.Constant:
    """The same number in all lanes."""
    return ir.Constant(VECTOR, [value] * LANES)


def add(builder, x, y):
    """x + y."""
    return builder.fadd(x, y, flags=_FLAGS)


def multiply(builder, x, y):
    """x y."""
    return builder.fmul(x, y, flags=_FLAGS)


def multiply_add(builder, x, y, z):
    """x y + z, in one instruction where the processor has it."""
    return add(builder, multiply(builder, x, y), z)


def splat(builder, number):
    """One float32 in all lanes."""
    single = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), number, _INT32(0))
    zeros = ir.Constant(_INT_VECTOR, [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(VECTOR, ir.Undefined), zeros)


def polynomial(builder, x, coefficients):
    """`coefficients[0] + coefficients[1] x + ...`."""
    result = constant(coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = multiply_add(builder, result, x, constant(coefficient))
    return result


# exp(-80) = 2^-115.4. Weaker decays are held there: what remains of the state is lost in rounding either way, and going
# on to 2^-149 would fill the state with denormal numbers, which are several times slower to compute with.
SMALLEST_EXPONENT = -115.4
# 1.5 * 2^23: adding it to a small float32 rounds that number to an integer, which then is in the sum's lowest bits.
_ROUNDER = 12582912.0
# Minimax for 2^x - 1 on [-1/2, 1/2], after the leading 1, relative to 2^x: to 9e-8, and to 1e-4, a twentieth of what
# bfloat16 rounds off. Near 0 they are closer still, so that slow decays stay slow over thousands of steps.
_EXP2 = (
    1.0,
    0.6931469775991663,
    0.24022242085384413,
    0.055507337432592084,
    0.009671512639156535,
    0.0013264727193541706,
)
_COARSE_EXP2 = (1.0, 0.69328293, 0.24221096, 0.05500893)
# Minimax for log(1 + x) / x on [0, 1]: to 3e-8.
_LOG1P = (
    0.9999999698795567,
    -0.4999949314043732,
    0.33319096806906795,
    -0.24842982209663303,
    0.1910600674768736,
    -0.13663245770972685,
    0.07822595163194396,
    -0.029505238643220518,
    0.005232694234356644,
)
LOG2_E = 1.4426950408889634


def exp2(builder, x):
    """2^x for x <= 0, to 1.3 units in the last place; below 2^-115.4, that."""
    smallest = constant(SMALLEST_EXPONENT)
    x = builder.select(builder.fcmp_ordered(">", x, smallest), x, smallest)
    rounded = builder.fadd(x, constant(_ROUNDER))
    rest = builder.fsub(x, builder.fsub(rounded, constant(_ROUNDER)))
    return _times_power(builder, polynomial(builder, rest, _EXP2), rounded)


def exp2_of_product(builder, x, y, coarse):
    """2^(x y) for x y <= 0, never under 2^-115; `coarse`: for results that are rounded to bfloat16."""
    rounder, smallest = constant(_ROUNDER), constant(_ROUNDER + SMALLEST_EXPONENT)
    rounded = _fused(builder, x, y, rounder)
    rest = _fused(builder, x, y, builder.fsub(rounder, rounded))
    # What is held is the power of two alone. The rest is small whatever the product is, up to 2^22.
    rounded = builder.select(builder.fcmp_ordered(">", rounded, smallest), rounded, smallest)
    return _times_power(builder, polynomial(builder, rest, _COARSE_EXP2 if coarse else _EXP2), rounded)


def _fused(builder, x, y, z):
    """x y + z, of which x y is not rounded where the processor has such an instruction."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32"), [x, y, z])


def _times_power(builder, factor, rounded):
    """The factor times 2^k, for k + _ROUNDER."""
    exponent = builder.shl(builder.bitcast(rounded, _INT_VECTOR), ir.Constant(_INT_VECTOR, [23] * LANES))
    return builder.bitcast(builder.add(exponent, builder.bitcast(factor, _INT_VECTOR)), VECTOR)


def _magnitude(builder, x):
    mask = ir.Constant(_INT_VECTOR, [0x7FFFFFFF] * LANES)
    return builder.bitcast(builder.and_(builder.bitcast(x, _INT_VECTOR), mask), VECTOR)


def _exp_of_minus_magnitude(builder, x):
    return exp2(builder, multiply(builder, _magnitude(builder, x), constant(-LOG2_E)))


def _emit_sigmoid(builder, x):
    power = _exp_of_minus_magnitude(builder, x)
    positive = builder.fcmp_ordered(">=", x, constant(0.0))
    total = add(builder, power, constant(1.0))
    return builder.fdiv(builder.select(positive, constant(1.0), power), total)


def _emit_softplus(builder, x):
    power = _exp_of_minus_magnitude(builder, x)
    positive = builder.fcmp_ordered(">", x, constant(0.0))
    rest = multiply(builder, power, polynomial(builder, power, _LOG1P))
    return add(builder, builder.select(positive, x, constant(0.0)), rest)


def address(context, builder, array_type, array, at):
    """The pointer to element `at` of a flat array or a stack buffer."""
    if isinstance(array_type, types.CPointer):
        return builder.gep(array, [at])
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def load_vector(builder, pointer):
    """The `LANES` numbers from a pointer to float32, or to bfloat16 as int16."""
    if pointer.type.pointee == _FLOAT:
        loaded = builder.load(builder.bitcast(pointer, VECTOR.as_pointer()))
        loaded.align = 4
        return loaded
    loaded = builder.load(builder.bitcast(pointer, _SHORT_VECTOR.as_pointer()))
    loaded.align = 2
    bits = builder.shl(builder.zext(loaded, _INT_VECTOR), ir.Constant(_INT_VECTOR, [16] * LANES))
    return builder.bitcast(bits, VECTOR)


def store_vector(builder, value, pointer):
    """The `LANES` numbers to a pointer to float32, or to bfloat16 as int16: rounded to the nearest, ties to even."""
    if pointer.type.pointee == _FLOAT:
        builder.store(value, builder.bitcast(pointer, VECTOR.as_pointer())).align = 4
        return
    bits = builder.bitcast(value, _INT_VECTOR)
    odd = builder.and_(
        builder.lshr(bits, ir.Constant(_INT_VECTOR, [16] * LANES)), ir.Constant(_INT_VECTOR, [1] * LANES)
    )
    rounded = builder.add(bits, builder.add(odd, ir.Constant(_INT_VECTOR, [0x7FFF] * LANES)))
    # Adding to the bits of a NaN can turn it into a zero.
    is_nan = builder.fcmp_unordered("uno", value, value)
    rounded = builder.select(is_nan, ir.Constant(_INT_VECTOR, [0x7FC00000] * LANES), rounded)
    short = builder.trunc(builder.lshr(rounded, ir.Constant(_INT_VECTOR, [16] * LANES)), _SHORT_VECTOR)
    builder.store(short, builder.bitcast(pointer, _SHORT_VECTOR.as_pointer())).align = 2


# What kernels call.


@intrinsic
def load(typingctx, array, at):
    """The `LANES` numbers from element `at` on."""

    def codegen(context, builder, signature, arguments):
        return load_vector(builder, address(context, builder, signature.args[0], *arguments))

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx, array, at, value):
    """Write the `LANES` numbers to element `at` and the following, rounded to what the array holds."""

    def codegen(context, builder, signature, arguments):
        store_vector(builder, arguments[2], address(context, builder, signature.args[0], *arguments[:2]))
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def everywhere(typingctx, number):
    """The same float32 in all lanes."""

    def codegen(context, builder, signature, arguments):
        return splat(builder, arguments[0])

    return lanes(types.float32), codegen


def _binary(function, emit):
    @intrinsic
    def compute(typingctx, x, y):
        def codegen(context, builder, signature, arguments):
            return emit(builder, *arguments)

        return lanes(lanes, lanes), codegen

    @overload(function)
    def _(x, y):
        if x == lanes and y == lanes:
            return lambda x, y: compute(x, y)
        return None


_binary(operator.add, add)
_binary(operator.mul, multiply)
_binary(operator.sub, lambda builder, x, y: builder.fsub(x, y, flags=_FLAGS))


def largest(x, y):
    """The larger of two numbers in each lane; where one is none, the second."""


_binary(largest, lambda builder, x, y: builder.select(builder.fcmp_ordered(">", x, y), x, y))


@intrinsic
def sigmoid(typingctx, x):
    """1 / (1 + exp(-x))."""

    def codegen(context, builder, signature, arguments):
        return _emit_sigmoid(builder, *arguments)

    return lanes(lanes), codegen


@intrinsic
def softplus(typingctx, x):
    """log(1 + exp(x))."""

    def codegen(context, builder, signature, arguments):
        return _emit_softplus(builder, *arguments)

    return lanes(lanes), codegen


@intrinsic
def sum_of(typingctx, x):
    """The sum over the lanes, a float32."""

    def codegen(context, builder, signature, arguments):
        total = arguments[0]
        width = LANES
        while width > 1:
            width //= 2
            half = ir.Constant(_INT_VECTOR, [(lane + width) % LANES for lane in range(LANES)])
            total = add(builder, total, builder.shuffle_vector(total, total, half))
        return builder.extract_element(total, _INT32(0))

    return types.float32(lanes), codegen


def stack_floats(size: int):
    """A compiled function that returns a buffer of `size` uninitialised float32 on its caller's stack."""

    @intrinsic
    def allocate(typingctx):
        def codegen(context, builder, signature, arguments):
            array = cgutils.alloca_once(builder, ir.ArrayType(_FLOAT, size))
            array.align = 64
            return builder.bitcast(array, context.get_value_type(signature.return_type))

        return types.CPointer(types.float32)(), codegen

    return allocate


@intrinsic
def prefetch(typingctx, array, at):
    """Ask for the cache line of element `at`, which need not exist. Rows far apart escape the processor's own guess."""

    def codegen(context, builder, signature, arguments):
        pointer = builder.bitcast(address(context, builder, signature.args[0], *arguments), ir.IntType(8).as_pointer())
        kind = ir.FunctionType(ir.VoidType(), [pointer.type, _INT32, _INT32, _INT32])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [pointer, _INT32(0), _INT32(3), _INT32(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen
