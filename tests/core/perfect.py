"""A predictor that is always right, so that a test of the pipeline tests the pipeline.

`views` crops the true coverage of each object to a window: what a model would say of it if it made no mistake.
`ColorPredictor` does the same from pixels alone, for scenes in which each class has a colour of its own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.features
import shapely
import torch
from affine import Affine

from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.scenes.windows.plan import Window

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


COLORS = ("red", "green", "blue")


class ColorPredictor:
    """Finds red, green and blue blobs on black or grey ground: one class a colour, one instance a connected blob.

    How much of a pixel has the colour is its probability, so outlines are exact below a pixel. It answers for images
    alone, as any model does.
    """

    name = "colours"
    sha256 = "0" * 64
    classes = COLORS
    colors = ("#ff0000", "#00ff00", "#0000ff")
    default_scores = (0.5, 0.5, 0.5)
    bytes_a_pixel = 100.0

    def __init__(self, window_px=64, overlap_px=16, resolution_m=(0.01, 100.0), device="cpu"):
        self.window_px = window_px
        self.overlap_px = overlap_px
        self.resolution_m = resolution_m
        self.device = device
        self.images_seen = 0

    def predict(self, images: torch.Tensor, least_scores: torch.Tensor) -> list[Instances]:
        self.images_seen += len(images)
        return [self._blobs(image.numpy()) for image in images]

    @staticmethod
    def _blobs(image: np.ndarray) -> Instances:
        patches, labels = [], []
        for label in range(3):
            others = image[[other for other in range(3) if other != label]].max(axis=0)
            color = np.clip((image[label] - others) / 255, 0, 1)
            if color.max() <= 0.5:
                continue
            inside = color > 0.5
            outlines = [shape for shape, _ in rasterio.features.shapes(inside.astype(np.uint8), inside, connectivity=4)]
            numbers = rasterio.features.rasterize(zip(outlines, range(1, len(outlines) + 1), strict=True), inside.shape)
            for number, outline in enumerate(outlines, 1):
                x, y = np.array(outline["coordinates"][0]).T.astype(int)
                top, left = max(y.min() - 1, 0), max(x.min() - 1, 0)
                here = np.s_[top : y.max() + 1, left : x.max() + 1]
                mine = np.where(np.isin(numbers[here], (0, number)), color[here], 0)
                box = (left, top, left + mine.shape[1], top + mine.shape[0])
                patches.append(MaskPatch(torch.from_numpy(mine.astype(np.float32)), tuple(map(float, box))))
                labels.append(label)
        return instances(patches, labels, np.full(len(patches), 0.9))


def paint(truths: list[Truth], width: int, height: int) -> np.ndarray:
    """A picture `(3, height, width)` uint8 in which `ColorPredictor` sees these objects, on black ground."""
    picture = np.zeros((3, height, width))
    for truth in truths:
        rows, columns = truth.coverage.shape
        picture[truth.label, truth.row : truth.row + rows, truth.col : truth.col + columns] += 255 * truth.coverage
    return picture.clip(0, 255).astype(np.uint8)


def write_raster(path: Path, picture: np.ndarray, crs: str | None, transform: Affine, **options) -> Path:
    """A GeoTIFF of `picture (3, height, width)`."""
    bands, height, width = picture.shape
    with rasterio.open(
        path, "w", "GTiff", width, height, bands, crs, transform, picture.dtype, photometric="RGB", **options
    ) as file:
        file.write(picture)
    return path
