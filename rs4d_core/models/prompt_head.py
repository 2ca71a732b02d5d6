"""The outline of a region by SAM's mask decoder: RSPrompter's anchor head (arXiv 2306.16269, section III-C)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.config import PromptHeadConfig
from rs4d_core.models.encoder import PATCH, EncoderOutput
from rs4d_core.models.instances import MaskPatch, Target
from rs4d_core.models.mask_decoder import FourierPositions, MaskDecoder
from rs4d_core.models.regions import Regions, region_features

# The decoder's masks have four cells for one of the image embedding, on each side.
CELL_PX = PATCH // 4

_SIZE = 14
# At 1024 x 1024 and 256 channels a region's copy of the image embedding and its upscaled map take about 20 MB.
_CHUNK = 32
# What the decoder draws this far (share of the box's side) outside of a box is another object.
_MARGIN = 0.1


class PromptHead(nn.Module):
    """A region's 14 x 14 features become prompts; SAM's decoder draws the mask they ask for on the whole image.

    Names of parameters are those of the public checkpoints (`point_emb`, `no_mask_embed`) and of SAM in transformers.
    """

    def __init__(self, channels: int, image_dim: int, config: PromptHeadConfig) -> None:
        super().__init__()
        dim = config.dim
        self.prompts = config.prompts
        self.point_emb = nn.Sequential(
            nn.Conv2d(channels, channels, 3, stride=2, padding=1),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(channels * (_SIZE // 2) ** 2, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, channels),
            nn.ReLU(inplace=True),
            nn.Linear(channels, 2 * dim * config.prompts),
        )
        self.image_proj = nn.Identity() if image_dim == dim else nn.Conv2d(image_dim, dim, 1)
        self.shared_image_embedding = FourierPositions(dim)
        self.no_mask_embed = nn.Embedding(1, dim)
        self.mask_decoder = MaskDecoder(dim, config.depth, config.heads, config.mlp_dim)
        # SAM's answers to ambiguous prompts and its guess of their quality: they are kept, so that its weights load
        # whole, but a region asks for one mask, and nothing teaches them.
        self.mask_decoder.output_hypernetworks_mlps[1:].requires_grad_(False)
        self.mask_decoder.iou_prediction_head.requires_grad_(False)

    def forward(self, encoded: EncoderOutput, levels: list[Tensor], regions: Regions) -> Tensor:
        """Mask logits `(K, H/4, W/4)` of K regions, each on its whole image, in the order of the regions."""
        prompts = self._prompts(levels, regions)
        images = self.image_proj(encoded.last) + self.no_mask_embed.weight[:, :, None, None]
        height, width = images.shape[-2:]
        positions = self.shared_image_embedding(height, width)
        logits, order = [], []
        # The decoder projects what the regions of an image share only once: one image at a time.
        for image in regions.batch_index.unique():
            mine = torch.nonzero(regions.batch_index == image).squeeze(1)
            masks, _ = self.mask_decoder(images[image][None], positions, prompts[mine])
            logits.append(masks[:, 0].float())
            order.append(mine)
        if not order:
            return images.new_zeros(0, 4 * height, 4 * width)
        return torch.cat(logits)[torch.cat(order).argsort()]

    def _prompts(self, levels: list[Tensor], regions: Regions) -> Tensor:
        """`(K, P, D)` prompt embeddings of K regions."""
        embedded = self.point_emb(region_features(levels, regions, _SIZE)).unflatten(1, (self.prompts, -1))
        # The sine brings prompts into the range of SAM's own, which are sines and cosines of positions.
        return embedded[..., ::2].sin() + embedded[..., 1::2]

    def losses(
        self,
        encoded: EncoderOutput,
        levels: list[Tensor],
        regions: Regions,
        labels: Tensor,
        truth: Tensor,
        targets: list[Target],
    ) -> dict[str, Tensor]:
        """`mask` and `mask_dice`, scalars: means over regions whose instance has an outline.

        Args:
            encoded: its last map is the image embedding.
            levels: the pyramid.
            regions: K positive regions.
            labels: unused: the masks are of no class. Mask R-CNN's head reads them.
            truth: `(K,)`, index of the region's instance in its image's target.
            targets: one an image.
        """
        wanted, outlined = coverage_targets(regions, truth, targets)
        if not len(outlined):
            nothing = sum(parameter.sum() for parameter in self.parameters()) * 0.0
            return {"mask": nothing, "mask_dice": nothing}
        logits = self(encoded, levels, regions[outlined])
        return {
            "mask": F.binary_cross_entropy_with_logits(logits, wanted),
            "mask_dice": dice_loss(logits.sigmoid(), wanted),
        }

    def predict(
        self, encoded: EncoderOutput, levels: list[Tensor], regions: Regions, labels: Tensor
    ) -> list[MaskPatch]:
        """The masks of K regions, each on its box with a small margin, in cells of `CELL_PX` pixels."""
        patches: list[MaskPatch] = []
        for part in torch.arange(len(regions)).split(_CHUNK):
            masks = self(encoded, levels, regions[part]).cpu()
            boxes_xyxy = regions.boxes_xyxy[part].tolist()
            patches += [_crop(mask, box) for mask, box in zip(masks, boxes_xyxy, strict=True)]
        return patches


def _crop(logits: Tensor, box_xyxy: list[float]) -> MaskPatch:
    """The cells of `(H/4, W/4)` logits that a box with its margin touches."""
    x0, y0, x1, y1 = box_xyxy
    across, down = _MARGIN * (x1 - x0), _MARGIN * (y1 - y0)
    left, top = (max(math.floor(low / CELL_PX), 0) for low in (x0 - across, y0 - down))
    height, width = logits.shape
    right = min(math.ceil((x1 + across) / CELL_PX), width)
    bottom = min(math.ceil((y1 + down) / CELL_PX), height)
    extent = tuple(float(CELL_PX * cells) for cells in (left, top, right, bottom))
    return MaskPatch(logits[top:bottom, left:right].sigmoid(), extent)


def coverage_targets(regions: Regions, truth: Tensor, targets: list[Target]) -> tuple[Tensor, Tensor]:
    """What K positive regions are to draw.

    Returns:
        The share of each cell that the region's instance covers, `(M, H/4, W/4)` in 0..1, so that the contour at one
        half lies where the outline does, not on a border of cells; and the indices `(M,)` of the regions among the K
        whose instance has an outline.
    """
    wanted, outlined = [], []
    for image, target in enumerate(targets):
        mine = torch.nonzero(regions.batch_index == image).squeeze(1)
        mine = mine[target.has_mask[truth[mine]]]
        if len(mine):
            # Many regions share an instance: its mask is scaled down once.
            instances, which = truth[mine].unique(return_inverse=True)
            wanted.append(F.avg_pool2d(target.masks[instances].float(), CELL_PX)[which])
            outlined.append(mine)
    if not outlined:
        return regions.boxes_xyxy.new_zeros(0, 0, 0), truth.new_zeros(0)
    return torch.cat(wanted), torch.cat(outlined)


def dice_loss(probabilities: Tensor, wanted: Tensor) -> Tensor:
    """One minus the Dice coefficient of `(M, H, W)` maps, mean over M (V-Net, arXiv 1606.04797, section 3).

    The mean cross entropy over a whole image hardly feels an object of a few cells; this does.
    """
    shared = 2 * (probabilities * wanted).sum((1, 2))
    total = (probabilities**2).sum((1, 2)) + (wanted**2).sum((1, 2))
    return (1 - (shared + 1) / (total + 1)).mean()
