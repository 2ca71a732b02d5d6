"""RS4D: instance segmentation of remote-sensing scenes with a linear-time state space encoder."""

import os

__version__ = "0.1.0"

# torch's threads would otherwise go on spinning for milliseconds after each of its operations, and so take the
# processors from our own kernels' threads, which come next: the encoder takes half as long again. But waking a thread
# that sleeps takes as long as a small operation does. So where the threads are GNU's, as on Linux, they spin for a
# fraction of a millisecond; elsewhere they sleep at once. torch reads this when it is first imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
