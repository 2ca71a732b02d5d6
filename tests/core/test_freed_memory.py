"""Freed memory is used again."""

import subprocess
import sys

import pytest

# In a thread, as predictions are made; in a process of its own, since it holds for all of a process.
FAULTS = """
import resource, threading
import torch
from rs4d_core.freed_memory import keep_freed_memory

def fill():
    for _ in range(8):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(4):
            torch.ones(25_000_000)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

keep_freed_memory()
faults = []
thread = threading.Thread(target=fill)
thread.start()
thread.join()
print(faults[-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc only")
def test_arrays_of_100_mb_come_from_memory_that_is_there():
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    # Without it, every page of every array: 4 x 24 414.
    assert int(run.stdout) < 1000
