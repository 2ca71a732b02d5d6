"""The public RS4D detector, written out plainly by the layout of its checkpoints, and far smaller.

Names of modules give the names of the tensors. The encoder runs its mixers twice, as the method's formulas say, with
the scan as a loop: nothing of the engine is used.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

DIM, INNER, STATES, RANK, DEPTH = 64, 24, 4, 3, 6
HIDDEN, CHANNELS = 8, 64
PROMPTS = 3


class Mixer(nn.Module):
    """Mamba-1 on one sequence, from its first token to its last."""

    def __init__(self) -> None:
        super().__init__()
        self.in_proj = nn.Linear(DIM, 2 * INNER, bias=False)
        self.conv1d = nn.Conv1d(INNER, INNER, 4, groups=INNER)
        self.x_proj = nn.Linear(INNER, RANK + 2 * STATES, bias=False)
        self.dt_proj = nn.Linear(RANK, INNER)
        self.A_log = nn.Parameter(torch.rand(INNER, STATES))
        self.D = nn.Parameter(torch.rand(INNER))
        self.out_proj = nn.Linear(INNER, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        u, z = self.in_proj(x).chunk(2, dim=-1)
        u = F.silu(self.conv1d(F.pad(u.transpose(1, 2), (3, 0)))).transpose(1, 2)
        dt, b, c = self.x_proj(u).split([RANK, STATES, STATES], dim=-1)
        delta = F.softplus(self.dt_proj(dt))
        a = -torch.exp(self.A_log)
        state, y = u.new_zeros(len(x), INNER, STATES), []
        for t in range(x.shape[1]):
            step = delta[:, t, :, None]
            state = torch.exp(step * a) * state + step * b[:, t, None, :] * u[:, t, :, None]
            y.append((state * c[:, t, None, :]).sum(-1) + self.D * u[:, t])
        return self.out_proj(torch.stack(y, dim=1) * F.silu(z))


class PatchEmbed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, DIM, 16, stride=16, bias=False)


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = PatchEmbed()
        self.pos_embed = nn.Parameter(0.3 * torch.randn(1, 4096, DIM))
        self.layers = nn.ModuleList(Mixer() for _ in range(DEPTH))
        self.pre_norm = nn.LayerNorm(DIM, eps=1e-6)
        self.ln1 = nn.LayerNorm(DIM, eps=1e-6)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        """Every block's map, and the last one after the norm."""
        x = self.patch_embed.projection(images)
        shape = x.shape[-2:]
        grid = self.pos_embed.unflatten(1, (64, 64)).permute(0, 3, 1, 2)
        x = (x + F.interpolate(grid, shape, mode="bicubic", align_corners=False)).flatten(2).transpose(1, 2)
        blocks = []
        for mixer in self.layers:
            normed = self.pre_norm(x)
            x = x + (mixer(normed) + mixer(normed.flip(1)).flip(1)) / 2
            blocks.append(x.transpose(1, 2).unflatten(2, shape))
        return blocks, self.ln1(x).transpose(1, 2).unflatten(2, shape)


def conv_norm_relu(channels_in: int, channels_out: int, kernel: int, bias: bool) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2, bias=bias)
    return [conv, nn.BatchNorm2d(channels_out), nn.ReLU()]


class Aggregator(nn.Module):
    def __init__(self, chosen: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.chosen = chosen
        self.downconvs = nn.ModuleList(
            nn.Sequential(*conv_norm_relu(DIM, HIDDEN, 1, bias), *conv_norm_relu(HIDDEN, HIDDEN, 3, bias))
            for _ in chosen
        )
        self.hidden_convs = nn.ModuleList(nn.Sequential(*conv_norm_relu(HIDDEN, HIDDEN, 3, bias)) for _ in chosen)
        self.fusion_conv = nn.Sequential(
            *conv_norm_relu(HIDDEN, CHANNELS, 1, bias),
            *conv_norm_relu(CHANNELS, CHANNELS, 3, bias),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )

    def forward(self, blocks: list[Tensor]) -> Tensor:
        x = 0
        for index, down, hidden in zip(self.chosen, self.downconvs, self.hidden_convs, strict=True):
            x = x + down(blocks[index])
            x = x + hidden(x)
        return self.fusion_conv(x)


class ChannelNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.rand(channels)), nn.Parameter(torch.rand(channels))

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        normed = centred / (centred.pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
        return normed * self.weight[:, None, None] + self.bias[:, None, None]


class ConvNorm(nn.Module):
    """A convolution without bias, and a norm under a name of its own."""

    def __init__(self, channels_in: int, kernel: int, norm_name: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, CHANNELS, kernel, padding=kernel // 2, bias=False)
        self.add_module(norm_name, ChannelNorm(CHANNELS))
        self._norm_name = norm_name

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, self._norm_name)(self.conv(x))


class Pyramid(nn.Module):
    def __init__(self, norm_name: str) -> None:
        super().__init__()
        half, quarter = CHANNELS // 2, CHANNELS // 4
        self.fpn1 = nn.Sequential(
            nn.ConvTranspose2d(CHANNELS, half, 2, stride=2),
            ChannelNorm(half),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, 2, stride=2),
        )
        self.fpn2 = nn.Sequential(nn.ConvTranspose2d(CHANNELS, half, 2, stride=2))
        widths = (quarter, half, CHANNELS, CHANNELS)
        self.lateral_convs = nn.ModuleList(ConvNorm(width, 1, norm_name) for width in widths)
        self.fpn_convs = nn.ModuleList(ConvNorm(CHANNELS, 3, norm_name) for _ in widths)

    def forward(self, x: Tensor) -> list[Tensor]:
        sources = (self.fpn1(x), self.fpn2(x), x, F.max_pool2d(x, 2))
        levels = [fpn(lateral(s)) for s, lateral, fpn in zip(sources, self.lateral_convs, self.fpn_convs, strict=True)]
        return [*levels, F.max_pool2d(levels[-1], 1, stride=2)]


