"""Instances of one view put into another."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.datasets.copy_paste import paste_instances
from rs4d_core.datasets.synthetic import SYNTHETIC_CLASSES, synthetic_samples
from rs4d_core.datasets.transforms import PADDING_RGB, TransformSettings, load_training_image
from rs4d_core.errors import RecipeError
from rs4d_core.finetuning.recipe import CocoData
from rs4d_core.models.instances import Target

SIZE = 160


def _generated(seed):
    """A view of a generated scene, small on its grid as it often is in training: there is padding around it."""
    sample = synthetic_samples([seed], SIZE, SIZE, SYNTHETIC_CLASSES, (0.5, 0.5))[0]
    return load_training_image(sample, SIZE, np.random.default_rng(seed), TransformSettings((0.7, 1.2), color=0.0))


def _square(color, box, *, outlined=True, ignored=(), labelled=True):
    """A view of one square, as bright as `color`, on black ground."""
    x0, y0, x1, y1 = box
    mask = torch.zeros(1, SIZE, SIZE, dtype=torch.bool)
    mask[0, y0:y1, x0:x1] = True
    image = (mask * color).to(torch.uint8).expand(3, -1, -1).clone()
    return image, Target(
        torch.tensor([box], dtype=torch.float32),
        torch.tensor([0]),
        mask if outlined else torch.zeros_like(mask),
        torch.tensor([outlined]),
        torch.tensor(ignored, dtype=torch.float32).reshape(-1, 4),
        torch.tensor([labelled]),
    )


def _padded(view, columns):
    """The view as that of an image of which nothing is known in the first columns."""
    view[0][:, :, :columns] = torch.tensor(PADDING_RGB).view(3, 1, 1)
    return view


@settings(max_examples=15, deadline=None)
@given(seeds=st.tuples(*[st.integers(0, 40)] * 3))
def test_what_is_pasted_is_the_donors_and_lies_on_free_ground(seeds):
    view, donor = _generated(seeds[0]), _generated(seeds[1] + 100)
    image, target = paste_instances(view, donor, np.random.default_rng(seeds[2]))
    old = len(view[1].labels)

    for name in ("boxes_xyxy", "labels", "masks", "has_mask"):
        assert torch.equal(getattr(target, name)[:old], getattr(view[1], name)), name
    assert int(target.masks[old:].sum(0).max() if len(target.masks) > old else 0) <= 1
    padding = (view[0] == torch.tensor(PADDING_RGB).view(3, 1, 1)).all(0)
    outside = torch.ones(SIZE, SIZE, dtype=torch.bool)
    for box, label, mask in zip(target.boxes_xyxy[old:], target.labels[old:], target.masks[old:], strict=True):
        assert not (mask & (view[1].masks.any(0) | padding)).any()
        rows, columns = torch.nonzero(mask, as_tuple=True)
        drawn = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        assert (drawn - box).abs().max() <= 1.5
        same = [k for k in torch.nonzero(donor[1].labels == label) if donor[1].masks[k].sum() == mask.sum()]
        assert same, "it is none of the donor's"
        x0, y0, x1, y1 = drawn.tolist()
        outside[max(y0 - 3, 0) : y1 + 3, max(x0 - 3, 0) : x1 + 3] = False
    assert torch.equal(image[:, outside], view[0][:, outside])


def test_an_instance_comes_with_its_pixels():
    image, target = paste_instances(
        _square(90, (0, 0, 20, 20)), _square(200, (60, 60, 90, 80)), np.random.default_rng(0)
    )
    assert target.labels.tolist() == [0, 0]
    x0, y0, x1, y1 = target.boxes_xyxy[1].int().tolist()
    assert (x1 - x0, y1 - y0) == (30, 20)
    assert (image[:, y0 + 3 : y1 - 3, x0 + 3 : x1 - 3] == 200).all(), "the inside is as it was"
    assert 0 < int(image[0, y0 + 10, x0]) < 200, "the edge fades"


@pytest.mark.parametrize(
    ("view", "donor"),
    [
        (_square(90, (0, 0, 20, 20), ignored=[(0, 0, SIZE, SIZE)]), _square(200, (60, 60, 90, 80))),
        (_square(90, (0, 0, SIZE, SIZE), outlined=False), _square(200, (60, 60, 90, 80))),
        (_square(90, (0, 0, 20, 20)), _square(200, (60, 60, 90, 80), outlined=False)),
        (_square(90, (0, 0, 20, 20), labelled=False), _square(200, (60, 60, 90, 80))),
        (_square(90, (0, 0, 20, 20)), _square(200, (0, 60, 30, 80))),
        (_square(90, (0, 0, 20, 20)), _padded(_square(200, (60, 60, 90, 80)), 60)),
        (_square(90, (0, 0, 20, 20)), _square(200, (10, 10, 150, 150))),
    ],
    ids=[
        "ignored ground",
        "ground of a box",
        "a donor without outline",
        "a class that the view does not label",
        "a donor cut by the edge",
        "a donor cut by the edge of its image",
        "too large a donor",
    ],
)
def test_where_nothing_can_be_pasted_the_view_stays_as_it_is(view, donor):
    image, target = paste_instances(view, donor, np.random.default_rng(1))
    assert len(target.labels) == 1
    assert torch.equal(image, view[0])


def test_a_recipe_cannot_paste_into_more_than_all_views():
    with pytest.raises(RecipeError, match=r"datasets\.own\.copy_paste is 1\.5"):
        CocoData("own", "a.json", "images", 1, (0.5, 2.0), "none", copy_paste=1.5)
