"""The optimizer Muon: what it makes of a gradient, which weights it takes, and that a run goes on with it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_model import small_config
from torch import Tensor, nn

from rs4d_core.models.segmenter import Segmenter
from rs4d_core.runs.checkpoint import restore_checkpoint, save_checkpoint
from rs4d_core.runs.muon import orthogonalized
from rs4d_core.runs.schedule import build_optimizer
from rs4d_core.runs.settings import Optimization

SETTINGS = Optimization(64, 2, steps=400, lr=0.01, weight_decay=0.0, optimizer="muon")


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_an_orthogonalized_matrix_keeps_its_directions_and_has_them_all_alike(rows, columns, scale, seed):
    random = torch.Generator().manual_seed(seed)
    side = min(rows, columns)
    left = torch.linalg.qr(torch.randn(rows, side, generator=random))[0]
    right = torch.linalg.qr(torch.randn(columns, side, generator=random))[0]
    values = scale * (0.1 + 0.9 * torch.rand(side, generator=random))
    turned = left.T @ orthogonalized(left * values @ right.T) @ right
    assert ((turned.diagonal() > 0.6) & (turned.diagonal() < 1.3)).all()
    torch.testing.assert_close(turned, turned.diagonal().diag(), atol=1e-3, rtol=0)


def test_a_step_moves_matrices_as_far_as_adamw_does_and_the_rest_by_adamw():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(32, 64, 3), nn.LayerNorm(64)).to(memory_format=torch.channels_last)
    by_adamw = nn.Sequential(nn.Conv2d(32, 64, 3), nn.LayerNorm(64))
    by_adamw.load_state_dict(model.state_dict())
    before = model[0].weight.detach().clone()
    adamw = torch.optim.AdamW(by_adamw.parameters(), lr=SETTINGS.lr, weight_decay=0.0)
    for trained, optimizer in ((model, build_optimizer(model, SETTINGS)), (by_adamw, adamw)):
        torch.manual_seed(1)
        for parameter in trained.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
    moved = (model[0].weight - before).square().mean().sqrt().item()
    assert moved == pytest.approx(0.2 * SETTINGS.lr, rel=0.2)
    for ours, theirs in ((model[0].bias, by_adamw[0].bias), (model[1].weight, by_adamw[1].weight)):
        assert_same(ours, theirs)


def test_it_takes_the_layers_between_features_alone():
    segmenter = Segmenter(small_config())
    *_, muon = build_optimizer(segmenter, SETTINGS).param_groups
    taken = {id(parameter) for parameter in muon["params"]}
    names = {name for name, parameter in segmenter.named_parameters() if id(parameter) in taken}
    assert {"encoder.layers.0.mixer.in_proj.weight", "rpn.rpn_conv.weight", "box_head.shared_fcs.0.weight"} <= names
    others = ("rpn.rpn_reg.", "box_head.fc_reg.", "mask_head.conv_logits.", "encoder.pos_embed", "encoder.norm.")
    assert not any(name.startswith(others) or name.endswith(("bias", "A_log", "conv1d.weight")) for name in names)


def test_it_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path):
    def steps(model: nn.Module, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            torch.manual_seed(number)
            optimizer.zero_grad()
            model(torch.randn(8, 32)).square().sum().backward()
            optimizer.step()

    def begun() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Linear(32, 32)
        return model, build_optimizer(model, SETTINGS)

    whole, first = begun(), begun()
    steps(*whole, range(6))
    steps(*first, range(3))
    path = save_checkpoint(tmp_path, 3, first[0], first[0], first[1], {}, {})
    second = begun()
    restore_checkpoint(path, second[0], nn.Linear(32, 32), second[1])
    steps(*second, range(3, 6))
    assert_same(second[0].weight, whole[0].weight)
    assert_same(second[0].bias, whole[0].bias)


def assert_same(one: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(one, other, atol=0, rtol=0)
