"""The compiled convolution of both directions against plain torch in float64."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.ops.causal_conv import bidirectional_conv_silu

NAMES = ("y", "grad u", "grad weight", "grad bias")


def results(dtype, batch, length, channels, kernel, rounded_to=torch.float32):
    """y and the gradients of its product with fixed weights, in float64. The arguments are exact in `rounded_to`."""
    generator = torch.Generator().manual_seed(length)
    u, weight, bias, weights = (
        torch.randn(*shape, generator=generator).to(rounded_to)
        for shape in ((batch, length, channels), (channels, kernel), (channels,), (2 * batch, length, channels))
    )
    others = dtype if dtype == torch.float64 else torch.float32
    arguments = [tensor.requires_grad_() for tensor in (u.to(dtype), weight.to(others), bias.to(others))]
    y = bidirectional_conv_silu(*arguments)
    assert y.dtype == dtype
    return [tensor.detach().double() for tensor in (y, *torch.autograd.grad(y, arguments, weights.to(dtype)))]


def assert_close(found, wanted, relative):
    for name, one, other in zip(NAMES, found, wanted, strict=True):
        # Sums whose terms of size 1 cancel are as exact as their terms.
        assert (one - other).abs().max() <= relative * max(other.abs().max(), 1), name


@given(
    batch=st.integers(1, 3), length=st.integers(1, 40), channels=st.sampled_from([1, 64, 70]), kernel=st.integers(1, 5)
)
def test_float32_agrees_with_torch_to_rounding(batch, length, channels, kernel):
    wanted = results(torch.float64, batch, length, channels, kernel)
    assert_close(results(torch.float32, batch, length, channels, kernel), wanted, 3e-6)


def test_bfloat16_is_rounded_only_where_it_is_stored():
    wanted = results(torch.float64, 2, 100, 70, 4, rounded_to=torch.bfloat16)
    assert_close(results(torch.bfloat16, 2, 100, 70, 4, rounded_to=torch.bfloat16), wanted, 2**-8)


def test_the_second_half_is_the_first_of_the_reversed_sequence():
    u, weight, bias = torch.randn(2, 9, 3), torch.randn(3, 4), torch.randn(3)
    there, back = bidirectional_conv_silu(u, weight, bias), bidirectional_conv_silu(u.flip(1), weight, bias)
    assert torch.equal(there[2:], back[:2])
    assert torch.equal(there[:2], back[2:])


def test_a_step_sees_none_that_come_after_it():
    u, weight, bias = torch.randn(1, 9, 3), torch.randn(3, 4), torch.randn(3)
    changed = u.clone()
    changed[:, 5:] += 1
    before, after = bidirectional_conv_silu(u, weight, bias), bidirectional_conv_silu(changed, weight, bias)
    assert torch.equal(before[0, :5], after[0, :5])
    assert not torch.equal(before[0, 5:], after[0, 5:])


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(OptionError, match="weight"):
        bidirectional_conv_silu(torch.zeros(1, 5, 3), torch.zeros(4, 4), torch.zeros(3))
