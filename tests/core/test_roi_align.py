"""RoIAlign against a loop that follows its definition, and properties that need no reference."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.ops.roi_align import pyramid_roi_align, roi_align


def add_sample(weights, y, x, share):
    """Add to `weights (H, W)` those of one bilinear sample, as RoIAlign defines it at and outside the border."""
    height, width = weights.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return
    y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    weights[top, left] += (1 - (y - top)) * (1 - (x - left)) * share
    weights[top, right] += (1 - (y - top)) * (x - left) * share
    weights[bottom, left] += (y - top) * (1 - (x - left)) * share
    weights[bottom, right] += (y - top) * (x - left) * share


def roi_align_loop(features, boxes_xyxy, batch_index, output_size, spatial_scale, sampling_ratio):
    weights = np.zeros((len(boxes_xyxy), output_size, output_size, *features.shape[2:]))
    for box, corners in enumerate(boxes_xyxy.tolist()):
        x0, y0, x1, y1 = (corner * spatial_scale - 0.5 for corner in corners)
        width, height = (x1 - x0) / output_size, (y1 - y0) / output_size
        across, down = sampling_ratio or math.ceil(width), sampling_ratio or math.ceil(height)
        for row, col, i, j in itertools.product(range(output_size), range(output_size), range(down), range(across)):
            y, x = y0 + (row + (i + 0.5) / down) * height, x0 + (col + (j + 0.5) / across) * width
            add_sample(weights[box, row, col], y, x, 1 / (down * across))
    return torch.einsum("krshw,kchw->kcrs", torch.from_numpy(weights), features[batch_index])


# Inside, over two edges, wholly outside, tiny, a large one over everything, and of no area.
BOXES = torch.tensor(
    [
        [10.3, 6.2, 40.9, 33.3],
        [-9.0, 30.0, 12.0, 90.0],
        [200.0, 200.0, 230.0, 240.0],
        [20.1, 20.2, 21.3, 21.1],
        [-30.0, -30.0, 120.0, 120.0],
        [15.0, 15.0, 15.0, 15.0],
    ]
)
IMAGES = torch.tensor([0, 1, 0, 1, 1, 0])
SETTINGS = {"output_size": 3, "spatial_scale": 0.25}


def random_features(channels):
    return torch.randn(2, channels, 14, 19, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("sampling_ratio", [2, 0])
# More than one block of channels of the compiled backward pass, channels beyond the last whole vector, and the float64
# path in plain torch.
@pytest.mark.parametrize(
    ("dtype", "channels", "error"), [(torch.float32, 130, 1e-5), (torch.bfloat16, 21, 0.05), (torch.float64, 3, 1e-12)]
)
def test_values_and_gradients_agree_with_the_loop(dtype, channels, error, sampling_ratio):
    features = random_features(channels).to(dtype)
    results = []
    for function, values in ((roi_align, features), (roi_align_loop, features.double())):
        values = values.clone().requires_grad_()
        pooled = function(values, BOXES, IMAGES, **SETTINGS, sampling_ratio=sampling_ratio)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).bfloat16()
        results.append((pooled, *torch.autograd.grad(pooled, values, weights.to(pooled.dtype))))
    for found, wanted in zip(*results, strict=True):
        assert found.dtype == dtype
        assert found.shape == wanted.shape
        assert (found.double() - wanted).abs().max() <= error * wanted.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_boxes_that_read_several_levels_get_what_each_level_gives_them(dtype):
    strides, level_of = (4, 8, 16), torch.tensor([2, 0, 1, 0, 2, 0])
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(2, 5, 80 // s, 96 // s, generator=generator).to(dtype).requires_grad_() for s in strides]
    pooled = pyramid_roi_align(levels, level_of, BOXES, IMAGES, 3, strides)
    grads = torch.autograd.grad(pooled.double().square().sum(), levels)
    for index, (level, stride) in enumerate(zip(levels, strides, strict=True)):
        mine = level_of == index
        alone = roi_align(level, BOXES[mine], IMAGES[mine], 3, 1 / stride)
        assert torch.equal(pooled[mine], alone)
        torch.testing.assert_close(grads[index], torch.autograd.grad(alone.double().square().sum(), level)[0])


def test_memory_layout_and_threads_change_nothing():
    features = random_features(7).float()
    wanted = roi_align(features, BOXES, IMAGES, **SETTINGS)
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            for layout in (torch.channels_last, torch.contiguous_format):
                values = features.contiguous(memory_format=layout)
                assert torch.equal(roi_align(values, BOXES, IMAGES, **SETTINGS), wanted)
    finally:
        torch.set_num_threads(before)


def test_the_torch_path_passes_gradcheck():
    features = random_features(1)[:, :, :4, :5].requires_grad_()
    boxes = torch.tensor([[1.0, 2.0, 15.0, 14.5], [-3.0, 3.0, 9.0, 21.0]])
    assert torch.autograd.gradcheck(lambda f: roi_align(f, boxes, torch.tensor([1, 0]), 2, 0.25), features)


@settings(max_examples=50, deadline=None)
@given(
    corner=st.tuples(st.floats(4, 60), st.floats(4, 60)),
    size=st.tuples(st.floats(0.1, 60), st.floats(0.1, 60)),
    output_size=st.integers(1, 7),
    sampling_ratio=st.integers(0, 3),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_ramp_is_sampled_at_the_centres_of_the_cells(dtype, corner, size, output_size, sampling_ratio):
    """On a map that holds its own coordinates in image pixels, each cell's mean is its centre."""
    stride = 4
    centres = (torch.arange(32, dtype=dtype) + 0.5) * stride
    features = torch.stack(torch.meshgrid(centres, centres, indexing="ij"))[None]
    box = torch.tensor([[*corner, corner[0] + size[0], corner[1] + size[1]]])
    y, x = roi_align(features, box, torch.tensor([0]), output_size, 1 / stride, sampling_ratio)[0]
    steps = (torch.arange(output_size) + 0.5) / output_size
    assert torch.allclose(x, (corner[0] + steps * size[0]).to(dtype).expand_as(x), atol=1e-3)
    assert torch.allclose(y, (corner[1] + steps * size[1]).to(dtype)[:, None].expand_as(y), atol=1e-3)


