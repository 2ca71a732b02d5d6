"""Layers that several parts of the model share."""

from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of a map `(B, C, H, W)`, each pixel by itself."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `(B, C, H, W)`; a channels-last map is read and written in place of its memory layout."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
