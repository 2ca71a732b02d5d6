"""The largest window that memory holds, for those who want few seams more than the model's own view."""

import os
import sys
from pathlib import Path

from rs4d_core.models.config import SIZE_DIVISOR

LARGEST_PX = 4096
# Of the memory that is free now: the rest is for the scene, the polygons and whoever else is at work.
_SHARE = 0.5


def largest_window(bytes_a_pixel: float, smallest_px: int, device: str) -> int:
    """Side of the largest square window, from `smallest_px` to 4096 px, that half of the device's free memory holds.

    Args:
        bytes_a_pixel: what the prediction of a window takes for each of its pixels.
    """
    side = int((_SHARE * _free_bytes(device) / bytes_a_pixel) ** 0.5) // SIZE_DIVISOR * SIZE_DIVISOR
    return max(min(side, LARGEST_PX), smallest_px)


def _free_bytes(device: str) -> float:
    if device != "cpu":
        import torch  # takes seconds, and options are checked before

        return torch.cuda.mem_get_info(device)[0]
    if sys.platform == "linux":
        # Not what nobody uses, which is little on any machine that has read files, but what can be had.
        facts = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return 1024 * int(facts["MemAvailable"].split()[0])
    if sys.platform == "win32":
        import psutil

        return psutil.virtual_memory().available
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2
