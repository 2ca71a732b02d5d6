"""From a sample to what the segmenter takes: load, crop, scale, flip, turn, colour; outlines follow analytically.

Polygons are moved as coordinates and drawn once, at the end, on the final grid: nothing is lost to repeated resampling,
and only what the crop shows is drawn.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as mask_utils
from torch import Tensor

from rs4d_core.datasets.color_jitter import jitter_color
from rs4d_core.datasets.cut_instances import shows_enough
from rs4d_core.datasets.pictures import read_picture
from rs4d_core.datasets.sample import Annotation, Sample
from rs4d_core.errors import OptionError
from rs4d_core.models.config import SIZE_DIVISOR
from rs4d_core.models.instances import Target

# Padding looks like the mean of ImageNet, which the segmenter's normalisation turns into 0.
PADDING_RGB = (124, 116, 104)
# Of the crops of an image with instances, this share is made to hold one of them; the rest may fall on background.
_CROPS_WITH_INSTANCE = 0.8


@dataclass(frozen=True)
class TransformSettings:
    """How strongly training images vary.

    Attributes:
        scale: least and greatest factor of the pixel grid, drawn log-uniformly (large-scale jitter).
        fit: the factors are on the image as its longer side fits the grid, not on its own pixels.
        flip: mirror half of the images.
        turn: turn by a random number of quarter turns. Aerial images have no upright.
        color: strength of the colour jitter; 0 is none, 1 is strong.
    """

    scale: tuple[float, float] = (0.5, 2.0)
    flip: bool = True
    turn: bool = True
    color: float = 0.5
    fit: bool = False

    def __post_init__(self) -> None:
        if not (len(self.scale) == 2 and 0 < self.scale[0] <= self.scale[1]):
            raise OptionError(f"scale is {self.scale}; give the least and the greatest factor, both above 0")
        if not 0 <= self.color <= 1:
            raise OptionError(f"color is {self.color}; give a strength from 0 to 1")


@dataclass(frozen=True)
class Placement:
    """Where an image comes to lie on the `(size, size)` training grid: scaled, shifted, mirrored, then turned.

    Attributes:
        size: of the grid, pixels.
        scale_xy: factors along x and y; they differ only by the rounding of the scaled image to whole pixels.
        shift_xy: added after scaling, whole pixels.
        scaled_size: width and height of the whole scaled image, pixels.
        mirrored: x is mirrored.
        turns: quarter turns, counter-clockwise as one sees the image.
    """

    size: int
    scale_xy: tuple[float, float]
    shift_xy: tuple[int, int]
    scaled_size: tuple[int, int]
    mirrored: bool
    turns: int

    @property
    def shown_xyxy(self) -> tuple[int, int, int, int]:
        """The part of the grid that the image covers, before mirroring and turning; the rest is padding."""
        (dx, dy), (width, height) = self.shift_xy, self.scaled_size
        return max(0, dx), max(0, dy), min(self.size, dx + width), min(self.size, dy + height)

    def points(self, points_xy: np.ndarray) -> np.ndarray:
        """Image pixels `(K, 2)` to grid pixels, float64."""
        x, y = (points_xy * self.scale_xy + self.shift_xy).T
        if self.mirrored:
            x = self.size - x
        for _ in range(self.turns):
            x, y = y, self.size - x
        return np.stack([x, y], axis=1)

    def boxes(self, boxes_xyxy: np.ndarray) -> np.ndarray:
        """Boxes `(K, 4)` in image pixels to boxes in grid pixels, not clipped."""
        corners = self.points(np.asarray(boxes_xyxy, np.float64).reshape(-1, 2)).reshape(-1, 2, 2)
        return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)

    def picture(self, image: Image.Image, padding: int | tuple[int, int, int]) -> np.ndarray:
        """The grid's pixels, `(size, size)` or `(size, size, 3)` uint8."""
        x0, y0, x1, y1 = self.shown_xyxy
        (dx, dy), (sx, sy) = self.shift_xy, self.scale_xy
        source = (
            (x0 - dx) / sx,
            (y0 - dy) / sy,
            min((x1 - dx) / sx, image.width),  # rounding must not reach beyond the image
            min((y1 - dy) / sy, image.height),
        )
        part = image.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=source, reducing_gap=2.0)
        grid = Image.new(image.mode, (self.size, self.size), padding)
        grid.paste(part, (x0, y0))
        pixels = np.asarray(grid)
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.rot90(pixels, self.turns)


