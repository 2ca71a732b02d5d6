"""The image encoder: tokens of 16 x 16 pixels through residual bidirectional Mamba blocks."""

from collections.abc import Container
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.config import EncoderConfig
from rs4d_core.models.cpu_blocks import can_run, run_blocks
from rs4d_core.models.layers import ChannelNorm
from rs4d_core.models.mixer import BidirectionalMixer
from rs4d_core.models.prepared import Prepared

PATCH = 16
POSITION_GRID = 64


@dataclass(frozen=True)
class EncoderOutput:
    """What the neck and the prompt head read.

    Attributes:
        blocks: the output of every block, `(B, d, H/16, W/16)` each; None for those that were not asked for.
        last: the last block's output after the final norm, `(B, d, H/16, W/16)`.
        fine: the stem's maps at strides 4 and 8, `(B, c, H/4, W/4)` and `(B, c, H/8, W/8)`; empty without a stem.
    """

    blocks: list[Tensor | None]
    last: Tensor
    fine: list[Tensor]


class PatchStem(nn.Module):
    """One convolution of kernel and stride 16, as in SAM: no finer maps."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, PATCH, stride=PATCH, bias=False)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens `(B, d, H/16, W/16)` of normalised images `(B, 3, H, W)`, and no finer maps."""
        return self.projection(images), []


class ConvStem(nn.Module):
    """Four strided convolutions, for models that learn from few images: they know from the start what an edge is."""

    def __init__(self, dim: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        c2, c4, c8 = channels
        self.stride2 = _downsample(3, c2)
        self.stride4 = nn.Sequential(_downsample(c2, c4), _ResidualConv(c4))
        self.stride8 = nn.Sequential(_downsample(c4, c8), _ResidualConv(c8))
        self.stride16 = nn.Conv2d(c8, dim, 3, stride=2, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Tokens `(B, d, H/16, W/16)` of normalised images `(B, 3, H, W)`, and the maps at strides 4 and 8."""
        four = self.stride4(self.stride2(images))
        eight = self.stride8(four)
        return self.stride16(eight), [four, eight]


def _downsample(channels_in: int, channels_out: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(conv, ChannelNorm(channels_out), _SiLU())


class _SiLU(nn.Module):
    """In place where nobody wants gradients. The norm's result is a view: through one, autograd writes in place only by
    copying the whole map several times."""

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(x, inplace=not torch.is_grad_enabled())


class _ResidualConv(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm = ChannelNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.norm(self.conv1(x))))


class Block(nn.Module):
    """Norm, mixer, residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)
        self.mixer = BidirectionalMixer(config.dim, config.inner_dim, config.state_dim, config.dt_rank)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens `(B, L, d)` to `(B, L, d)`."""
        return tokens + self.mixer(self.norm(tokens))


class Encoder(nn.Module):
    """The linear-time student encoder of RS4D."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = ConvStem(config.dim, config.stem_channels) if config.stem_channels else PatchStem(config.dim)
        self.pos_embed = nn.Parameter(torch.zeros(1, POSITION_GRID * POSITION_GRID, config.dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self._resampled = Prepared(for_product=False)  # a scene's windows have one size
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.dim, eps=1e-6)

    def forward(self, images: Tensor, depths: Container[int] | None = None) -> EncoderOutput:
        """Encode normalised images `(B, 3, H, W)`; H and W are multiples of 16.

        `depths` are the indices of the blocks whose outputs are wanted, None: of all. Without gradients, the others
        need no memory.
        """
        depths = range(self.config.depth) if depths is None else depths
        tokens, fine = self.stem(images)
        height, width = tokens.shape[-2:]
        # The residual stream stays in float32: bf16 would lose what the later blocks add to it.
        tokens = tokens.flatten(2).transpose(1, 2).float() + self._positions(height, width)
        if can_run(tokens, self.config.inner_dim):
            blocks, last = run_blocks(tokens, self.layers, self.norm, depths)
        else:
            blocks = []
            for index, layer in enumerate(self.layers):
                tokens = layer(tokens)
                blocks.append(tokens if index in depths else None)
            last = self.norm(tokens)
        maps = [None if block is None else _to_map(block, height, width) for block in blocks]
        return EncoderOutput(maps, _to_map(last, height, width), fine)

    def _positions(self, height: int, width: int) -> Tensor:
        """The position embedding, resampled (bicubic) from its 64 x 64 grid to the token grid: `(1, L, d)`."""
        if (height, width) == (POSITION_GRID, POSITION_GRID):
            return self.pos_embed
        return self._resampled.of([self.pos_embed], _resample, height, width)[0]


def _resample(embedding: Tensor, height: int, width: int) -> tuple[Tensor]:
    grid = _to_map(embedding, POSITION_GRID, POSITION_GRID)
    grid = F.interpolate(grid, (height, width), mode="bicubic", align_corners=False)
    return (grid.flatten(2).transpose(1, 2),)


def _to_map(tokens: Tensor, height: int, width: int) -> Tensor:
    """`(B, L, d)` row-major tokens as a channels-last map `(B, d, H, W)`, without a copy."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))
