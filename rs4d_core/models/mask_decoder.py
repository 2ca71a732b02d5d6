"""SAM's mask decoder: prompts and an image embedding in, masks out (Kirillov et al., "Segment Anything", 2023, A).

Modules and parameters carry the names that `transformers` gives them in `SamMaskDecoder` and `SamPositionalEmbedding`,
so that SAM's weights load by name.

Letters: K prompted regions of one image, P prompts a region, T tokens a region (output tokens and prompts), N = h * w
cells of the image embedding, D channels.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.models.layers import ChannelNorm

MASK_TOKENS = 4
"""Token 0 gives the one mask of an unambiguous prompt; 1 to 3 are SAM's alternatives for an ambiguous one."""

_ATTENTION_DOWNSAMPLE = 2


class FourierPositions(nn.Module):
    """Random Fourier features of the cells of a grid, for a grid of any size (Tancik et al., NeurIPS 2020).

    The frequencies are drawn once and are part of the weights, but not trained.

    Args:
        dim: channels of the encoding, even.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("positional_embedding", torch.randn(2, dim // 2))

    def forward(self, height: int, width: int) -> Tensor:
        """The encoding of the cell centres: `(1, dim, height, width)`, sines before cosines."""
        frequencies = self.positional_embedding
        x = (torch.arange(width, device=frequencies.device) + 0.5) / width * 2 - 1
        y = (torch.arange(height, device=frequencies.device) + 0.5) / height * 2 - 1
        # Products, not a matmul: autocast would round a phase of some ten radians to bfloat16.
        phase = x[None, :, None] * frequencies[0] + y[:, None, None] * frequencies[1]
        phase = 2 * math.pi * phase
        return torch.cat([phase.sin(), phase.cos()], dim=-1).permute(2, 0, 1)[None]


class Attention(nn.Module):
    """Multi-head attention in a space of `dim // downsample` channels."""

    def __init__(self, dim: int, heads: int, downsample: int = 1) -> None:
        super().__init__()
        inner = dim // downsample
        self.heads = heads
        self.q_proj = nn.Linear(dim, inner)
        self.k_proj = nn.Linear(dim, inner)
        self.v_proj = nn.Linear(dim, inner)
        self.out_proj = nn.Linear(inner, dim)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend from `query (K, Q, D)` to `key` and `value` `(K, S, D)`: `(K, Q, D)`.

        A first axis of 1 is shared by all K regions: it is projected once.
        """
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection, x in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )
        regions = max(len(q), len(k))
        q, k, v = (x.expand(regions, -1, -1, -1) for x in (q, k, v))
        return self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2))


