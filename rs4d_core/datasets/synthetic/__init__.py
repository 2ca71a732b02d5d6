"""Deterministic generated scenes with exact instance truth, for tests, the demonstration and training."""

from rs4d_core.datasets.synthetic.samples import scene_sample, synthetic_samples
from rs4d_core.datasets.synthetic.scene import SYNTHETIC_CLASSES, SyntheticInstance, SyntheticScene, generate_scene

__all__ = [
    "SYNTHETIC_CLASSES",
    "SyntheticInstance",
    "SyntheticScene",
    "generate_scene",
    "scene_sample",
    "synthetic_samples",
]
