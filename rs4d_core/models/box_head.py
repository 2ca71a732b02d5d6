"""Class and box of a region."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models import boxes as box_ops
from rs4d_core.models.config import BoxHeadConfig
from rs4d_core.models.prepared import Prepared
from rs4d_core.models.regions import Regions, region_features

_SIZE = 7


class BoxHead(nn.Module):
    """Two fully connected layers on a region's 7 x 7 features; the background is the last class."""

    def __init__(self, channels: int, classes: int, config: BoxHeadConfig) -> None:
        super().__init__()
        self.classes = classes
        self.shared_fcs = nn.ModuleList(
            [nn.Linear(channels * _SIZE * _SIZE, config.hidden), nn.Linear(config.hidden, config.hidden)]
        )
        self._first = Prepared()
        self.fc_cls = nn.Linear(config.hidden, classes + 1)
        self.fc_reg = nn.Linear(config.hidden, 4 * classes)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.zeros_(self.fc_cls.bias)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        nn.init.zeros_(self.fc_reg.bias)

    def forward(self, levels: list[Tensor], regions: Regions) -> tuple[Tensor, Tensor]:
        """Class logits `(K, classes + 1)` and per-class box deltas `(K, classes, 4)` of K regions."""
        features = region_features(levels, regions, _SIZE).permute(0, 2, 3, 1)
        first, *others = self.shared_fcs
        (weight,) = self._first.of([first.weight], _cell_by_cell)
        hidden = F.relu(F.linear(features.flatten(1), weight, first.bias), inplace=True)
        for layer in others:
            hidden = F.relu(layer(hidden), inplace=True)
        return self.fc_cls(hidden).float(), self.fc_reg(hidden).unflatten(1, (self.classes, 4)).float()

    def losses(
        self, logits: Tensor, deltas: Tensor, regions: Regions, labels: Tensor, truth_xyxy: Tensor, annotated: Tensor
    ) -> dict[str, Tensor]:
        """`box_class` and `box_box`, scalars.

        Args:
            logits: `(K, classes + 1)`.
            deltas: `(K, classes, 4)`.
            regions: the K regions.
            labels: `(K,)`, background is `classes`.
            truth_xyxy: `(K, 4)`, the matched instance's box; any value for background.
            annotated: `(K, classes)` bool, the classes labelled in the region's image.

        A region of an image in which some classes are not labelled may well show one of those: they are left out of its
        softmax, so that their logits learn nothing from it.
        """
        possible = torch.cat([annotated, torch.ones_like(annotated[:, :1])], dim=1)
        log_p = F.log_softmax(logits.masked_fill(~possible, float("-inf")), dim=1)
        class_loss = F.nll_loss(log_p, labels, reduction="sum") / max(len(labels), 1)
        chosen = torch.nonzero(labels < self.classes).squeeze(1)
        coded = box_ops.encode(truth_xyxy[chosen], regions.boxes_xyxy[chosen], box_ops.BOX_HEAD_STD)
        regressed = deltas[chosen, labels[chosen]]
        box_loss = F.smooth_l1_loss(regressed, coded, reduction="sum") / max(len(labels), 1)
        return {"box_class": class_loss, "box_box": box_loss + deltas.sum() * 0.0}

    @staticmethod
    def decode(deltas: Tensor, regions: Regions) -> Tensor:
        """Boxes `(K, classes, 4)` from deltas of the same shape."""
        return box_ops.decode(deltas, regions.boxes_xyxy[:, None].expand_as(deltas), box_ops.BOX_HEAD_STD)


def _cell_by_cell(weight: Tensor) -> tuple[Tensor]:
    """The first layer's columns in the order that the features have in memory: it has fewer numbers than they."""
    return (weight.unflatten(1, (-1, _SIZE, _SIZE)).permute(0, 2, 3, 1).flatten(1),)
