"""The best anchors of each class against the tensor code that defines them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.ops.best_anchors import best_anchors


def expected(logits, anchors, count):
    """The sums `(B, K, P * A)` of every anchor, and the largest of them, falling."""
    by_class = logits.float().unflatten(2, (-1, anchors))
    sums = (by_class[:, :, :1] + by_class[:, :, 1:]).transpose(1, 2).flatten(2)
    return sums, sums.sort(dim=2, descending=True).values[..., :count]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2), st.integers(1, 40), st.integers(1, 12), st.integers(1, 5), st.integers(1, 250),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]), st.booleans(),
)  # fmt: skip
def test_no_other_anchor_is_worth_more(batch, positions, classes, anchors, count, dtype, many_alike):
    logits = torch.randn(batch, positions, (1 + classes) * anchors)
    logits = (logits.round() if many_alike else logits).to(dtype)
    sums, largest = expected(logits, anchors, count)
    found, at = best_anchors(logits, anchors, count)
    assert torch.equal(found.sort(dim=2, descending=True).values, largest)
    assert torch.equal(sums.gather(2, at), found)
    assert all(len(set(row.tolist())) == len(row) for row in at.flatten(0, 1))


@pytest.mark.usefixtures("threads")
def test_threads_do_not_write_over_each_other():
    logits = torch.randn(2, 3000, 12 * 2)
    _, largest = expected(logits, 2, 80)
    for _ in range(20):
        found, _ = best_anchors(logits, 2, 80)
        assert torch.equal(found.sort(dim=2, descending=True).values, largest)
