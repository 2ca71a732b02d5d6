"""The implementations of the selective scan against the loop in float64, and what a caller may rely on."""

import functools
import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.ops import scan_chunked
from rs4d_core.ops.selective_scan import selective_scan

NAMES = ("y", "grad u", "grad delta", "grad A", "grad B", "grad C", "grad D")


def arguments(batch, length, channels, states, seed=0, shift=-2.0, spread=1.0):
    """Six float64 arguments, exact in float32. The step sizes are about e^shift, spread over e^spread."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    delta = torch.exp(shift + spread * normal(batch, length, channels))
    sequences = normal(batch, length, channels), delta
    others = -torch.exp(normal(channels, states)), normal(batch, length, states), normal(batch, length, states)
    return [tensor.double() for tensor in (*sequences, *others, normal(channels))]


def scan_and_gradients(tensors, implementation, dtype):
    """y and the six gradients of its product with fixed weights, in float64."""
    tensors = [tensor.to(dtype).requires_grad_() for tensor in tensors]
    y = selective_scan(*tensors, implementation=implementation)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    return [tensor.detach().double() for tensor in (y, *torch.autograd.grad(y, tensors, weights.to(y.dtype)))]


@functools.cache
def expected(length):
    # 70 channels: a whole block of the compiled kernel and a part of one.
    tensors = arguments(1 if length > 1000 else 2, length, 70 if length < 1000 else 5, 3)
    return tensors, scan_and_gradients(tensors, "reference", torch.float64)


def assert_close(found, wanted, relative):
    for name, one, other in zip(NAMES, found, wanted, strict=True):
        error = (one - other).abs().max()
        assert error <= relative * other.abs().max() + 1e-30, f"{name}: off by {error} of {other.abs().max()}"


@pytest.mark.parametrize("implementation", ["numba", "chunked"])
@pytest.mark.parametrize("length", [1, 7, 64, 100, 4096])
def test_float32_agrees_with_the_loop_to_rounding(implementation, length):
    tensors, wanted = expected(length)
    assert_close(scan_and_gradients(tensors, implementation, torch.float32), wanted, relative=2e-6)


@pytest.mark.parametrize("length", [1, 64, 300])
def test_chunked_float64_agrees_with_the_loop(length):
    tensors = arguments(2, length, 3, 4)
    wanted = scan_and_gradients(tensors, "reference", torch.float64)
    assert_close(scan_and_gradients(tensors, "auto", torch.float64), wanted, relative=1e-13)


def test_chunked_passes_gradcheck_across_pieces_and_segments(monkeypatch):
    monkeypatch.setattr(scan_chunked, "PIECE", 3)
    monkeypatch.setattr(scan_chunked, "SEGMENT", 9)
    tensors = [tensor.requires_grad_() for tensor in arguments(1, 13, 2, 2)]
    assert torch.autograd.gradcheck(scan_chunked.scan_chunked, tensors)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 70), st.integers(1, 66), st.integers(1, 5)),
    shift=st.floats(-20, 8),
    spread=st.floats(0, 4),
    seed=st.integers(0, 1000),
)
def test_no_step_size_is_too_small_or_too_large(shape, shift, spread, seed):
    """From steps that forget nothing to steps whose decay is far below the smallest float32."""
    u, delta, A, B, C, D = arguments(*shape, seed=seed, shift=shift, spread=spread)
    # Positive terms do not cancel, so the size of a sum tells the rounding to be expected of it. The one exception is
    # the gradient of delta, a difference of two parts; the one through `delta u` follows from the gradient of u.
    tensors = [u.abs(), delta, A, B.abs(), C.abs(), D.abs()]
    wanted = scan_and_gradients(tensors, "reference", torch.float64)
    # Decays are held at exp(-80) or above, some 1e-35, and no gradient grows faster than the square of the steps.
    smallest = 1e-31 * (1 + delta.max()) ** 2
    for implementation in ("numba", "chunked"):
        found = scan_and_gradients(tensors, implementation, torch.float32)
        for name, one, other in zip(NAMES, found, wanted, strict=True):
            size = other.abs().max()
            if name == "grad delta":
                size = max(size, (u * wanted[1] / delta).abs().max())
            assert (one - other).abs().max() <= 1e-5 * size + smallest, (implementation, name)


def test_half_precision_is_read_and_written_as_such():
    """As under autocast: what matrix products return is bfloat16, the parameters are float32."""
    tensors = [
        tensor.to(torch.float32 if name in ("grad A", "grad D") else torch.bfloat16).requires_grad_()
        for name, tensor in zip(NAMES[1:], arguments(2, 40, 70, 3), strict=True)
    ]
    results = []
    for implementation in ("auto", "reference"):
        y = selective_scan(*tensors, implementation=implementation)
        results.append([y, *torch.autograd.grad(y, tensors, torch.ones_like(y))])
    for found, wanted, like in zip(*results, (tensors[0], *tensors), strict=True):
        assert found.dtype == like.dtype
        # Half a unit in the last place of bfloat16, on either side.
        assert torch.allclose(found.double(), wanted.double(), rtol=2**-7, atol=1e-4)


def test_any_strides_are_taken():
    tensors = [tensor.float() for tensor in arguments(2, 30, 6, 3)]
    wanted = selective_scan(*tensors)
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in tensors]
    assert torch.equal(selective_scan(*strided), wanted)


def test_gradients_reach_only_what_wants_them():
    tensors = [tensor.float() for tensor in arguments(1, 10, 3, 2)]
    tensors[2].requires_grad_()
    selective_scan(*tensors).sum().backward()
    assert tensors[2].grad.abs().sum() > 0
    assert all(tensor.grad is None for number, tensor in enumerate(tensors) if number != 2)


def test_results_do_not_depend_on_threads():
    tensors = arguments(3, 50, 200, 4)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = scan_and_gradients(tensors, "numba", torch.float32)
        torch.set_num_threads(3)
        with ThreadPoolExecutor(2) as callers:
            calls = [callers.submit(scan_and_gradients, tensors, "numba", torch.float32) for _ in range(6)]
        for call in calls:
            assert all(torch.equal(one, other) for one, other in zip(call.result(), alone, strict=True))
    finally:
        torch.set_num_threads(before)


def _scan_in_child(tensors, answer):
    answer.send(selective_scan(*tensors).sum().item())


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
def test_a_forked_process_can_scan():
    """A data loader's workers are forked from a process that has used its kernel threads."""
    tensors = [tensor.float() for tensor in arguments(4, 20, 8, 2)]
    wanted = selective_scan(*tensors).sum().item()
    forking = multiprocessing.get_context("fork")
    receive, send = forking.Pipe(duplex=False)
    child = forking.Process(target=_scan_in_child, args=(tensors, send))
    child.start()
    try:
        assert receive.poll(30), "the child hangs"
        assert receive.recv() == wanted
    finally:
        child.kill()
        child.join()


