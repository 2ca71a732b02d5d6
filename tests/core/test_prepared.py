"""What is made of weights is kept as long as they stay, and no longer."""

import copy

import torch
from torch import nn

from rs4d_core.models.prepared import Prepared


def doubled(weight):
    return (weight * 2,)


def test_it_is_made_once_and_anew_when_weights_change_or_move():
    layer, prepared = nn.Linear(3, 3), Prepared()
    with torch.no_grad():
        (first,) = prepared.of([layer.weight], doubled)
        assert prepared.of([layer.weight], doubled)[0] is first
        layer.weight.add_(1)
        assert torch.equal(prepared.of([layer.weight], doubled)[0], layer.weight * 2)
        for number in range(5):  # of the weights that went, some leave their memory to those that come
            layer.weight.data = torch.full((3, 3), float(number))
            assert torch.equal(prepared.of([layer.weight], doubled)[0], layer.weight * 2)
        with torch.autocast("cpu", torch.bfloat16):
            assert prepared.of([layer.weight], doubled)[0].dtype == torch.bfloat16
        assert prepared.of([layer.weight], doubled)[0].dtype == torch.float32


def test_it_is_made_anew_for_another_purpose():
    weight, prepared = torch.ones(2), Prepared()
    with torch.no_grad():
        for times in (2.0, 3.0, 2.0):
            assert prepared.of([weight], lambda w, by: (w * by,), times)[0].tolist() == [times, times]


def test_what_is_for_no_product_keeps_its_precision():
    weight, prepared = torch.ones(2), Prepared(for_product=False)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert prepared.of([weight], doubled)[0].dtype == torch.float32


def test_gradients_reach_the_weights():
    layer, prepared = nn.Linear(3, 3), Prepared()
    with torch.inference_mode():
        prepared.of([layer.weight], doubled)
    prepared.of([layer.weight], doubled)[0].sum().backward()
    assert torch.equal(layer.weight.grad, torch.full((3, 3), 2.0))


def test_weights_whose_changes_nobody_counts_are_prepared_at_each_call():
    prepared = Prepared()
    with torch.inference_mode():
        weight = torch.ones(2)
        assert prepared.of([weight], doubled)[0].tolist() == [2, 2]
        weight += 1
        assert prepared.of([weight], doubled)[0].tolist() == [4, 4]


def test_a_copied_module_prepares_its_own():
    layer = nn.Linear(3, 3)
    layer.prepared = Prepared()
    with torch.inference_mode():
        layer.prepared.of([layer.weight], doubled)
    twin = copy.deepcopy(layer)
    with torch.no_grad():
        twin.weight.zero_()
        assert not twin.prepared.of([twin.weight], doubled)[0].any()
        assert torch.equal(layer.prepared.of([layer.weight], doubled)[0], layer.weight * 2)
