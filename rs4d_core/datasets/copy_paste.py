"""Instances of one view put into another: few labelled objects, on much more ground (copy-paste, arXiv 2012.07177).

Two things differ from the paper, because the images are taken from above. Objects on the ground do not cover each
other, so an instance is put only where the view shows free ground: none of the truth changes but by addition. And it
may come to lie anywhere, as a view from above has no horizon.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from rs4d_core.datasets.transforms import PADDING_RGB
from rs4d_core.models.instances import Target

_MOST_PASTED = 8
# Places tried for an instance before it is left out: dense views have no room for it.
_PLACES = 6
# Larger ones, a stadium or a bridge, would hide what the view shows.
_LARGEST_SHARE = 0.5
# The edge fades over some 2 pixels, as the optics of a camera let it; a hard one would be what is learned.
_EDGE_BLUR_PX = 0.8
# The ground around an instance is kept free too: masks that touch would look like one.
_GAP_PX = 2


def paste_instances(
    view: tuple[Tensor, Target], donor: tuple[Tensor, Target], rng: np.random.Generator
) -> tuple[Tensor, Target]:
    """`view` with some of the donor's instances on its free ground.

    Free is what lies outside of all instances, of regions to ignore and of padding. Instances without an outline are
    not taken, nor those that an edge cuts, the donor's own or its image's, nor those of a class that the view does not
    label.

    Args:
        view: image `(3, S, S)` uint8 and target, as `transforms.load_training_image` gives them.
        donor: another view of the same size.
        rng: decides what is taken, and where it lies.
    """
    image, target = view
    donor_image, donor_target = donor
    pixels, donor_pixels = image.numpy().copy(), donor_image.numpy()
    free = ~_occupied(target) & ~_padding(pixels)
    donor_padding = _padding(donor_pixels)
    taken, masks, boxes = [], [], []
    for index in rng.permutation(_usable(donor_target, target.annotated))[:_MOST_PASTED].tolist():
        mask = donor_target.masks[index].numpy()
        window = _window(mask)
        if _has_padded_side(donor_padding[window]):
            continue
        place = _free_place(mask[window], free, rng)
        if place is None:
            continue
        at = tuple(slice(start, start + part.stop - part.start) for start, part in zip(place, window, strict=True))
        _blend(pixels[:, at[0], at[1]], donor_pixels[:, window[0], window[1]], mask[window])
        pasted = np.zeros_like(mask)
        pasted[at] = mask[window]
        free[at] &= ~mask[window]
        shift = torch.tensor([at[1].start - window[1].start, at[0].start - window[0].start] * 2)
        taken.append(index)
        masks.append(torch.from_numpy(pasted))
        boxes.append(donor_target.boxes_xyxy[index] + shift)
    if not taken:
        return view
    return torch.from_numpy(pixels), Target(
        boxes_xyxy=torch.cat([target.boxes_xyxy, torch.stack(boxes)]),
        labels=torch.cat([target.labels, donor_target.labels[taken]]),
        masks=torch.cat([target.masks, torch.stack(masks)]),
        has_mask=torch.cat([target.has_mask, donor_target.has_mask[taken]]),
        ignore_xyxy=target.ignore_xyxy,
        annotated=target.annotated,
    )


def _padding(pixels: np.ndarray) -> np.ndarray:
    """Where the view `(3, S, S)` shows the padding around its image, `(S, S)` bool, or by chance the same colour."""
    return (pixels == np.reshape(PADDING_RGB, (3, 1, 1))).all(axis=0)


def _has_padded_side(padding: np.ndarray) -> bool:
    """Whether a window `(h, w)` reaches over the edge of its image: then one of its sides is all padding."""
    return bool(padding[[0, -1]].all(axis=1).any() or padding[:, [0, -1]].all(axis=0).any())


def _occupied(target: Target) -> np.ndarray:
    """`(S, S)` bool: instances, and regions to ignore."""
    occupied = target.masks.any(dim=0).numpy() if len(target.masks) else np.zeros(target.masks.shape[1:], bool)
    for x0, y0, x1, y1 in torch.cat([target.boxes_xyxy[~target.has_mask], target.ignore_xyxy]).tolist():
        occupied[int(y0) : int(np.ceil(y1)), int(x0) : int(np.ceil(x1))] = True
    return occupied


def _usable(target: Target, labelled: Tensor) -> np.ndarray:
    """Indices of instances of `labelled (classes,)` with an outline that is whole and small enough."""
    size = target.masks.shape[-1]
    boxes = target.boxes_xyxy
    inside = (boxes[:, :2] > _GAP_PX).all(1) & (boxes[:, 2:] < size - _GAP_PX).all(1)
    small = ((boxes[:, 2:] - boxes[:, :2]) < _LARGEST_SHARE * size).all(1)
    drawn = target.masks.flatten(1).any(1)
    return torch.nonzero(target.has_mask & inside & small & drawn & labelled[target.labels]).squeeze(1).numpy()


def _window(mask: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the mask's extent and the gap around it."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return tuple(
        slice(max(int(found[0]) - _GAP_PX, 0), min(int(found[-1]) + 1 + _GAP_PX, len(mask)))
        for found in (rows, columns)
    )


def _free_place(mask: np.ndarray, free: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """Row and column at which the whole of the mask's window lies on free ground, if some tries find one."""
    height, width = mask.shape
    for _ in range(_PLACES):
        row = int(rng.integers(free.shape[0] - height, endpoint=True))
        column = int(rng.integers(free.shape[1] - width, endpoint=True))
        if free[row : row + height, column : column + width].all():
            return row, column
    return None


def _blend(ground: np.ndarray, instance: np.ndarray, mask: np.ndarray) -> None:
    """Draw the instance `(3, h, w)` over the ground `(3, h, w)`, which is changed."""
    blurred = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(_EDGE_BLUR_PX))
    share = np.asarray(blurred, np.float32) / 255
    ground[:] = np.rint(ground + share * (instance.astype(np.float32) - ground)).astype(np.uint8)
