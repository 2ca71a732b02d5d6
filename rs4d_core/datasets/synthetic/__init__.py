"""Deterministic generated scenes with exact instance truth, for tests, the demonstration and training."""

from rs4d_core.datasets.synthetic.files import default_transform, truth_features, write_large_scene, write_scene
from rs4d_core.datasets.synthetic.samples import scene_sample, synthetic_samples
from rs4d_core.datasets.synthetic.scene import SYNTHETIC_CLASSES, SyntheticInstance, SyntheticScene, generate_scene

__all__ = [
    "SYNTHETIC_CLASSES",
    "SyntheticInstance",
    "SyntheticScene",
    "default_transform",
    "generate_scene",
    "scene_sample",
    "synthetic_samples",
    "truth_features",
    "write_large_scene",
    "write_scene",
]
