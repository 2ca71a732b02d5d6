"""RS4D: instance segmentation of remote-sensing scenes with a linear-time state space encoder."""

__version__ = "0.1.0"