def test_each_mask_is_cut_by_its_own_box():
    """How mask targets are made: K masks, box k from mask k."""
    masks = torch.zeros(2, 1, 40, 50)
    masks[0, 0, 5:15, 10:30] = 1
    masks[1, 0, 20:30, 0:20] = 1
    boxes = torch.tensor([[10.0, 5.0, 30.0, 15.0], [0.0, 20.0, 40.0, 30.0]])
    targets = roi_align(masks, boxes, torch.arange(2), 4, 1.0).squeeze(1) >= 0.5
    assert targets[0].all()
    assert torch.equal(targets[1], torch.tensor([True, True, False, False]).expand(4, 4))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_boxes_that_are_not_finite_or_inside_out_have_no_features(dtype):
    bad = [[math.nan] * 4, [0, 0, math.inf, 9], [-math.inf, 0, math.inf, 9], [0, 0, 1e38, 3e38], [9, 9, 1, 1]]
    pooled = roi_align(torch.ones(1, 2, 8, 8, dtype=dtype), torch.tensor(bad), torch.zeros(5).long(), 2, 1.0, 0)
    assert torch.equal(pooled[[0, 1, 2, 4]], torch.zeros(4, 2, 2, 2, dtype=dtype))
    assert pooled.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_boxes_give_no_features_and_no_gradient(dtype):
    features = torch.ones(2, 3, 8, 8, dtype=dtype, requires_grad=True)
    pooled = roi_align(features, torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), 7, 0.25)
    assert pooled.shape == (0, 3, 7, 7)
    pooled.sum().backward()
    assert torch.equal(features.grad, torch.zeros_like(features))


@pytest.mark.parametrize(
    ("features", "boxes", "images", "message"),
    [
        (torch.ones(3, 8, 8), torch.ones(1, 4), torch.tensor([0]), r"features of \(B, C, H, W\)"),
        (torch.ones(1, 3, 8, 8), torch.ones(1, 5), torch.tensor([0]), r"boxes of \(K, 4\)"),
        (torch.ones(1, 3, 8, 8), torch.ones(2, 4), torch.tensor([0]), "K batch indices"),
        (torch.ones(1, 3, 8, 8), torch.ones(1, 4), torch.tensor([1]), r"outside 0\.\.0"),
        (torch.ones(1, 3, 0, 8), torch.ones(1, 4), torch.tensor([0]), "larger image"),
    ],
)
def test_arguments_that_do_not_fit_are_named(features, boxes, images, message):
    with pytest.raises(OptionError, match=message):
        roi_align(features, boxes, images, 7, 0.25)
