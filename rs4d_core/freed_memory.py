"""Memory that a window's prediction frees is kept for the next one."""

import ctypes
import sys

# Parameters of glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 1 << 30


def keep_freed_memory() -> None:
    """Have this process keep up to 1 GiB of what it frees. Does nothing where the C library is not glibc.

    A prediction makes and drops hundreds of arrays of some megabytes. glibc gives each back to the system at once and
    asks for it anew, and the system clears every page: at windows of 2048 px a seventh of the time went there. What is
    held at the peak does not grow; it is only held on to between two windows.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        # Only the first arena can grow past 64 MB: arrays of a thread's own arena would go back to the system still.
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _KEPT_BYTES)
        mallopt(_TRIM_THRESHOLD, _KEPT_BYTES)
