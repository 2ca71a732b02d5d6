"""RS4D: instance segmentation of remote-sensing scenes with a linear-time state space encoder."""

import os

__version__ = "0.1.0"

# torch's threads would otherwise go on spinning after each of its operations and so take the processors from our own
# kernels' threads, which come next: the encoder takes half as long again. torch reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
