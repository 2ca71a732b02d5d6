"""The objectness of anchors against the tensor code that defines it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.ops.best_class import best_class


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2), st.integers(1, 40), st.integers(1, 12), st.integers(1, 40),
    st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
)  # fmt: skip
def test_the_best_class_of_every_anchor_counts(batch, positions, classes, anchors, dtype):
    logits = torch.randn(batch, positions, (1 + classes) * anchors).to(dtype)
    by_class = logits.float().unflatten(2, (1 + classes, anchors))
    expected = (by_class[:, :, 0] + by_class[:, :, 1:].amax(2)).flatten(1)
    assert torch.equal(best_class(logits, anchors), expected)


@pytest.mark.usefixtures("threads")
def test_threads_do_not_write_over_each_other():
    logits = torch.randn(1, 5000, 4 * 6)
    expected = best_class(logits.double(), 6)
    assert all(torch.equal(best_class(logits, 6), expected.float()) for _ in range(20))
