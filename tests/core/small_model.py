"""A segmenter so small that tests can train it, and images with truth to train it on."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from rs4d_core.models.card import ModelCard
from rs4d_core.models.checkpoint import save_model
from rs4d_core.models.config import (
    BoxHeadConfig,
    EncoderConfig,
    MaskHeadConfig,
    NeckConfig,
    PromptHeadConfig,
    RPNConfig,
    SegmenterConfig,
)
from rs4d_core.models.instances import Target
from rs4d_core.models.segmenter import Segmenter

CLASSES = ("ship", "vehicle")


def small_config(
    head: str = "box", stem_channels: tuple[int, ...] = (8, 8, 8), dim: int = 32, top_down: bool = False
) -> SegmenterConfig:
    """A tenth of a million parameters, all parts of the real thing."""
    return SegmenterConfig(
        preset="test",
        classes=CLASSES,
        encoder=EncoderConfig(dim, inner_dim=32, depth=2, state_dim=4, dt_rank=4, stem_channels=stem_channels),
        neck=NeckConfig(aggregator_channels=8, channels=32, top_down=top_down),
        rpn=RPNConfig((4.0, 8.0), proposals=50, pre_nms=50),
        box_head=BoxHeadConfig(hidden=64),
        mask_head=MaskHeadConfig(channels=32, convs=2),
        prompt_head=PromptHeadConfig(dim=32, prompts=3, depth=1, heads=2, mlp_dim=32),
        head=head,
    )


def write_untrained_model(path: Path) -> None:
    """A model file that is whole and small. It finds noise: a few boxes in each window, filled."""
    config = small_config()
    config = replace(config, rpn=replace(config.rpn, proposals=5))
    torch.manual_seed(0)
    segmenter = Segmenter(config)
    torch.nn.init.constant_(segmenter.mask_head.conv_logits.bias, 9.0)
    card = ModelCard(
        name="untrained",
        config=config,
        colors=("#e41a1c", "#377eb8"),
        resolution_m=(0.3, 1.0),
        window_px=128,
        overlap_px=32,
        default_scores=(0.0,) * len(CLASSES),
    )
    save_model(path, segmenter, card)


def target(
    boxes: list[tuple[int, int, int, int]],
    side: int,
    labels: list[int] | None = None,
    outlined: bool = True,
    crowd: list[tuple[int, int, int, int]] | None = None,
    annotated: tuple[bool, ...] = (True, True),
) -> Target:
    """Filled rectangles as instances of an image of `side` x `side` pixels."""
    masks = torch.zeros(len(boxes), side, side, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = outlined
    return Target(
        boxes_xyxy=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels or [0] * len(boxes), dtype=torch.int64),
        masks=masks,
        has_mask=torch.full((len(boxes),), outlined),
        ignore_xyxy=torch.tensor(crowd or [], dtype=torch.float32).reshape(-1, 4),
        annotated=torch.tensor(annotated),
    )


def picture(target: Target, colors: tuple[int, ...] = (220, 60)) -> Tensor:
    """`(3, H, W)`, 0..255: the instances of a target as flat patches of their class's grey, on noise around 128."""
    height, width = target.masks.shape[1:]
    image = 128 + 8 * torch.randn(3, height, width)
    for mask, label in zip(target.masks, target.labels, strict=True):
        image[:, mask] = float(colors[label])
    return image.clamp(0, 255)
