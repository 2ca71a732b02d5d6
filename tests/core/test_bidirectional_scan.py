"""The compiled kernel between a mixer's projections against its formula in float64, forward and backward."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.ops.bidirectional_scan import bidirectional_scan, bidirectional_scan_torch

NAMES = ("y", "grad u", "grad projected", "grad dt_weight", "grad dt_bias", "grad A", "grad D", "grad z")


def arguments(batch, length, channels, states, rank, seed=0, shift=-2.0, dtype=torch.float32):
    """u, projected and z in `dtype`, the parameters in float32; the step sizes are about softplus(shift)."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    u, z = normal(2 * batch, length, channels), normal(batch, length, channels)
    projected = normal(2 * batch, length, rank + 2 * states)
    parameters = 0.3 * normal(channels, rank), shift + normal(channels), -torch.exp(normal(channels, states))
    return [u.to(dtype), projected.to(dtype), *parameters, normal(channels), z.to(dtype)]


def y_and_gradients(function, tensors):
    """y and the seven gradients of its product with fixed weights, in float64."""
    tensors = [tensor.clone().requires_grad_() for tensor in tensors]
    y = function(*tensors)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    return [tensor.detach() for tensor in (y, *torch.autograd.grad(y, tensors, weights.to(y.dtype)))]


def assert_agree(tensors, relative):
    wanted = y_and_gradients(bidirectional_scan_torch, [tensor.double() for tensor in tensors])
    found = y_and_gradients(bidirectional_scan, tensors)
    for name, one, other, like in zip(NAMES, found, wanted, (tensors[0], *tensors), strict=True):
        assert one.dtype == like.dtype, name
        error = (one.double() - other).abs().max()
        assert error <= relative * other.abs().max() + 1e-6, f"{name}: off by {error} of {other.abs().max()}"


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 3),
    length=st.integers(1, 70),
    channels=st.sampled_from([1, 16, 70, 80]),
    states_and_rank=st.sampled_from([(8, 12), (3, 5)]),
    shift=st.floats(-8, 6),
    seed=st.integers(0, 99),
)
def test_float32_agrees_with_the_formula_to_rounding(batch, length, channels, states_and_rank, shift, seed):
    assert_agree(arguments(batch, length, channels, *states_and_rank, seed=seed, shift=shift), relative=1e-5)


@pytest.mark.parametrize("shape", [(1, 100, 70, 16, 16), (2, 65, 64, 8, 12)])
def test_bfloat16_is_rounded_only_where_it_is_stored(shape):
    # The gradient of the step sizes is a sum of two parts that are larger than it.
    assert_agree(arguments(*shape, dtype=torch.bfloat16), relative=2**-6)


def test_a_long_sequence_keeps_its_precision():
    assert_agree(arguments(1, 2000, 16, 8, 12, shift=-6.0), relative=1e-5)


def test_without_gradients_the_result_is_the_same():
    tensors = arguments(2, 50, 96, 8, 12)
    found = bidirectional_scan(*[tensor.clone().requires_grad_() for tensor in tensors])
    assert torch.equal(bidirectional_scan(*tensors), found)


@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 5, 3)])
def test_nothing_in_nothing_out(shape):
    tensors = [tensor.requires_grad_() for tensor in arguments(*shape, 4, 2)]
    y = bidirectional_scan(*tensors)
    assert y.shape == shape
    y.sum().backward()


def test_results_do_not_depend_on_threads():
    tensors = arguments(2, 50, 200, 8, 12)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = y_and_gradients(bidirectional_scan, tensors)
        torch.set_num_threads(3)
        assert all(map(torch.equal, y_and_gradients(bidirectional_scan, tensors), alone))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("index", "name"), [(1, "projected"), (2, "dt_weight|dt_bias"), (5, "D"), (6, "z")])
def test_shapes_that_do_not_fit_are_named(index, name):
    tensors = arguments(1, 5, 3, 2, 2)
    tensors[index] = tensors[index][:-1]
    with pytest.raises(OptionError, match=name):
        bidirectional_scan(*tensors)
