"""From the encoder's blocks to a feature pyramid at strides 4, 8, 16, 32 and 64."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.config import EncoderConfig, NeckConfig
from rs4d_core.models.encoder import EncoderOutput
from rs4d_core.models.layers import ChannelNorm, Upsample2x

STRIDES = (4, 8, 16, 32, 64)


class FeatureAggregator(nn.Module):
    """Sums the maps of some blocks recurrently: RSPrompter's aggregator (arXiv 2306.16269, section III-B)."""

    def __init__(self, dim: int, chosen: Sequence[int], hidden: int, channels: int) -> None:
        super().__init__()
        self.chosen = chosen
        self.downconvs = nn.ModuleList(
            nn.Sequential(*_conv_norm_relu(dim, hidden, 1), *_conv_norm_relu(hidden, hidden, 3)) for _ in self.chosen
        )
        self.hidden_convs = nn.ModuleList(nn.Sequential(*_conv_norm_relu(hidden, hidden, 3)) for _ in self.chosen)
        self.fusion_conv = nn.Sequential(
            *_conv_norm_relu(hidden, channels, 1),
            *_conv_norm_relu(channels, channels, 3),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, blocks: list[Tensor]) -> Tensor:
        """All blocks' maps `(B, d, h, w)` to one map `(B, C, h, w)`."""
        total: Tensor | None = None
        for index, down, hidden in zip(self.chosen, self.downconvs, self.hidden_convs, strict=True):
            summed = down(blocks[index]) if total is None else total + down(blocks[index])
            total = summed + hidden(summed)
        return self.fusion_conv(total)


def _conv_norm_relu(channels_in: int, channels_out: int, kernel: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=False)
    return conv, nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True)


class TopDown(nn.Module):
    """Refines the laterals of a pyramid from coarse to fine: what a coarser level knows of a place helps the finer ones
    (FPN, arXiv 1612.03144), each of which adds what two convolutions make of both.

    The last of these begins at zero: a model that was trained without goes on from where it was.
    """

    def __init__(self, channels: int, levels: int) -> None:
        super().__init__()
        half = channels // 2
        self.convs = nn.ModuleList(nn.Conv2d(channels, half, 3, padding=1, bias=False) for _ in range(levels))
        self.norms = nn.ModuleList(ChannelNorm(half) for _ in range(levels))
        self.outs = nn.ModuleList(nn.Conv2d(half, channels, 3, padding=1) for _ in range(levels))
        for out in self.outs:
            nn.init.zeros_(out.weight)
            nn.init.zeros_(out.bias)

    def forward(self, laterals: list[Tensor]) -> list[Tensor]:
        """Maps `(B, C, H/s, W/s)`, fine to coarse and each half as large as the one before, to maps of these shapes."""
        refined = [laterals[-1]]
        for lateral, conv, norm, out in reversed([*zip(laterals[:-1], self.convs, self.norms, self.outs, strict=True)]):
            both = lateral + F.interpolate(refined[0], scale_factor=2.0, mode="nearest")
            refined.insert(0, lateral + out(F.silu(norm(conv(both)))))
        return refined


class Pyramid(nn.Module):
    """The simple feature pyramid (ViTDet, arXiv 2203.16527) of one map at stride 16.

    Where the encoder's stem has maps at strides 4 and 8, they are added to the laterals: the small objects' edges need
    not pass through the tokens.
    """

    def __init__(self, channels: int, fine_channels: tuple[int, ...], top_down: bool) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.fpn1 = nn.Sequential(
            Upsample2x(channels, half),
            ChannelNorm(half),
            nn.GELU(),
            Upsample2x(half, quarter),
        )
        self.fpn2 = nn.Sequential(Upsample2x(channels, half))
        widths = (quarter, half, channels, channels)
        self.lateral_convs = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.lateral_norms = nn.ModuleList(ChannelNorm(channels) for _ in widths)
        self.fine_convs = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in fine_channels)
        self.top_down = TopDown(channels, len(widths) - 1) if top_down else None
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        self.fpn_norms = nn.ModuleList(ChannelNorm(channels) for _ in widths)

    def forward(self, x: Tensor, fine: list[Tensor]) -> list[Tensor]:
        """One map `(B, C, H/16, W/16)` and the stem's maps to five levels `(B, C, H/s, W/s)`, s in `STRIDES`."""
        sources = [self.fpn1(x), self.fpn2(x), x, F.max_pool2d(x, 2)]
        laterals = [conv(source) for conv, source in zip(self.lateral_convs, sources, strict=True)]
        for index, conv in enumerate(self.fine_convs):
            laterals[index] = laterals[index] + conv(fine[index])
        if self.top_down is not None:
            laterals = self.top_down(laterals)
        layers = zip(self.lateral_norms, self.fpn_convs, self.fpn_norms, strict=True)
        levels = [
            norm(conv(lateral_norm(lateral)))
            for lateral, (lateral_norm, conv, norm) in zip(laterals, layers, strict=True)
        ]
        return [*levels, levels[-1][:, :, ::2, ::2]]


class Neck(nn.Module):
    """Aggregator, then pyramid.

    `depths` are the indices of the encoder's blocks whose outputs it reads.
    """

    def __init__(self, encoder: EncoderConfig, config: NeckConfig) -> None:
        super().__init__()
        self.depths = config.blocks or range(1, encoder.depth, 2)
        self.feature_aggregator = FeatureAggregator(
            encoder.dim, self.depths, config.aggregator_channels, config.channels
        )
        self.feature_spliter = Pyramid(config.channels, encoder.stem_channels[1:], config.top_down)
        self.last_conv = None
        if config.top_down:
            self.last_conv = nn.Conv2d(encoder.dim, config.channels, 1)
            nn.init.zeros_(self.last_conv.weight)
            nn.init.zeros_(self.last_conv.bias)

    def forward(self, encoded: EncoderOutput) -> list[Tensor]:
        """Five levels `(B, C, H/s, W/s)`, s in `STRIDES`."""
        summed = self.feature_aggregator(encoded.blocks)
        if self.last_conv is not None:
            summed = summed + self.last_conv(encoded.last)
        return self.feature_spliter(summed, encoded.fine)
