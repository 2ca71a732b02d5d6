"""Non-maximum suppression against the loop that defines it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.ops.nms import batched_nms, nms


def iou(a, b):
    """In float32 throughout, so that the comparison with the threshold has one answer."""
    width = max(min(a[2], b[2]) - max(a[0], b[0]), np.float32(0))
    height = max(min(a[3], b[3]) - max(a[1], b[1]), np.float32(0))
    shared = width * height
    with np.errstate(invalid="ignore"):
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def nms_loop(boxes, scores, groups, threshold):
    kept = []
    for candidate in sorted(range(len(boxes)), key=lambda index: (-scores[index], index)):
        rivals = [better for better in kept if groups[better] == groups[candidate]]
        if not any(iou(boxes[better], boxes[candidate]) > np.float32(threshold) for better in rivals):
            kept.append(candidate)
    return kept


# Few different corners and scores: many boxes overlap exactly at a threshold, coincide, tie, or have no area.
@settings(max_examples=200, deadline=None)
@given(
    rows=st.lists(
        st.tuples(
            st.integers(0, 6), st.integers(0, 6), st.integers(0, 5), st.integers(0, 5), st.integers(0, 4),
            st.integers(-1, 2),
        ),
        max_size=40,
    ),
    threshold=st.sampled_from([0.0, 0.25, 1 / 3, 0.5, 0.7, 1.0]),
    unit=st.sampled_from([1.0, 0.1, 1000.3]),
)  # fmt: skip
def test_keeps_what_the_loop_keeps(rows, threshold, unit):
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    boxes = np.concatenate([table[:, :2], table[:, :2] + table[:, 2:4]], axis=1) * np.float32(unit)
    scores, groups = table[:, 4] / 4, table[:, 5].astype(np.int64)
    tensors = torch.from_numpy(boxes), torch.from_numpy(scores)
    assert nms(*tensors, threshold).tolist() == nms_loop(boxes, scores, np.zeros_like(groups), threshold)
    wanted = nms_loop(boxes, scores, groups, threshold)
    assert batched_nms(*tensors, torch.from_numpy(groups), threshold).tolist() == wanted
    assert batched_nms(*tensors, torch.from_numpy(groups), threshold, most=3).tolist() == wanted[:3]


def test_many_boxes_far_from_the_origin():
    """As in a large scene, where moving groups apart by an offset would cost the digits that decide."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(400, 2, generator=generator) * 60 + 30_000
    boxes = torch.cat([corner, corner + torch.rand(400, 2, generator=generator) * 30 + 2], dim=1)
    scores, groups = torch.rand(400, generator=generator), torch.arange(400) % 3 * 1_000_000
    kept = batched_nms(boxes, scores, groups, 0.5)
    assert kept.tolist() == nms_loop(boxes.numpy(), scores.numpy(), groups.numpy(), 0.5)
    assert 0 < len(kept) < 400
    assert nms(boxes[kept], scores[kept], 1.0).tolist() == list(range(len(kept)))


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
@pytest.mark.parametrize("same_side", [0, 1])
def test_boxes_whose_centres_are_as_far_apart_as_their_overlap_allows_are_compared(threshold, same_side):
    """Neighbours are sought among the near ones: a box inside of one that is nearly too wide is the farthest."""
    generator = torch.Generator().manual_seed(0)
    narrow = torch.rand(200, generator=generator) * 300 * threshold + 1
    side = torch.rand(200, generator=generator) * 1000
    y = torch.arange(200) * 10.0
    for factor, remain in ((0.99, 200), (1.01, 400)):
        pairs = []
        for width in (narrow, narrow / threshold * factor):
            x = side - width if same_side else side
            pairs.append(torch.stack([x, y, x + width, y + 9], dim=1))
        for boxes in (torch.cat(pairs), torch.cat(pairs[::-1])):
            kept = nms(boxes, torch.arange(400.0, 0, -1), threshold)
            assert kept.tolist() == list(range(remain))


def test_boxes_that_are_not_finite_remove_nothing_and_are_not_removed():
    far = float("inf")
    odd = torch.tensor([[-far, 0, far, 9], [0, -far, 9, far], [float("nan"), 0, 9, 9], [9, 9, far, far], [5, 5, 0, 0]])
    boxes = torch.cat([odd, torch.tensor([[0.0, 0, 9, 9], [0, 0, 9, 8]]), odd])
    kept = nms(boxes, torch.arange(12.0, 0, -1), 0.5).tolist()
    assert kept == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11]


def test_the_lower_index_wins_a_tie():
    boxes = torch.tensor([[0.0, 0, 9, 10], [0, 0, 10, 10], [0, 0, 10, 9]])
    assert nms(boxes, torch.full((3,), 0.5), 0.5).tolist() == [0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_and_tensors_that_want_gradients(dtype):
    boxes = torch.tensor([[0, 0, 8, 8], [0, 0, 8, 7], [20, 0, 24, 4]], dtype=dtype, requires_grad=True)
    scores = torch.tensor([0.25, 0.5, 0.75], dtype=dtype, requires_grad=True)
    assert nms(boxes, scores, 0.5).tolist() == [2, 1]


def test_no_boxes():
    kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(OptionError, match="one row for each box"):
        nms(torch.zeros(3, 4), torch.zeros(2), 0.5)
    with pytest.raises(OptionError, match="one row for each box"):
        nms(torch.zeros(3, 5), torch.zeros(3), 0.5)
