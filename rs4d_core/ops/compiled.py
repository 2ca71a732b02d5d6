"""How the project's CPU kernels are compiled and run on several threads.

The kernels are plain serial functions that release the GIL; the tasks they work through are shared out here. numba's
own `prange` is avoided on purpose: its portable threading layer aborts the process when two Python threads enter it at
once, its OpenMP layer aborts a forked child (a data loader's worker), and either adds a second set of worker threads
that ignores `torch.set_num_threads`.
"""

import functools
import hashlib
import os
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from numba import njit

# More spans than threads, so that a thread that the system holds up does not hold up the others. Each costs a call from
# Python, one after the other.
_SPANS_PER_THREAD = 2

_SHARED = ("compiled.py", "float_bits.py", "lanes.py", "scan_steps.py")

_pool: ThreadPoolExecutor | None = None


def compiled(**flags) -> Callable:
    """`numba.njit` for a kernel: compiled at its first call, kept on disk, free of the GIL, IEEE division.

    numba keeps its cache beside the source, or else in the user's cache folder. Where it may write neither (a read-only
    installation under an account without a home) it refuses to decorate; there, each process compiles anew.

    numba rebuilds a cached kernel when the file that it is in changes. Here also when one of `_SHARED` does, from which
    kernels import: a kernel calls only compiled functions of its own file and of those.
    """
    options = {"nogil": True, "error_model": "numpy", **flags}

    def decorate(function: Callable) -> Callable:
        try:
            kernel = njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)
        try:
            index = kernel._cache._cache_file
            index._source_stamp = (index._source_stamp, _shared_stamp())
        except AttributeError:
            pass  # A numba that keeps its stamp elsewhere; its own check of the kernel's file remains.
        return kernel

    return decorate


@functools.cache
def _shared_stamp() -> str:
    """A digest of the files that kernels of other files import from."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in _SHARED)).hexdigest()


def run_spans(kernel: Callable[[int, int], None], tasks: int) -> None:
    """Call `kernel(start, stop)` on spans that cover `range(tasks)`, on `torch.get_num_threads()` threads.

    The spans run at the same time, so tasks must not write to the same place. The calling thread works too.
    """
    workers = min(torch.get_num_threads(), tasks)
    if workers <= 1:
        if tasks:
            kernel(0, tasks)
        return
    step = -(-tasks // (workers * _SPANS_PER_THREAD))
    pending = deque(range(0, tasks, step))

    def work() -> None:
        while True:
            try:
                start = pending.popleft()
            except IndexError:
                return
            kernel(start, min(start + step, tasks))

    helpers = [_threads().submit(work) for _ in range(workers - 1)]
    work()
    for helper in helpers:
        helper.result()


def _threads() -> ThreadPoolExecutor:
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="rs4d-kernel")
    return _pool


def _forget_threads() -> None:
    # Threads do not survive a fork: a child that kept the pool would wait for them forever.
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)