class TokenMLP(nn.Module):
    """The two linear layers of a transformer block."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.relu(self.lin1(x)))


class TwoWayBlock(nn.Module):
    """Tokens attend to themselves and to the image; then the image attends to the tokens."""

    def __init__(self, dim: int, heads: int, mlp_dim: int, first: bool) -> None:
        super().__init__()
        self.first = first
        self.self_attn = Attention(dim, heads)
        self.layer_norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.cross_attn_token_to_image = Attention(dim, heads, _ATTENTION_DOWNSAMPLE)
        self.layer_norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = TokenMLP(dim, mlp_dim)
        self.layer_norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.layer_norm4 = nn.LayerNorm(dim, eps=1e-6)
        self.cross_attn_image_to_token = Attention(dim, heads, _ATTENTION_DOWNSAMPLE)

    def forward(self, tokens: Tensor, image: Tensor, token_pe: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """New tokens `(K, T, D)` and image `(K, N, D)`; the image given may be shared by the regions, `(1, N, D)`."""
        if self.first:  # Here the tokens are their own encoding: nothing to add it to, and no residual in SAM.
            tokens = self.layer_norm1(self.self_attn(tokens, tokens, tokens))
        else:
            query = tokens + token_pe
            tokens = self.layer_norm1(tokens + self.self_attn(query, query, tokens))
        keys = image + image_pe
        tokens = self.layer_norm2(tokens + self.cross_attn_token_to_image(tokens + token_pe, keys, image))
        tokens = self.layer_norm3(tokens + self.mlp(tokens))
        image = self.layer_norm4(image + self.cross_attn_image_to_token(keys, tokens + token_pe, tokens))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """`depth` two-way blocks, and a last attention from the tokens to the image."""

    def __init__(self, dim: int, depth: int, heads: int, mlp_dim: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TwoWayBlock(dim, heads, mlp_dim, first=i == 0) for i in range(depth))
        self.final_attn_token_to_image = Attention(dim, heads, _ATTENTION_DOWNSAMPLE)
        self.layer_norm_final_attn = nn.LayerNorm(dim)

    def forward(self, tokens: Tensor, image: Tensor, image_pe: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(K, T, D)` and image `(K, N, D)`, from tokens, image `(1, N, D)` and its encoding `(1, N, D)`."""
        token_pe = tokens
        for layer in self.layers:
            tokens, image = layer(tokens, image, token_pe, image_pe)
        attended = self.final_attn_token_to_image(tokens + token_pe, image + image_pe, image)
        return self.layer_norm_final_attn(tokens + attended), image


class FeedForward(nn.Module):
    """Three linear layers with ReLU between them."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(inputs, hidden)
        self.layers = nn.ModuleList([nn.Linear(hidden, hidden)])
        self.proj_out = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.proj_in(x))
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.proj_out(x)


class MaskDecoder(nn.Module):
    """Masks of the regions of one image, from prompts and the image's embedding.

    Args:
        dim: channels D, a multiple of 8 and of `2 * heads`.
        depth: two-way blocks.
        heads: attention heads.
        mlp_dim: hidden units of a block's MLP.
    """

    def __init__(self, dim: int = 256, depth: int = 2, heads: int = 8, mlp_dim: int = 2048) -> None:
        super().__init__()
        self.iou_token = nn.Embedding(1, dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, dim)
        self.transformer = TwoWayTransformer(dim, depth, heads, mlp_dim)
        self.upscale_conv1 = nn.ConvTranspose2d(dim, dim // 4, kernel_size=2, stride=2)
        self.upscale_layer_norm = ChannelNorm(dim // 4)
        self.upscale_conv2 = nn.ConvTranspose2d(dim // 4, dim // 8, kernel_size=2, stride=2)
        self.output_hypernetworks_mlps = nn.ModuleList(FeedForward(dim, dim, dim // 8) for _ in range(MASK_TOKENS))
        self.iou_prediction_head = FeedForward(dim, dim, MASK_TOKENS)

    def forward(self, image: Tensor, image_pe: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """Decode K regions of one image.

        Args:
            image: `(1, D, h, w)`, the image embedding with the dense prompt added to it.
            image_pe: `(1, D, h, w)`, the encoding of its cells.
            prompts: `(K, P, D)`.

        Returns:
            Logits `(K, MASK_TOKENS, 4h, 4w)` of the masks, and the IoU predicted for each, `(K, MASK_TOKENS)`.
        """
        height, width = image.shape[-2:]
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(prompts), -1, -1), prompts], dim=1)
        tokens, cells = self.transformer(tokens, *(x.flatten(2).transpose(1, 2) for x in (image, image_pe)))

        fine = cells.transpose(1, 2).unflatten(-1, (height, width))
        fine = F.gelu(self.upscale_layer_norm(self.upscale_conv1(fine)))
        fine = F.gelu(self.upscale_conv2(fine))
        weights = torch.stack(
            [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1
        )  # (K, MASK_TOKENS, D / 8)
        masks = (weights @ fine.flatten(2)).unflatten(-1, fine.shape[-2:])
        return masks, self.iou_prediction_head(tokens[:, 0])
