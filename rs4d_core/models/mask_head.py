"""The outline of a region: Mask R-CNN's mask head (arXiv 1703.06870)."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.config import MaskHeadConfig
from rs4d_core.models.encoder import EncoderOutput
from rs4d_core.models.instances import MaskPatch, Target
from rs4d_core.models.layers import Upsample2x
from rs4d_core.models.regions import Regions, region_features
from rs4d_core.ops.drawn_masks import can_draw, drawn_masks
from rs4d_core.ops.roi_align import roi_align

_SIZE = 14
# Regions at a time: what lies between the layers of so many, up to 5 MB, stays in the processor's cache, and in memory
# that is used again instead of being asked from the system anew.
_CHUNK = 32
_MULTIPLE = 8


class MaskHead(nn.Module):
    """Convolutions on a region's 14 x 14 features, one deconvolution, a 28 x 28 mask per class."""

    def __init__(self, channels: int, classes: int, config: MaskHeadConfig) -> None:
        super().__init__()
        widths = [channels] + [config.channels] * config.convs
        self.convs = nn.ModuleList(
            nn.Conv2d(before, after, 3, padding=1) for before, after in itertools.pairwise(widths)
        )
        self.upsample = Upsample2x(config.channels, config.channels)
        self.conv_logits = nn.Conv2d(config.channels, classes, 1)
        for layer in (*self.convs, self.upsample, self.conv_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.conv_logits.weight, std=0.01)

    def forward(self, levels: list[Tensor], regions: Regions, labels: Tensor) -> Tensor:
        """Mask logits `(K, 28, 28)` of K regions, each of its label's class."""
        hidden = region_features(levels, regions, _SIZE)
        for conv in self.convs:
            hidden = F.relu(conv(hidden), inplace=True)
        # Only the mask of a region's own class is computed, not one for every class.
        weight, bias = self.conv_logits.weight[labels], self.conv_logits.bias[labels][:, None, None]
        if can_draw(hidden.device.type, hidden.dtype, hidden.shape[1]):
            logits = drawn_masks(self.upsample.blocks(hidden, biased=False), self.upsample.bias, weight.flatten(1))
            return logits.add_(bias)
        # Each pixel's four, `(K, 14 * 14 * 4, C)`: what is laid out as a map is the one number that is left of each.
        # Not in place: `blocks` gives a view, through which autograd writes only by copying it several times.
        hidden = F.relu(self.upsample.blocks(hidden)).flatten(1, 4)
        logits = torch.bmm(hidden, weight.flatten(2).to(hidden.dtype)).float()
        logits = logits.view(-1, _SIZE, _SIZE, 2, 2).transpose(2, 3).reshape(-1, 2 * _SIZE, 2 * _SIZE)
        return logits + bias

    def losses(
        self,
        encoded: EncoderOutput,
        levels: list[Tensor],
        regions: Regions,
        labels: Tensor,
        truth: Tensor,
        targets: list[Target],
    ) -> dict[str, Tensor]:
        """`mask`, a scalar: the mean binary cross entropy over regions whose instance has an outline.

        Args:
            encoded: unused here; the prompt head reads it.
            levels: the pyramid.
            regions: K positive regions.
            labels: `(K,)`.
            truth: `(K,)`, index of the region's instance in its image's target.
            targets: one an image.
        """
        wanted, outlined = mask_targets(regions, truth, targets, 2 * _SIZE)
        if not len(outlined):
            return {"mask": sum(parameter.sum() for parameter in self.parameters()) * 0.0}
        logits = self(levels, regions[outlined], labels[outlined])
        return {"mask": F.binary_cross_entropy_with_logits(logits, wanted)}

    def predict(
        self, encoded: EncoderOutput, levels: list[Tensor], regions: Regions, labels: Tensor
    ) -> list[MaskPatch]:
        """The masks of K regions, on their boxes."""
        patches: list[MaskPatch] = []
        for part in torch.arange(len(regions)).split(_CHUNK):
            these = regions[part].padded(_MULTIPLE)
            logits = self(levels, these, F.pad(labels[part], (0, len(these) - len(part))))
            probabilities = logits[: len(part)].sigmoid().cpu()
            boxes_xyxy = regions.boxes_xyxy[part].tolist()
            patches += [MaskPatch(mask, tuple(box)) for mask, box in zip(probabilities, boxes_xyxy, strict=True)]
        return patches


def mask_targets(regions: Regions, truth: Tensor, targets: list[Target], size: int) -> tuple[Tensor, Tensor]:
    """What K positive regions are to draw.

    Returns:
        The instances' masks inside the regions' boxes, `(M, size, size)` of 0 and 1, and the indices `(M,)` of the
        regions among the K whose instance has an outline.
    """
    wanted, outlined = [], []
    for image, target in enumerate(targets):
        mine = torch.nonzero(regions.batch_index == image).squeeze(1)
        mine = mine[target.has_mask[truth[mine]]]
        if not len(mine):
            continue
        wanted.append(_inside(target.masks, truth[mine], regions.boxes_xyxy[mine], size))
        outlined.append(mine)
    if not outlined:
        none = truth.new_zeros(0)
        return regions.boxes_xyxy.new_zeros(0, size, size), none
    return torch.cat(wanted).float(), torch.cat(outlined)


def _inside(masks: Tensor, chosen: Tensor, boxes_xyxy: Tensor, size: int) -> Tensor:
    """Of masks `(N, H, W)` bool, the `chosen (K,)` ones inside the boxes `(K, 4)`: `(K, size, size)` bool.

    Of each mask only a part as large as the largest box is read, from the box's corner on: whole masks as numbers would
    be hundreds of times what small instances need.
    """
    sides = torch.tensor(masks.shape[:0:-1], device=boxes_xyxy.device)
    start = (boxes_xyxy[:, :2].floor().long() - 1).clamp(min=0)
    most = ((boxes_xyxy[:, 2:].ceil().long() + 1).minimum(sides) - start).amax(0)
    start = start.minimum(sides - most)
    columns, rows = (start[:, axis, None] + torch.arange(int(most[axis]), device=start.device) for axis in (0, 1))
    parts = masks[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]
    shifted = boxes_xyxy - start.repeat(1, 2)
    each = torch.arange(len(chosen), device=start.device)
    return roi_align(parts[:, None].float(), shifted, each, size, 1.0).squeeze(1) >= 0.5
