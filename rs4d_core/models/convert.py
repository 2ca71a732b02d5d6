"""The public RS4D checkpoints and SAM's mask decoder as weights of our own segmenter.

A checkpoint names neither its architecture nor its classes: the sizes are read off the shapes of its tensors, the
classes are given. What differs from the public model in the end is no weight: proposals and boxes under one pixel are
dropped here, and a prompt head's mask is kept inside of its box with a margin.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from rs4d_core.errors import ModelFileError, OptionError
from rs4d_core.models.config import (
    PRESETS,
    BoxHeadConfig,
    EncoderConfig,
    Head,
    MaskHeadConfig,
    NeckConfig,
    PromptHeadConfig,
    RPNConfig,
    SegmenterConfig,
    preset,
    public_blocks,
)
from rs4d_core.models.public_names import (
    PATCH_KEY,
    PublicWeights,
    box_head_name,
    encoder_name,
    listed,
    mask_head_name,
    neck_namer,
    prompt_head_name,
    rpn_name,
    sam_namer,
)
from rs4d_core.wording import counted

_SAM_HEADS = 8
"""Attention heads of SAM's decoder: no shape tells them."""
_SCALES_OF_ANCHORS = {3: (8.0,), 6: (4.0, 8.0)}
"""Anchor scales of the public proposals, by the number of anchors at a position."""
# What stands beside the decoder in SAM. A region's prompts come from its features, so the embeddings of clicks, boxes
# and drawn masks have no use here; the image encoder is the teacher's.
_BESIDE_SAMS_DECODER = re.compile(r"vision_encoder\.|prompt_encoder\.(?!no_mask_embed\.)")
_CLASSLESS = ("object",)
_CUSTOM = "converted"
_ONE_NORM = "the one norm before all mixers was copied to every block: trained on, they may come to differ"


@dataclass(frozen=True)
class Converted:
    """Weights under our names.

    Attributes:
        config: of the segmenter that they belong to.
        weights: by their names in `Segmenter(config).state_dict()`: all of them, or those of one part.
        notes: what was found and decided, a clause each.
    """

    config: SegmenterConfig
    weights: dict[str, Tensor]
    notes: tuple[str, ...]


def convert(tensors: Mapping[str, Tensor], path: Path, classes: tuple[str, ...] = ()) -> Converted:
    """Weights of a public detector, a public encoder, or a SAM model: which one it is, its names tell.

    Args:
        tensors: as `foreign_weights.read_foreign_weights` gives them.
        path: of their file, for messages.
        classes: of a detector, in the order in which it was trained; the others know no classes.

    Returns:
        A whole segmenter's weights of a detector; `encoder.*` of an encoder; the prompt head's without `point_emb` of
        a SAM model.

    Raises:
        ModelFileError: none of the three; or tensors are unknown, missing, of another shape, or not finite.
        OptionError: the number of classes is not the checkpoint's, or classes are given for what has none.
    """
    public = PublicWeights(tensors, path)
    if f"backbone.{PATCH_KEY}" in tensors:
        return _convert_detector(public, path, classes)
    if classes:
        raise OptionError(f"classes were named for {path}, which is no detector and knows none: leave them out")
    if PATCH_KEY in tensors:
        return _convert_encoder(public)
    if "mask_decoder.iou_token.weight" in tensors:
        return _convert_sam(public)
    raise ModelFileError(
        f"{path} is no checkpoint of RS4D or SAM that is known here: it has no backbone.{PATCH_KEY}, no {PATCH_KEY} "
        f"and no mask_decoder.iou_token.weight, but {counted(len(tensors), 'tensor')} ({listed(tensors)})"
    )


def _convert_encoder(public: PublicWeights) -> Converted:
    encoder = _encoder_config(public, "")
    name = _preset_of(encoder)
    if name == _CUSTOM:
        neck = NeckConfig(aggregator_channels=32, channels=256)
        config = replace(preset("base", _CLASSLESS, "prompt"), preset=name, encoder=encoder, neck=neck)
    else:
        config = preset(name, _CLASSLESS, "prompt")
    weights = public.renamed(config, {"encoder.": lambda ours: encoder_name(ours, "")})
    public.check()
    return Converted(config, weights, (f"an encoder: {_described(config)}", _ONE_NORM))


def _convert_sam(public: PublicWeights) -> Converted:
    prompt = _prompt_config(public, "mask_decoder.", PromptHeadConfig.prompts)
    config = replace(preset("base", _CLASSLESS, "prompt"), prompt_head=prompt)
    parts = ("mask_head.mask_decoder.", "mask_head.no_mask_embed.", "mask_head.shared_image_embedding.")
    weights = public.renamed(config, dict.fromkeys(parts, sam_namer(public.tensors)))
    beside = [name for name in public.tensors if _BESIDE_SAMS_DECODER.match(name)]
    public.pass_over(beside)
    public.check()
    note = f"{counted(len(beside), 'tensor')} of its image encoder and of its clicks and boxes have no place here"
    return Converted(config, weights, ("SAM's mask decoder, position encoding and embedding of no mask", note))