class Neck(nn.Module):
    def __init__(self, chosen: tuple[int, ...], bias: bool, norm_name: str) -> None:
        super().__init__()
        self.feature_aggregator = Aggregator(chosen, bias)
        self.feature_spliter = Pyramid(norm_name)

    def forward(self, blocks: list[Tensor]) -> list[Tensor]:
        return self.feature_spliter(self.feature_aggregator(blocks))


class RPNHead(nn.Module):
    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.rpn_cls = nn.Conv2d(CHANNELS, anchors, 1)
        self.rpn_reg = nn.Conv2d(CHANNELS, 4 * anchors, 1)

    def forward(self, level: Tensor) -> tuple[Tensor, Tensor]:
        """Objectness `(B, h * w * A)` and deltas `(B, h * w * A, 4)`, the anchors of a position together."""
        hidden = F.relu(self.rpn_conv(level))
        deltas = self.rpn_reg(hidden).permute(0, 2, 3, 1).reshape(len(level), -1, 4)
        return self.rpn_cls(hidden).permute(0, 2, 3, 1).flatten(1), deltas


class BBoxHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.shared_fcs = nn.ModuleList([nn.Linear(CHANNELS * 49, 32), nn.Linear(32, 32)])
        self.fc_cls = nn.Linear(32, classes + 1)
        self.fc_reg = nn.Linear(32, 4 * classes)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        hidden = F.relu(self.shared_fcs[1](F.relu(self.shared_fcs[0](features.flatten(1)))))
        return self.fc_cls(hidden), self.fc_reg(hidden)


class PlainConv(nn.Module):
    def __init__(self, channels_in: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, 16, 3, padding=1)


class FCNMaskHead(nn.Module):
    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(PlainConv(CHANNELS if i == 0 else 16) for i in range(4))
        self.upsample = nn.ConvTranspose2d(16, 16, 2, stride=2)
        self.conv_logits = nn.Conv2d(16, classes, 1)

    def forward(self, features: Tensor) -> Tensor:
        for layer in self.convs:
            features = F.relu(layer.conv(features))
        return self.conv_logits(F.relu(self.upsample(features)))


class Wrapped(nn.Module):
    """A module under a name of its own, as the public code wraps those of transformers."""

    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.add_module(name, module)


class PromptMaskHead(nn.Module):
    def __init__(self, sam: nn.Module) -> None:
        super().__init__()
        self.point_emb = nn.Sequential(
            nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1),
            nn.BatchNorm2d(CHANNELS),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(CHANNELS * 49, CHANNELS),
            nn.ReLU(),
            nn.Linear(CHANNELS, CHANNELS),
            nn.ReLU(),
            nn.Linear(CHANNELS, 2 * CHANNELS * PROMPTS),
        )
        self.mask_decoder = Wrapped("mask_decoder", sam.mask_decoder)
        self.no_mask_embed = sam.prompt_encoder.no_mask_embed

    def forward(self, features: Tensor, image: Tensor, positions: Tensor) -> Tensor:
        """Masks of K regions of one image."""
        points = self.point_emb(features).reshape(len(features), PROMPTS, 2 * CHANNELS)
        points = points[..., ::2].sin() + points[..., 1::2]
        dense = self.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, *image.shape[-2:])
        masks = self.mask_decoder.mask_decoder(image, positions, points[None], dense, multimask_output=False)[0]
        return masks[0, :, 0]


class Detector(nn.Module):
    """The whole, with SAM's decoder and a `shared_image_embedding` where `sam` is given."""

    def __init__(self, classes: int, sam: nn.Module | None = None, bias: bool = False, norm_name: str = "ln") -> None:
        super().__init__()
        self.backbone = Encoder()
        self.neck = Neck((1, 3) if sam is None else (2, 4), bias, norm_name)
        self.rpn_head = RPNHead(3 if sam is None else 6)
        self.roi_head = nn.Module()
        self.roi_head.bbox_head = BBoxHead(classes)
        self.roi_head.mask_head = FCNMaskHead(classes) if sam is None else PromptMaskHead(sam)
        if sam is not None:
            self.shared_image_embedding = Wrapped("shared_image_embedding", sam.shared_image_embedding)
        # Statistics that a norm has not at birth.
        for norm in self.modules():
            if isinstance(norm, nn.BatchNorm2d):
                norm.running_mean.normal_()
                norm.running_var.uniform_(0.5, 2)
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.normal_(norm.bias)
        self.eval()


def small_sam() -> nn.Module:
    """A `SamModel` of transformers with random weights: 8 attention heads, as all of SAM's sizes."""
    from transformers import SamConfig, SamModel

    embedding = {"image_size": 64, "patch_size": 16}
    vision = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "global_attn_indexes": [0]}
    config = SamConfig(
        vision_config={**vision, **embedding, "output_channels": CHANNELS, "num_pos_feats": CHANNELS // 2},
        prompt_encoder_config={"hidden_size": CHANNELS, **embedding, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": CHANNELS,
            "iou_head_hidden_dim": CHANNELS,
            "mlp_dim": 48,
            "num_attention_heads": 8,
        },
        attn_implementation="eager",
    )
    sam = SamModel(config).eval()
    for embedded in (sam.prompt_encoder.no_mask_embed, sam.mask_decoder.mask_tokens, sam.mask_decoder.iou_token):
        nn.init.normal_(embedded.weight)
    return sam
