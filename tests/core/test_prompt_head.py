"""The prompt head: which masks it is taught, which it draws, and where."""

import pytest
import torch
from small_model import small_config, target

from rs4d_core.models.encoder import EncoderOutput
from rs4d_core.models.neck import STRIDES
from rs4d_core.models.prompt_head import CELL_PX, PromptHead, coverage_targets, dice_loss
from rs4d_core.models.regions import Regions

CHANNELS = 32


def make_head(image_dim: int = CHANNELS) -> PromptHead:
    torch.manual_seed(0)
    return PromptHead(CHANNELS, image_dim, small_config().prompt_head)


def features(batch: int, height: int, width: int, dim: int = CHANNELS) -> tuple[EncoderOutput, list[torch.Tensor]]:
    levels = [torch.randn(batch, CHANNELS, max(height // s, 1), max(width // s, 1)) for s in STRIDES]
    return EncoderOutput([], torch.randn(batch, dim, height // 16, width // 16), []), levels


def regions(*boxes: tuple[float, ...], images: list[int] | None = None) -> Regions:
    return Regions(torch.tensor(boxes), torch.tensor(images or [0] * len(boxes)))


@pytest.mark.parametrize("image_dim", [CHANNELS, 20])
def test_each_region_gets_the_mask_of_its_own_image_in_order(image_dim):
    head = make_head(image_dim).eval()
    encoded, levels = features(2, 64, 96, image_dim)
    asked = regions((0, 0, 30, 30), (5, 5, 60, 60), (40, 8, 90, 50), (1, 2, 9, 9), images=[1, 0, 1, 0])
    with torch.no_grad():
        masks = head(encoded, levels, asked)
        alone = [head(encoded, levels, asked[torch.tensor([k])])[0] for k in range(4)]
    assert masks.shape == (4, 16, 24)
    torch.testing.assert_close(masks, torch.stack(alone), rtol=1e-4, atol=1e-5)


def test_targets_are_the_covered_share_of_each_cell():
    truth = target([(4, 4, 14, 8), (0, 0, 2, 32)], side=32)
    wanted, outlined = coverage_targets(regions((4, 4, 14, 8), (0, 0, 3, 32)), torch.tensor([0, 1]), [truth])
    assert outlined.tolist() == [0, 1]
    assert wanted.shape == (2, 8, 8)
    assert wanted[0, 1].tolist() == [0, 1, 1, 0.5, 0, 0, 0, 0]
    assert wanted[0].sum() == 2.5
    assert wanted[1, :, 0].tolist() == [0.5] * 8


def test_only_outlined_instances_are_taught():
    torch.manual_seed(0)
    head = make_head()
    encoded, levels = features(2, 64, 64)
    outlined, boxed = target([(8, 8, 40, 40)], 64), target([(8, 8, 40, 40)], 64, outlined=False)
    asked, labels, truth = regions((8, 8, 40, 40), (8, 8, 40, 40), images=[0, 1]), torch.zeros(2).long(), torch.zeros(2)
    both = head.losses(encoded, levels, asked, labels, truth.long(), [outlined, boxed])
    one = asked[torch.tensor([0])]
    alone = head.losses(encoded, levels, one, labels[:1], truth[:1].long(), [outlined, boxed])
    assert all(both[name] > 0 for name in ("mask", "mask_dice"))
    torch.testing.assert_close(both, alone)


def test_without_outlines_the_losses_are_zero_and_keep_the_graph():
    head = make_head()
    encoded, levels = features(1, 64, 64)
    boxed = target([(8, 8, 40, 40)], 64, outlined=False)
    losses = head.losses(
        encoded, levels, regions((8, 8, 40, 40)), torch.zeros(1).long(), torch.zeros(1).long(), [boxed]
    )
    sum(losses.values()).backward()
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in trained)


def test_every_trained_parameter_gets_a_gradient():
    # A parameter without one stops training on several devices: their gradients are averaged in a fixed order.
    head = make_head()
    encoded, levels = features(1, 64, 64)
    losses = head.losses(
        encoded,
        levels,
        regions((8, 8, 40, 40), (0, 0, 20, 20)),
        torch.zeros(2).long(),
        torch.zeros(2).long(),
        [target([(8, 8, 40, 40)], 64)],
    )
    sum(losses.values()).backward()
    assert not [name for name, p in head.named_parameters() if p.requires_grad and p.grad is None]


def test_predicted_patches_hold_the_box_in_whole_cells_of_the_image():
    head = make_head().eval()
    encoded, levels = features(1, 64, 96)
    boxes = ((20.0, 20.0, 40.0, 40.0), (0.0, 0.0, 96.0, 64.0), (91.5, 60.0, 96.0, 64.0), (13.0, 13.0, 14.5, 14.5))
    with torch.no_grad():
        patches = head.predict(encoded, levels, regions(*boxes), torch.zeros(4).long())
        logits = head(encoded, levels, regions(*boxes))
    assert patches[0].box_xyxy == (16, 16, 44, 44)  # 18 .. 42 with the margin, and out to whole cells
    assert patches[1].box_xyxy == (0, 0, 96, 64)
    for patch, (x0, y0, x1, y1), mask in zip(patches, boxes, logits, strict=True):
        left, top, right, bottom = patch.box_xyxy
        assert 0 <= left <= x0 < x1 <= right <= 96
        assert 0 <= top <= y0 < y1 <= bottom <= 64
        cells = tuple(int(edge) // CELL_PX for edge in patch.box_xyxy)
        expected = mask[cells[1] : cells[3], cells[0] : cells[2]].sigmoid()
        torch.testing.assert_close(patch.probabilities, expected, rtol=1e-4, atol=1e-5)


def test_nothing_asked_nothing_drawn():
    head = make_head().eval()
    encoded, levels = features(1, 64, 64)
    none = Regions(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64))
    assert head.predict(encoded, levels, none, torch.zeros(0).long()) == []


def test_dice_loss_is_zero_for_the_truth_and_near_one_beside_it():
    wanted = torch.zeros(1, 16, 16)
    wanted[0, 2:8, 2:8] = 1
    wanted[0, 8, 2:8] = 0.5
    assert dice_loss(wanted, wanted) == 0
    assert dice_loss(wanted.flip(2), wanted) > 0.95
