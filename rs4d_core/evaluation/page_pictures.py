"""The pictures of an evaluation page: precision-recall curves, and images with their truth and predictions."""

import io
from collections.abc import Iterable, Mapping, Sequence

import contourpy
import numpy as np
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from PIL import Image, ImageColor, ImageDraw
from pycocotools import mask as mask_utils

from rs4d_core.datasets.pictures import read_picture
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.evaluation.coco_metrics import MASK_THRESHOLD, ImageResult
from rs4d_core.evaluation.paste import paste_mask
from rs4d_core.models.instances import Instances

RECALLS = np.linspace(0, 1, 101)
PANEL_PX = 460
"""Longer side of an image on the page."""
_GAP_PX = 8
_DARK, _LIGHT = "#1b1f24", "#e8ecf0"
_MISTAKE = (255, 40, 40)
_MISTAKE_OPACITY = 120
_QUALITY = 88
# Outlines are drawn this many times larger and reduced: PIL draws without smoothing.
_OVERSAMPLING = 3
_LINE_PX = 1.6

Ring = np.ndarray
"""`(K, 2)` x, y in pixels of an image."""


def draw_curves(kinds: Mapping[str, Mapping[str, np.ndarray]], colors: Mapping[str, str]) -> bytes:
    """Precision by recall, as SVG: for each kind (its title) the curve of each class, and their mean in white.

    Classes are told by their colours alone: the page has the legend. Names are never part of the drawing, for they may
    be anything, markup of mathematics included.

    Args:
        kinds: title -> class -> precision `(101,)` at `RECALLS`.
        colors: class -> "#rrggbb".
    """
    figure = Figure(figsize=(9.6, 4.2), layout="constrained", facecolor=_DARK)
    for axes, (title, curves) in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds.items(), strict=True):
        axes.set_facecolor(_DARK)
        for name, curve in curves.items():
            axes.plot(RECALLS, curve, color=colors[name], lw=1.6)
        if len(curves) > 1:
            axes.plot(RECALLS, np.mean(list(curves.values()), axis=0), color="white", lw=2.4)
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="recall", ylabel="precision")
        axes.set_title(title, color=_LIGHT)
        axes.grid(alpha=0.2)
        axes.tick_params(colors=_LIGHT)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set_color(_LIGHT)
        for side in axes.spines.values():
            side.set_color("#5a636e")
    drawn = io.BytesIO()
    FigureCanvasSVG(figure).print_svg(drawn, metadata={"Date": None, "Creator": None})
    return drawn.getvalue()


def draw_comparison(sample: Sample, instances: Instances, result: ImageResult, colors: Sequence[str]) -> bytes:
    """The image twice, as JPEG: with its truth, and with the predictions that are counted.

    Outlines have the colour of their class. What was missed on the left, and what is wrong on the right, is filled red.

    Args:
        sample: the image and its truth.
        instances: all that was predicted.
        result: which of both is drawn.
        colors: "#rrggbb" for each label.

    Raises:
        DatasetError: the image cannot be read.
    """
    picture = read_picture(sample)
    scale = min(PANEL_PX / max(picture.size), 4.0)
    size = tuple(max(1, round(side * scale)) for side in picture.size)
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    truth, missed = sample.annotations, set(result.missed)
    left = [
        (_truth_rings(truth[place], sample), colors[truth[place].label], place in missed)
        for place in (*result.found, *result.missed)
    ]
    wrong, labels = set(result.wrong), instances.labels.tolist()
    right = [
        (_predicted_rings(instances, place, sample), colors[labels[place]], place in wrong)
        for place in (*result.right, *result.wrong)
    ]
    whole = Image.new("RGB", (2 * size[0] + _GAP_PX, size[1]), "white")
    for shapes, x in ((left, 0), (right, size[0] + _GAP_PX)):
        overlay = _outlines(shapes, size, (size[0] / sample.width, size[1] / sample.height))
        whole.paste(Image.alpha_composite(picture.convert("RGBA"), overlay).convert("RGB"), (x, 0))
    drawn = io.BytesIO()
    whole.save(drawn, "JPEG", quality=_QUALITY)
    return drawn.getvalue()


def _outlines(
    shapes: Iterable[tuple[list[Ring], str, bool]], size: tuple[int, int], scale_xy: tuple[float, float]
) -> Image.Image:
    overlay = Image.new("RGBA", (size[0] * _OVERSAMPLING, size[1] * _OVERSAMPLING))
    draw = ImageDraw.Draw(overlay)
    placed = [
        ([_points(ring * scale_xy * _OVERSAMPLING) for ring in rings], color, mistaken)
        for rings, color, mistaken in shapes
    ]
    for rings, _, mistaken in placed:
        for points in rings if mistaken else ():
            draw.polygon(points, fill=(*_MISTAKE, _MISTAKE_OPACITY))
    for width, ink in ((_LINE_PX + 1.4, (0, 0, 0, 130)), (_LINE_PX, None)):
        for rings, color, _ in placed:
            for points in rings:
                line = ink or (*ImageColor.getrgb(color), 255)
                draw.line([*points, *points[:2]], fill=line, width=round(width * _OVERSAMPLING), joint="curve")
    return overlay.resize(size, Image.Resampling.BOX)


def _points(ring: Ring) -> list[tuple[float, float]]:
    return [tuple(point) for point in ring.tolist()]


def _truth_rings(annotation: Annotation, sample: Sample) -> list[Ring]:
    if annotation.polygons is not None:
        return list(annotation.polygons)
    if annotation.rle is not None:
        return _contours(mask_utils.decode(annotation.rle).astype(np.float32))
    return [_rectangle(annotation.box_xyxy)]


def _predicted_rings(instances: Instances, place: int, sample: Sample) -> list[Ring]:
    rings = _contours(paste_mask(instances.masks[place], sample.width, sample.height))
    # A mask may hold no pixel at all: its box still tells where it is.
    return rings or [_rectangle(instances.boxes_xyxy[place].tolist())]


def _rectangle(box_xyxy: Sequence[float]) -> Ring:
    x0, y0, x1, y1 = box_xyxy
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])


def _contours(mask: np.ndarray) -> list[Ring]:
    """The rings at the threshold of `(H, W)` probabilities, in pixels of the image; closed at its edges."""
    padded = np.pad(mask, 1)
    # Pixel (row, col) of the image has its centre at (col + 0.5, row + 0.5), and the padding shifts by one.
    return [ring - 0.5 for ring in contourpy.contour_generator(z=padded).lines(MASK_THRESHOLD)]
