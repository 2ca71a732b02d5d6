"""A predictor that is always right, so that a test of the pipeline tests the pipeline.

`views` crops the true coverage of each object to a window: what a model would say of it if it made no mistake.
"""

from dataclasses import dataclass

import numpy as np
import shapely
import torch

from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.scenes.windows import Window

SUBPIXELS = 4


@dataclass(frozen=True)
class Truth:
    """One object: the share `(h, w)` of each pixel that it covers, from pixel `(row, col)` of the scene on."""

    coverage: np.ndarray
    col: int
    row: int
    label: int


def cover(shape: shapely.Geometry, label: int, width: int, height: int) -> Truth:
    """The truth about a shape given in pixels of a scene of `width` x `height` pixels, sampled 4 x 4 times a pixel."""
    x0, y0, x1, y1 = shape.bounds
    col, row = max(int(np.floor(x0)), 0), max(int(np.floor(y0)), 0)
    columns, rows = min(int(np.ceil(x1)), width) - col, min(int(np.ceil(y1)), height) - row
    x = col + (np.arange(columns * SUBPIXELS) + 0.5) / SUBPIXELS
    y = row + (np.arange(rows * SUBPIXELS) + 0.5) / SUBPIXELS
    samples = shapely.contains_xy(shape, *np.meshgrid(x, y))
    return Truth(samples.reshape(rows, SUBPIXELS, columns, SUBPIXELS).mean(axis=(1, 3)), col, row, label)


def views(truths: list[Truth], window: Window, rng: np.random.Generator) -> Instances:
    """What a perfect model sees of the objects in a window, with scores that mean nothing."""
    patches, labels = [], []
    for truth in truths:
        height, width = truth.coverage.shape
        left, top = max(truth.col, window.col), max(truth.row, window.row)
        right = min(truth.col + width, window.col + window.width)
        bottom = min(truth.row + height, window.row + window.height)
        if left >= right or top >= bottom:
            continue
        seen = truth.coverage[top - truth.row : bottom - truth.row, left - truth.col : right - truth.col]
        if seen.max() > 0.5:
            box = (left - window.col, top - window.row, right - window.col, bottom - window.row)
            patches.append(MaskPatch(torch.tensor(seen, dtype=torch.float32), tuple(map(float, box))))
            labels.append(truth.label)
    return instances(patches, labels, rng.uniform(0.1, 1.0, len(patches)))


def instances(patches: list[MaskPatch], labels: list[int], scores: np.ndarray) -> Instances:
    """Patches as the answer of a segmenter, best score first."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    return Instances(
        torch.tensor([patches[i].box_xyxy for i in order], dtype=torch.float32).reshape(-1, 4),
        torch.tensor(np.asarray(scores)[order], dtype=torch.float32),
        torch.tensor([labels[i] for i in order], dtype=torch.int64),
        [patches[i] for i in order],
    )
