"""Predict the instances of labelled images, one by one, for measuring."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from rs4d_core.datasets.sample import Sample
from rs4d_core.datasets.transforms import load_evaluation_image
from rs4d_core.models.instances import Instances


def predict_samples(predict: Callable[[Tensor], list[Instances]], samples: Iterable[Sample]) -> Iterator[Instances]:
    """The instances of each sample's whole image, at its own resolution.

    Args:
        predict: images `(1, 3, H, W)` float32 0..255, H and W multiples of 32 -> their instances.

    Raises:
        DatasetError: an image cannot be read.
    """
    for sample in samples:
        image = load_evaluation_image(sample)
        yield predict(image.unsqueeze(0).to(torch.float32))[0]