def load_training_image(
    sample: Sample, size: int, rng: np.random.Generator, settings: TransformSettings, label: int | None = None
) -> tuple[Tensor, Target]:
    """A random view of the sample.

    Boxes are those of what the view shows. An instance of which it shows too little to be told (under 32 pixels, or
    under a fifth and under 400 pixels) becomes a region to ignore, as crowds do.

    Args:
        sample: what to load.
        size: side of the square view, pixels.
        rng: decides the view; the same state gives the same view.
        settings: how strongly views vary.
        label: where the view is made to hold an instance, one of this class, if the sample has any.

    Returns:
        Image `(3, size, size)` uint8 RGB, and the target on the same grid.

    Raises:
        DatasetError: the image cannot be decoded, or is not the size that its annotations say.
    """
    image = read_picture(sample)
    placement = draw_placement(sample, size, rng, settings, label)
    image = jitter_color(image, settings.color, rng)
    pixels = placement.picture(image, PADDING_RGB)
    return _channels_first(pixels), place_target(sample, placement)


def load_evaluation_image(sample: Sample, fit_px: int | None = None) -> Tensor:
    """The whole image `(3, H, W)`, uint8 RGB, padded at the right and at the bottom to multiples of 32 pixels.

    Args:
        sample: what to load.
        fit_px: the image is scaled by `fit_factors`; None leaves its pixels as they are.

    Raises:
        DatasetError: the image cannot be decoded, or is not the size that its annotations say.
    """
    image = read_picture(sample)
    if fit_px is not None:
        size = tuple(round(side * factor) for side, factor in zip(image.size, fit_factors(sample, fit_px), strict=True))
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    width, height = (-(-side // SIZE_DIVISOR) * SIZE_DIVISOR for side in image.size)
    grid = Image.new("RGB", (width, height), PADDING_RGB)
    grid.paste(image)
    return _channels_first(np.asarray(grid))


def fit_factors(sample: Sample, fit_px: int) -> tuple[float, float]:
    """Factors along x and y that make the image's longer side `fit_px` pixels, and both sides whole ones."""
    factor = fit_px / max(sample.width, sample.height)
    return tuple(max(1, round(side * factor)) / side for side in (sample.width, sample.height))


def draw_placement(
    sample: Sample, size: int, rng: np.random.Generator, settings: TransformSettings, label: int | None = None
) -> Placement:
    """A random placement of the sample's image on a grid of `size` pixels; see `load_training_image`."""
    scale = float(np.exp(rng.uniform(*np.log(settings.scale))))
    if settings.fit:
        scale *= size / max(sample.width, sample.height)
    scaled_size = (max(1, round(sample.width * scale)), max(1, round(sample.height * scale)))
    scale_xy = (scaled_size[0] / sample.width, scaled_size[1] / sample.height)
    instances = [annotation for annotation in sample.annotations if not annotation.crowd]
    instances = [annotation for annotation in instances if annotation.label == label] or instances
    centre = None
    if instances and rng.random() < _CROPS_WITH_INSTANCE:
        x0, y0, x1, y1 = instances[rng.integers(len(instances))].box_xyxy
        centre = (scale_xy[0] * (x0 + x1) / 2, scale_xy[1] * (y0 + y1) / 2)
    shift = []
    for axis, side in enumerate(scaled_size):
        # A larger image covers the grid, a smaller one lies anywhere on it.
        least, greatest = min(0, size - side), max(0, size - side)
        if centre is not None and side > size:
            least, greatest = max(least, int(-centre[axis])), min(greatest, int(size - centre[axis]))
        shift.append(int(rng.integers(least, greatest, endpoint=True)))
    mirrored = bool(settings.flip and rng.random() < 0.5)
    turns = int(rng.integers(4)) if settings.turn else 0
    return Placement(size, scale_xy, (shift[0], shift[1]), scaled_size, mirrored, turns)


def place_target(sample: Sample, placement: Placement) -> Target:
    """The sample's annotations on the grid of `placement`, clipped to what it shows of the image."""
    size = placement.size
    x0, y0, x1, y1 = placement.shown_xyxy
    shown = _turned_rectangle((x0, y0, x1, y1), placement)
    full_boxes, areas, polygons = _placed_outlines(sample.annotations, placement)
    clipped = np.concatenate(
        [np.maximum(full_boxes[:, :2], shown[:2]), np.minimum(full_boxes[:, 2:], shown[2:])], axis=1
    )
    visible = np.flatnonzero((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
    masks = np.zeros((len(visible), size, size), bool)
    boxes, labels, has_mask, ignored = [], [], [], []
    for index in visible:
        annotation, box = sample.annotations[index], clipped[index]
        if annotation.crowd:
            ignored.append(box)
            continue
        mask = masks[len(boxes)]
        cut = (box != full_boxes[index]).any()
        if annotation.polygons is not None:
            draw_polygons(polygons[index], box, mask)
        elif annotation.rle is not None:
            _draw_rle(annotation.rle, placement, mask)
        if annotation.has_outline:
            pixels, tight = _extent(mask, box)
            if cut and pixels:
                box = tight
        else:
            pixels = (box[2] - box[0]) * (box[3] - box[1])
        if not shows_enough(pixels, areas[index]):
            mask[:] = False
            ignored.append(box)
            continue
        boxes.append(box)
        labels.append(annotation.label)
        has_mask.append(annotation.has_outline)
    return Target(
        boxes_xyxy=torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=torch.from_numpy(masks[: len(boxes)]),
        has_mask=torch.tensor(has_mask, dtype=torch.bool),
        ignore_xyxy=torch.tensor(np.array(ignored), dtype=torch.float32).reshape(-1, 4),
        annotated=torch.tensor(
            [known and label not in sample.doubtful for label, known in enumerate(sample.annotated)], dtype=torch.bool
        ),
    )


def draw_polygons(rings: list[np.ndarray], box_xyxy: np.ndarray, mask: np.ndarray) -> None:
    """Set the pixels of `mask` `(H, W)` bool that lie in the union of `rings` and in the box, by COCO's own rule."""
    left, top = np.floor(box_xyxy[:2]).astype(int)
    right, bottom = np.ceil(box_xyxy[2:]).astype(int)
    flat = [(ring - (left, top)).ravel().tolist() for ring in rings]
    rles = mask_utils.frPyObjects(flat, int(bottom - top), int(right - left))
    mask[top:bottom, left:right] = mask_utils.decode(mask_utils.merge(rles))


def _placed_outlines(
    annotations: tuple[Annotation, ...], placement: Placement
) -> tuple[np.ndarray, np.ndarray, dict[int, list[np.ndarray]]]:
    """Of all annotations on the grid, not clipped: boxes `(N, 4)`, areas `(N,)` in pixels, and rings by annotation.

    All points are moved in one call: a dense image holds hundreds of outlines.
    """
    boxes = placement.boxes(np.array([annotation.box_xyxy for annotation in annotations]).reshape(-1, 4))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for index, annotation in enumerate(annotations):
        if annotation.rle is not None:
            areas[index] = float(mask_utils.area(annotation.rle)) * placement.scale_xy[0] * placement.scale_xy[1]
    owners = [index for index, annotation in enumerate(annotations) for _ in annotation.polygons or ()]
    if not owners:
        return boxes, areas, {}
    rings = [ring for annotation in annotations for ring in annotation.polygons or ()]
    ends = np.cumsum([len(ring) for ring in rings])
    placed = np.split(placement.points(np.concatenate(rings)), ends[:-1])
    polygons: dict[int, list[np.ndarray]] = {}
    for index, ring in zip(owners, placed, strict=True):
        polygons.setdefault(index, []).append(ring)
    for index, own in polygons.items():
        points = own[0] if len(own) == 1 else np.concatenate(own)
        boxes[index] = (*points.min(axis=0), *points.max(axis=0))
        areas[index] = sum(_area(ring) for ring in own)
    return boxes, areas, polygons


def _area(ring: np.ndarray) -> float:
    """Shoelace formula; `ring` is `(K, 2)`, closed by itself."""
    x, y = ring[:, 0], ring[:, 1]
    return abs(float(x[:-1] @ y[1:] - x[1:] @ y[:-1] + x[-1] * y[0] - x[0] * y[-1])) / 2


def _turned_rectangle(rectangle: tuple[int, int, int, int], placement: Placement) -> np.ndarray:
    """A rectangle of the grid before mirroring and turning -> after, `(4,)`."""
    unscaled = Placement(placement.size, (1.0, 1.0), (0, 0), (0, 0), placement.mirrored, placement.turns)
    return unscaled.boxes(np.array([rectangle]))[0]


def _draw_rle(rle: dict, placement: Placement, mask: np.ndarray) -> None:
    image = Image.fromarray(mask_utils.decode(rle) * 255)
    mask[:] = placement.picture(image, 0) >= 128


def _extent(mask: np.ndarray, box: np.ndarray) -> tuple[int, np.ndarray]:
    """The number of pixels set, and their bounds inside `box`."""
    left, top = np.floor(box[:2]).astype(int)
    right, bottom = np.ceil(box[2:]).astype(int)
    part = mask[top:bottom, left:right]
    rows, columns = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    if not len(rows):
        return 0, box
    drawn = np.array([left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1], float)
    tight = np.concatenate([np.maximum(drawn[:2], box[:2]), np.minimum(drawn[2:], box[2:])])
    return int(part.sum()), tight


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
