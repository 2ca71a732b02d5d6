"""Parameters and multiply-accumulates (MAC) of the encoders, against SAM ViT-B's image encoder.

The way of counting, the same for both sides:

- Parameters without the position embedding, which grows with the grid and not with the network.
- MACs of one square image: matrix products and convolutions, a MAC being half of what FLOP counters count. Norms,
  activations, gates and other elementwise work are left out.
- The selective scan is elementwise, but it is the encoder's substitute for attention, so it is counted: 3 MAC a state
  and step (decay times state, input into the state, state into the output), in both directions.

SAM is counted by torch's FLOP counter. Our own kernels are opaque operations to that counter, so the encoder's MACs are
written out from its configuration; a test holds all but those against the FLOP counter.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rs4d_core.errors import DependencyError
from rs4d_core.installation import add_command
from rs4d_core.models.config import PRESETS, EncoderConfig, preset
from rs4d_core.models.encoder import PATCH, Encoder
from rs4d_core.models.mixer import CONV_KERNEL
from rs4d_core.models.segmenter import Segmenter

SIDE_PX = 1024
SCAN_MACS_A_STATE = 3

# The number of classes hardly matters to a segmenter's size: one keeps the figure free of any data set.
_CLASSES = ("object",)


@dataclass(frozen=True)
class Count:
    """Size and work of one image encoder.

    Attributes:
        parameters: without the position embedding.
        macs: multiply-accumulates for one image of `SIDE_PX` x `SIDE_PX` pixels.
    """

    parameters: int
    macs: int


def encoder_macs(config: EncoderConfig, side_px: int) -> dict[str, int]:
    """MACs of each part of the encoder, over all blocks, for an image of `side_px` x `side_px` pixels."""
    tokens = (side_px // PATCH) ** 2
    d, inner, states, rank = config.dim, config.inner_dim, config.state_dim, config.dt_rank
    # Per token and block. in_proj and out_proj run once for both directions, the rest once for each.
    per_token = {
        "in_proj": d * 2 * inner,
        "conv": 2 * CONV_KERNEL * inner,
        "x_proj": 2 * inner * (rank + 2 * states),
        "dt_proj": 2 * rank * inner,
        "scan": 2 * SCAN_MACS_A_STATE * inner * states,
        "out_proj": inner * d,
    }
    blocks = {part: config.depth * tokens * macs for part, macs in per_token.items()}
    return {"stem": _stem_macs(config, side_px), **blocks}


def _stem_macs(config: EncoderConfig, side_px: int) -> int:
    if not config.stem_channels:
        return (side_px // PATCH) ** 2 * 3 * PATCH**2 * config.dim
    c2, c4, c8 = config.stem_channels
    # (stride, channels in, channels out) of every 3 x 3 convolution of `ConvStem`.
    convs = [(2, 3, c2), (4, c2, c4), (4, c4, c4), (4, c4, c4), (8, c4, c8), (8, c8, c8), (8, c8, c8)]
    convs.append((16, c8, config.dim))
    return sum((side_px // stride) ** 2 * 9 * into * out for stride, into, out in convs)


def count_encoder(config: EncoderConfig) -> Count:
    """Size and work of this project's encoder."""
    with torch.device("meta"):
        encoder = Encoder(config)
    parameters = _parameters(encoder) - encoder.pos_embed.numel()
    return Count(parameters, sum(encoder_macs(config, SIDE_PX).values()))


def count_sam_vit_b() -> Count:
    """Size and work of SAM ViT-B's image encoder, as transformers builds it.

    Raises:
        DependencyError: transformers is not installed.
    """
    try:
        from transformers import SamVisionConfig, SamVisionModel
    except ImportError as error:
        raise DependencyError(f"SAM is counted with transformers: {add_command('train')}") from error
    with torch.device("meta"):
        sam = SamVisionModel(SamVisionConfig(image_size=SIDE_PX)).eval()
        image = torch.empty(1, 3, SIDE_PX, SIDE_PX)
    parameters = _parameters(sam) - sam.vision_encoder.pos_embed.numel()
    return Count(parameters, matrix_macs(sam, image))


def matrix_macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """MACs of the matrix products and convolutions of one forward pass, as torch's FLOP counter sees them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


def count_segmenter(name: str) -> int:
    """Parameters of a whole segmenter of a preset with head "box", for one class."""
    with torch.device("meta"):
        return _parameters(Segmenter(preset(name, _CLASSES)))


def _parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def count_all() -> dict[str, Any]:
    """All presets and SAM ViT-B, with their ratios (SAM over ours), as the JSON of the benchmark.

    Raises:
        DependencyError: transformers is not installed.
    """
    sam = count_sam_vit_b()
    presets, ratios = {}, {}
    for name in PRESETS:
        count = count_encoder(preset(name, _CLASSES).encoder)
        presets[name] = {
            "parameters": count.parameters,
            "macs_1024": count.macs,
            "total_parameters": count_segmenter(name),
        }
        ratios[name] = {"parameters": sam.parameters / count.parameters, "macs": sam.macs / count.macs}
    return {
        "presets": presets,
        "sam_vit_b": {"parameters": sam.parameters, "macs_1024": sam.macs},
        "ratios": ratios,
    }
