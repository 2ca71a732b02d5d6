"""Which device computes, in which precision, and why."""

import functools
import math
import time
from dataclasses import dataclass

import torch

from rs4d_core.device_name import check_device_name
from rs4d_core.errors import OptionError

_REPETITIONS = 25
_MARGIN = 1.5


@dataclass(frozen=True)
class Device:
    """A device that computes.

    Attributes:
        name: as torch names it: "cpu", "cuda:0".
        reason: why this one, in words for the user.
        gpu: as its maker names it; None for the CPU.
    """

    name: str
    reason: str
    gpu: str | None = None


def choose_device(wanted: str = "auto") -> Device:
    """The device for `wanted`: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        OptionError: the name is unknown, or there is no such GPU.
    """
    check_device_name(wanted)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        if count:
            gpu = torch.cuda.get_device_name(0)
            return Device("cuda:0", f"CUDA GPU found: {gpu}", gpu)
        why = "this torch has no CUDA support" if torch.version.cuda is None else "no CUDA GPU was found"
        return Device("cpu", why)
    if wanted == "cpu":
        return Device("cpu", "asked for")
    number = int(wanted.partition(":")[2] or 0)
    if number >= count:
        raise OptionError(f"device {wanted!r} is not available ({count} CUDA GPUs found): use auto or cpu")
    return Device(f"cuda:{number}", "asked for", torch.cuda.get_device_name(number))


@functools.cache
def fast_dtype(device: str) -> torch.dtype:
    """The type in which matrix products on `device` are fastest: bfloat16 or float32.

    On a CPU it is measured, once a process (some 10 ms): bfloat16 is four times faster on one processor and slower than
    float32 on the next, and its flags do not tell which. The results differ in their last digits, so that every process
    of a machine must come to the same answer, however busy the machine is: hence the margin, and the best of many.
    """
    if device != "cpu":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    threads = torch.get_num_threads()
    # Several threads would wait for each other, and on a busy machine that is all that would be measured.
    torch.set_num_threads(1)
    float32_s, bfloat16_s = math.inf, math.inf
    for _ in range(_REPETITIONS):
        float32_s = min(float32_s, _matmul_seconds(torch.float32))
        bfloat16_s = min(bfloat16_s, _matmul_seconds(torch.bfloat16))
    torch.set_num_threads(threads)
    return torch.bfloat16 if bfloat16_s * _MARGIN < float32_s else torch.float32


def _matmul_seconds(dtype: torch.dtype) -> float:
    a, b = torch.ones(256, 256, dtype=dtype), torch.ones(256, 512, dtype=dtype)
    start = time.perf_counter()
    a @ b
    return time.perf_counter() - start
