"""Predict the instances of labelled images, one by one, for measuring."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rs4d_core.datasets.sample import Sample
from rs4d_core.datasets.transforms import fit_factors, load_evaluation_image
from rs4d_core.models.instances import Instances, MaskPatch


def predict_samples(
    predict: Callable[[Tensor], list[Instances]], samples: Iterable[Sample], fit_px: int | None = None
) -> Iterator[Instances]:
    """The instances of each sample's whole image, in pixels of the image.

    Args:
        predict: images `(1, 3, H, W)` float32 0..255, H and W multiples of 32 -> their instances.
        samples: the images.
        fit_px: they are predicted with their longer side scaled to so many pixels; None: at their own resolution.

    Raises:
        DatasetError: an image cannot be read.
    """
    for sample in samples:
        image = load_evaluation_image(sample, fit_px)
        instances = predict(image.unsqueeze(0).to(torch.float32))[0]
        yield instances if fit_px is None else _scaled_back(instances, *fit_factors(sample, fit_px))


def _scaled_back(instances: Instances, factor_x: float, factor_y: float) -> Instances:
    factors = torch.tensor([factor_x, factor_y, factor_x, factor_y])
    patches = [
        MaskPatch(patch.probabilities, tuple((torch.tensor(patch.box_xyxy) / factors).tolist()))
        for patch in instances.masks
    ]
    return Instances(instances.boxes_xyxy / factors, instances.scores, instances.labels, patches)
