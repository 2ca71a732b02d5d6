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


class Pyramid(nn.Module):
    """The simple feature pyramid (ViTDet, arXiv 2203.16527) of one map at stride 16.

    Where the encoder's stem has maps at strides 4 and 8, they are added to the laterals: the small objects' edges need
    not pass through the tokens.
    """

    def __init__(self, channels: int, fine_channels: tuple[int, ...]) -> None:
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
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)
        self.fpn_norms = nn.ModuleList(ChannelNorm(channels) for _ in widths)

    def forward(self, x: Tensor, fine: list[Tensor]) -> list[Tensor]:
        """One map `(B, C, H/16, W/16)` and the stem's maps to five levels `(B, C, H/s, W/s)`, s in `STRIDES`."""
        sources = [self.fpn1(x), self.fpn2(x), x, F.max_pool2d(x, 2)]
        levels = []
        for index, source in enumerate(sources):
            lateral = self.lateral_convs[index](source)
            if index < len(self.fine_convs):
                lateral = lateral + self.fine_convs[index](fine[index])
            levels.append(self.fpn_norms[index](self.fpn_convs[index](self.lateral_norms[index](lateral))))
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
        self.feature_spliter = Pyramid(config.channels, encoder.stem_channels[1:])

    def forward(self, encoded: EncoderOutput) -> list[Tensor]:
        """Five levels `(B, C, H/s, W/s)`, s in `STRIDES`."""
        return self.feature_spliter(self.feature_aggregator(encoded.blocks), encoded.fine)
