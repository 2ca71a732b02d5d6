"""Layers that several parts of the model share."""

from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.prepared import Prepared


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map `(B, C, H, W)`, each pixel by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, H, W)` in x's dtype; a channels-last map is read and written in its memory layout."""
        # Autocast computes norms in float32, and would leave the map so: twice the memory to go through, for layers
        # that round it in the end.
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(x.dtype)


class Upsample2x(nn.ConvTranspose2d):
    """A transposed convolution of kernel and stride 2: each pixel becomes four, none of which overlap.

    So it is one matrix product for each pixel, as which it runs several times faster on a CPU than as a convolution.
    Weights and their names are those of `nn.ConvTranspose2d`.
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 2, stride=2)
        self._prepared = Prepared()

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, H, W)` to `(B, C', 2H, 2W)`, channels last in memory."""
        batch, _, height, width = x.shape
        rows = self.blocks(x).transpose(2, 3)
        return rows.reshape(batch, 2 * height, 2 * width, self.out_channels).permute(0, 3, 1, 2)

    def blocks(self, x: Tensor, biased: bool = True) -> Tensor:
        """`(B, C, H, W)` to the four pixels that each becomes, `(B, H, W, 2, 2, C')`: rows before columns.

        Without the bias where whoever reads them adds it.
        """
        weight, bias = self._prepared.of([self.weight, self.bias], _as_product)
        return F.linear(x.permute(0, 2, 3, 1), weight, bias if biased else None).unflatten(3, (2, 2, -1))


def _as_product(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    return weight.permute(2, 3, 1, 0).flatten(0, 2), bias.repeat(4)