@pytest.mark.parametrize("implementation", ["numba", "chunked", "reference"])
@pytest.mark.parametrize("shape", [(2, 0, 3, 4), (0, 5, 3, 4)])
def test_nothing_in_nothing_out(implementation, shape):
    tensors = [tensor.float().requires_grad_() for tensor in arguments(*shape)]
    y = selective_scan(*tensors, implementation=implementation)
    assert y.shape == shape[:3]
    y.sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: [t[0][0], *t[1:]], r"u of \(B, L, D\)"),
        (lambda t: [t[0], t[1][:, :-1], *t[2:]], "delta"),
        (lambda t: [*t[:3], t[3].transpose(1, 2), *t[4:]], r"B has shape \(1, 2, 5\)"),
        (lambda t: [*t[:5], t[5][None]], "D has shape"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    with pytest.raises(OptionError, match=message):
        selective_scan(*change(arguments(1, 5, 3, 2)))


def test_implementations_that_cannot_serve_say_so():
    tensors = arguments(1, 5, 3, 2)
    with pytest.raises(OptionError, match="unknown scan implementation 'fast'"):
        selective_scan(*tensors, implementation="fast")
    with pytest.raises(OptionError, match="chunked"):
        selective_scan(*tensors, implementation="numba")


def test_a_scan_with_constant_step_is_a_geometric_sum():
    """A check that does not rest on the reference: u = 1, B = C = 1, D = 0 gives delta (1 - a^t) / (1 - a)."""
    length, delta = 50, 0.3
    ones = torch.ones(1, length, 1)
    y = selective_scan(ones, delta * ones, torch.tensor([[-1.0]]), ones, ones, torch.zeros(1))
    decay = torch.exp(torch.tensor(-delta, dtype=torch.float64))
    steps = torch.arange(1, length + 1, dtype=torch.float64)
    assert torch.allclose(y.double().flatten(), delta * (1 - decay**steps) / (1 - decay), rtol=1e-6)