def _convert_detector(public: PublicWeights, path: Path, classes: tuple[str, ...]) -> Converted:
    prompted = any(name.startswith("roi_head.mask_head.mask_decoder.") for name in public.tensors)
    count = public.shape("roi_head.bbox_head.fc_cls.weight", 2)[0] - 1
    if len(classes) != count:
        raise OptionError(
            f"{path} tells {counted(count, 'class', 'classes')} apart, and {len(classes)} were named: "
            "name each, in the order in which it was trained"
        )
    config = _detector_config(public, path, classes, "prompt" if prompted else "box")
    weights = public.renamed(
        config,
        {
            "encoder.": lambda ours: encoder_name(ours, "backbone."),
            "neck.": neck_namer(public.tensors),
            "rpn.": rpn_name,
            "box_head.": box_head_name,
            "mask_head.": prompt_head_name if prompted else mask_head_name,
        },
    )
    folded = public.fold_biases(weights)
    public.check()
    notes = [
        f"a detector with a {config.head} head: {_described(config)}; its neck sums blocks "
        f"{', '.join(map(str, config.neck.blocks))}",
        _ONE_NORM,
        "a class's own part of the objectness is 0, so that proposals are the checkpoint's",
        f"classes by their place: {', '.join(classes)}, and the background last",
    ]
    if folded:
        notes.append(f"{counted(folded, 'bias', 'biases')} before batch norms went into the means of those")
    return Converted(config, weights, tuple(notes))


def _encoder_config(public: PublicWeights, prefix: str) -> EncoderConfig:
    inner_dim, state_dim = public.shape(f"{prefix}layers.0.A_log", 2)
    return EncoderConfig(
        dim=public.shape(prefix + PATCH_KEY, 4)[0],
        inner_dim=inner_dim,
        depth=public.entries(rf"{re.escape(prefix)}layers\.(\d+)\."),
        state_dim=state_dim,
        dt_rank=public.shape(f"{prefix}layers.0.dt_proj.weight", 2)[1],
    )


def _prompt_config(public: PublicWeights, prefix: str, prompts: int) -> PromptHeadConfig:
    return PromptHeadConfig(
        dim=public.shape(f"{prefix}iou_token.weight", 2)[1],
        prompts=prompts,
        depth=public.entries(rf"{re.escape(prefix)}transformer\.layers\.(\d+)\."),
        heads=_SAM_HEADS,
        mlp_dim=public.shape(f"{prefix}transformer.layers.0.mlp.lin1.weight", 2)[0],
    )


def _detector_config(public: PublicWeights, path: Path, classes: tuple[str, ...], head: Head) -> SegmenterConfig:
    encoder = _encoder_config(public, "backbone.")
    summed = public.entries(r"neck\.feature_aggregator\.downconvs\.(\d+)\.")
    anchors = public.shape("rpn_head.rpn_cls.weight", 4)[0]
    if anchors not in _SCALES_OF_ANCHORS:
        raise ModelFileError(f"{path} has {anchors} anchors at a position; 3 and 6 are known here")
    config = replace(
        preset("base", classes, head),
        preset=_preset_of(encoder),
        encoder=encoder,
        neck=NeckConfig(
            aggregator_channels=public.shape("neck.feature_aggregator.downconvs.0.0.weight", 4)[0],
            channels=public.shape("neck.feature_aggregator.fusion_conv.6.weight", 4)[0],
            blocks=public_blocks(summed, head),
        ),
        rpn=RPNConfig(_SCALES_OF_ANCHORS[anchors]),
        box_head=BoxHeadConfig(public.shape("roi_head.bbox_head.shared_fcs.0.weight", 2)[0]),
    )
    if head == "box":
        channels = public.shape("roi_head.mask_head.convs.0.conv.weight", 4)[0]
        convs = public.entries(r"roi_head\.mask_head\.convs\.(\d+)\.")
        return replace(config, mask_head=MaskHeadConfig(channels, convs))
    prefix = "roi_head.mask_head.mask_decoder.mask_decoder."
    dim = public.shape(f"{prefix}iou_token.weight", 2)[1]
    # Two numbers a channel: one goes through a sine.
    prompts = public.shape("roi_head.mask_head.point_emb.8.weight", 2)[0] // (2 * dim)
    return replace(config, prompt_head=_prompt_config(public, prefix, prompts))


def _preset_of(encoder: EncoderConfig) -> str:
    return next((name for name in PRESETS if preset(name, _CLASSLESS).encoder == encoder), _CUSTOM)


def _described(config: SegmenterConfig) -> str:
    size = "of no preset's size" if config.preset == _CUSTOM else f"preset {config.preset}"
    return f"{size}, {counted(config.encoder.depth, 'block')} of {config.encoder.dim} channels"
