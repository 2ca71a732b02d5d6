"""For compiled kernels: float32 from and to bits, its exponential, and arrays of bfloat16.

numba and numpy know no bfloat16. A kernel gets such an array as the int16 that has its bits, and reads and writes its
elements with `number` and `rounded_like`, which leave float32 arrays as they are. So half-precision tensors need no
converted copy, which would take longer than the kernels themselves.
"""

import llvmlite.ir
import numpy as np
import torch
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from rs4d_core.ops.compiled import compiled

_INT32, _FLOAT32 = llvmlite.ir.IntType(32), llvmlite.ir.FloatType()

_FLOAT = np.float32
LOG2_E = _FLOAT(1.4426950408889634)
# exp(-80) = 2^-115.4. Weaker decays are held there: what remains of the state is lost in rounding either way, and going
# on to 2^-149 would fill the state with denormal numbers, which are several times slower to compute with.
_SMALLEST_EXPONENT = _FLOAT(-115.4)
# 1.5 * 2^23: adding it to a small float32 rounds that number to an integer, which then is in the sum's lowest bits.
_ROUNDER = _FLOAT(12582912.0)


@intrinsic
def bits_of(typingctx, value):
    """The bits of a float32, as an int32."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _INT32)

    return types.int32(types.float32), codegen


@intrinsic
def float_of(typingctx, bits):
    """The float32 that has these bits."""

    def codegen(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], _FLOAT32)

    return types.float32(types.int32), codegen


# No "reassoc" here: it would cancel the rounding by addition. The flag is kept a function, also where LLVM inlines it.
@compiled(fastmath={"contract", "nsz"}, forceinline=True)
def exp2(x):
    """2^x for x <= 0, to 0.6 units in the last place: 2^round(x) times a minimax polynomial of the rest."""
    x = max(x, _SMALLEST_EXPONENT)
    rounded = x + _ROUNDER
    rest = x - (rounded - _ROUNDER)
    power = _FLOAT(0.00015353361959569156) * rest + _FLOAT(0.0013398875016719103)
    power = power * rest + _FLOAT(0.00961843691766262)
    power = power * rest + _FLOAT(0.055503323674201965)
    power = power * rest + _FLOAT(0.24022647738456726)
    power = power * rest + _FLOAT(0.6931471824645996)
    power = power * rest + _FLOAT(1.0)
    return float_of(np.int32((bits_of(rounded) << np.int32(23)) + bits_of(power)))


@intrinsic
def number(typingctx, stored):
    """An element of an array of float32, or of bfloat16 as int16, as float32."""

    def codegen(context, builder, signature, arguments):
        if signature.args[0] == types.float32:
            return arguments[0]
        return builder.bitcast(builder.shl(builder.zext(arguments[0], _INT32), _INT32(16)), _FLOAT32)

    return types.float32(stored), codegen


@intrinsic
def rounded_like(typingctx, value, stored):
    """A float32 as an element of an array whose elements are as `stored`: rounded to the nearest, ties to even."""

    def codegen(context, builder, signature, arguments):
        if signature.return_type == types.float32:
            return arguments[0]
        bits = builder.bitcast(arguments[0], _INT32)
        odd = builder.and_(builder.lshr(bits, _INT32(16)), _INT32(1))
        rounded = builder.add(bits, builder.add(odd, _INT32(0x7FFF)))
        # Adding to the bits of a NaN can turn it into a zero.
        is_nan = builder.fcmp_unordered("uno", arguments[0], arguments[0])
        rounded = builder.select(is_nan, _INT32(0x7FC00000), rounded)
        return builder.trunc(builder.lshr(rounded, _INT32(16)), llvmlite.ir.IntType(16))

    return stored(types.float32, stored), codegen


def array_of(tensor: Tensor) -> np.ndarray:
    """The memory of a CPU tensor as an array; bfloat16 as the int16 of the same bits."""
    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
