"""The selective scan as a plain C loop, compiled here and now: what the project's own scan is held against."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from rs4d_core.ops.compiled import run_spans

_BLOCK = 64

# `restrict`, a fixed width and -ffast-math are what a compiler needs to make vector code of it. The exponential is as
# exact as that of the project's kernels; libm's takes several times as long.
_SOURCE = """
#include <math.h>
#include <string.h>
static inline float power_of_2(float x)
{
    x = x < -115.4f ? -115.4f : x;
    float whole = rintf(x), rest = x - whole;
    float power = 0.0013264727f;
    power = power * rest + 0.0096715126f;
    power = power * rest + 0.0555073374f;
    power = power * rest + 0.2402224208f;
    power = power * rest + 0.6931469776f;
    power = power * rest + 1.0f;
    int bits;
    memcpy(&bits, &power, 4);
    bits += (int)whole << 23;
    memcpy(&power, &bits, 4);
    return power;
}
void scan(const float *restrict u, const float *restrict delta, const float *restrict a, const float *restrict b,
          const float *restrict c, const float *restrict skip, float *restrict y,
          long length, long channels, long first)
{
    float h[N][BLOCK] = {{0}}, rate[N][BLOCK];
    for (long n = 0; n < N; n++)
        for (long i = 0; i < BLOCK; i++) rate[n][i] = a[(first + i) * N + n] * 1.44269504f;
    for (long t = 0; t < length; t++) {
        const float *restrict step = delta + t * channels + first, *restrict value = u + t * channels + first;
        float out[BLOCK];
        for (long i = 0; i < BLOCK; i++) out[i] = skip[first + i] * value[i];
        for (long n = 0; n < N; n++)
            for (long i = 0; i < BLOCK; i++) {
                h[n][i] = power_of_2(step[i] * rate[n][i]) * h[n][i] + step[i] * value[i] * b[t * N + n];
                out[i] += h[n][i] * c[t * N + n];
            }
        for (long i = 0; i < BLOCK; i++) y[t * channels + first + i] = out[i];
    }
}
"""


def plain_c_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, y: Tensor) -> Callable[[], None]:
    """A function that runs the scan of one sequence, on torch's number of threads, and writes `y (1, L, D)`.

    The arguments are those of `selective_scan`, contiguous float32, D a multiple of 64. Built with -O3 -march=native.

    Raises:
        FileNotFoundError: there is no C compiler.
        CalledProcessError: it could not build this.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise FileNotFoundError("no C compiler")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source, library = Path(folder) / "scan.c", Path(folder) / "scan.so"
        source.write_text(f"#define N {A.shape[1]}\n#define BLOCK {_BLOCK}\n{_SOURCE}")
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        command = [compiler, *flags, os.fspath(source), "-o", os.fspath(library), "-lm"]
        subprocess.run(command, check=True, capture_output=True)
        scan = ctypes.CDLL(os.fspath(library)).scan
    scan.argtypes = [ctypes.c_void_p] * 7 + [ctypes.c_long] * 3
    scan.restype = None
    tensors = (u, delta, A, B, C, D, y)
    length, channels = u.shape[1:]

    def blocks(start: int, stop: int) -> None:
        for block in range(start, stop):
            scan(*(tensor.data_ptr() for tensor in tensors), length, channels, block * _BLOCK)

    return lambda: run_spans(blocks, channels // _BLOCK)
