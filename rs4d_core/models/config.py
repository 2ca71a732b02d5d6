"""The configuration of a segmenter, and the presets.

Everything is a frozen dataclass, checked when it is built and written whole into every model file.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rs4d_core.errors import OptionError
from rs4d_core.wording import LONGEST_NAME, is_name

Head = Literal["box", "prompt"]
HEADS = get_args(Head)

SIZE_DIVISOR = 32
"""Sides of images are multiples of this: the encoder's patches of 16 px, and one pooling above them."""

PIXEL_MEAN = (123.675, 116.28, 103.53)
PIXEL_STD = (58.395, 57.12, 57.375)
"""Of ImageNet's red, green and blue, 0..255: what a model normalises by unless its card says otherwise."""

# A model file may claim any size. Up to these, what is built to compare it with the file costs a second at most; they
# are ten times those of the largest models there are.
LARGEST_WIDTH = 1 << 16
MOST_LAYERS = 512
MOST_REGIONS = 100_000
MOST_CLASSES = 2000
MOST_ANCHOR_SCALES = 16
LARGEST_ANCHOR_SCALE = 1000.0


@dataclass(frozen=True)
class EncoderConfig:
    """A bidirectional Mamba-1 encoder on tokens of 16 x 16 pixels.

    Attributes:
        dim: channels d of a token.
        inner_dim: channels of the state space, d_inner.
        depth: number of blocks.
        state_dim: states a channel, N.
        dt_rank: rank of the step size's projection.
        stem_channels: empty for the paper's single patch convolution; else the channels at strides 2, 4 and 8 of a
            convolutional stem, which learns from far fewer images and gives the pyramid its fine levels.
    """

    dim: int
    inner_dim: int
    depth: int
    state_dim: int
    dt_rank: int
    stem_channels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require_positive(self, "dim", "inner_dim", "state_dim", "dt_rank")
        _require_positive(self, "depth", most=MOST_LAYERS)
        if len(self.stem_channels) not in (0, 3) or not all(map(_is_width, self.stem_channels)):
            raise OptionError(f"stem_channels must name 3 widths (strides 2, 4, 8) or none, not {self.stem_channels}")


@dataclass(frozen=True)
class NeckConfig:
    """The feature aggregator (some blocks' maps, summed recurrently) and the simple feature pyramid.

    Attributes:
        aggregator_channels: width in which the blocks' maps are summed.
        channels: width of every pyramid level.
        blocks: the blocks that are summed, from 0, rising; empty for every second one from 1 to the last.
        top_down: whether the pyramid also reads the last block at its full width, and refines its levels from coarse to
            fine. Not the paper's.
    """

    aggregator_channels: int
    channels: int
    blocks: tuple[int, ...] = ()
    top_down: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "aggregator_channels", "channels")
        whole = all(type(block) is int and block >= 0 for block in self.blocks)
        if not whole or list(self.blocks) != sorted(set(self.blocks)):
            raise OptionError(f"NeckConfig.blocks must be rising numbers of blocks, not {self.blocks}")
        if type(self.top_down) is not bool:
            raise OptionError(f"NeckConfig.top_down must be true or false, not {self.top_down!r:.100}")


@dataclass(frozen=True)
class RPNConfig:
    """Region proposals.

    Attributes:
        anchor_scales: anchor side on a level, in units of the level's stride.
        proposals: how many boxes an image are handed to the heads, whatever they show.
        class_proposals: how many of each class are handed on too: a crowd of another would else leave them no place.
        pre_nms: how many of each level, at most, enter the non-maximum suppression, whatever they show.
        nms_iou: overlap above which the lower-scored of a level's boxes is dropped.
    """

    anchor_scales: tuple[float, ...]
    proposals: int = 1000
    class_proposals: int = 0
    pre_nms: int = 1000
    nms_iou: float = 0.7

    def __post_init__(self) -> None:
        _require_positive(self, "proposals", "pre_nms", most=MOST_REGIONS)
        if self.class_proposals != 0:
            _require_positive(self, "class_proposals", most=MOST_REGIONS)
        _require_share(self, "nms_iou")
        known = all(0 < scale <= LARGEST_ANCHOR_SCALE for scale in self.anchor_scales)
        if not (known and 1 <= len(self.anchor_scales) <= MOST_ANCHOR_SCALES):
            raise OptionError(
                f"anchor_scales must be 1 to {MOST_ANCHOR_SCALES} numbers above 0, up to {LARGEST_ANCHOR_SCALE:g}, "
                f"not {self.anchor_scales}"
            )


@dataclass(frozen=True)
class BoxHeadConfig:
    """Class and box of a region: two fully connected layers of `hidden` units on 7 x 7 features."""

    hidden: int

    def __post_init__(self) -> None:
        _require_positive(self, "hidden")


@dataclass(frozen=True)
class MaskHeadConfig:
    """Per-class 28 x 28 masks: `convs` convolutions of `channels` on 14 x 14 features, and one deconvolution."""

    channels: int
    convs: int = 4

    def __post_init__(self) -> None:
        _require_positive(self, "channels")
        _require_positive(self, "convs", most=MOST_LAYERS)


@dataclass(frozen=True)
class PromptHeadConfig:
    """SAM's mask decoder, prompted by each region's features.

    Attributes:
        dim: channels of tokens and image embedding in the decoder (SAM: 256), a multiple of 8 and of twice `heads`.
        prompts: prompt embeddings made of one region.
        depth: two-way attention layers.
        heads: attention heads.
        mlp_dim: hidden units of a layer's MLP.
    """

    dim: int
    prompts: int = 5
    depth: int = 2
    heads: int = 8
    mlp_dim: int = 2048

    def __post_init__(self) -> None:
        _require_positive(self, "dim", "heads", "mlp_dim")
        _require_positive(self, "prompts", "depth", most=MOST_LAYERS)
        if self.dim % 8 or self.dim % (2 * self.heads):
            raise OptionError(
                f"PromptHeadConfig.dim must be a multiple of 8 and of twice the {self.heads} heads, not {self.dim}"
            )


@dataclass(frozen=True)
class SegmenterConfig:
    """The whole model: encoder, neck, region proposals, box branch and one kind of mask branch.

    Attributes:
        preset: name of the preset it was made from.
        classes: names of the classes; a label is an index into them.
        head: "box" for Mask R-CNN's mask head, "prompt" for SAM's mask decoder.
        max_instances: most instances a predicted image.
        nms_iou: overlap above which the lower-scored box of a class is dropped.
        min_score: score under which nothing is predicted at all, nor looked at a second time.
        mask_scores: whether an instance's score also counts how sure its mask is: times the root of
            `MaskPatch.certainty`. The scores of the public models are those of the class alone.
        second_look: whether the box branch looks once more where it has put a box, in training too: the box is the
            second look's, the score the geometric mean of both. The public models look once.
    """

    preset: str
    classes: tuple[str, ...]
    encoder: EncoderConfig
    neck: NeckConfig
    rpn: RPNConfig
    box_head: BoxHeadConfig
    mask_head: MaskHeadConfig
    prompt_head: PromptHeadConfig
    head: Head = "box"
    max_instances: int = 100
    nms_iou: float = 0.5
    min_score: float = 0.05
    mask_scores: bool = False
    second_look: bool = False

    def __post_init__(self) -> None:
        _require_positive(self, "max_instances", most=MOST_REGIONS)
        if not is_name(self.preset):
            raise OptionError(f"preset must be a name, not {self.preset!r:.100}")
        if not all(map(is_name, self.classes)):
            wrong = next(name for name in self.classes if not is_name(name))
            raise OptionError(f"classes must be names of one line, up to {LONGEST_NAME} characters, not {wrong!r:.100}")
        if not 1 <= len(set(self.classes)) == len(self.classes) <= MOST_CLASSES:
            raise OptionError(f"classes must be 1 to {MOST_CLASSES} different names, not {self.classes!r:.200}")
        if len(self.classes) * self.rpn.class_proposals > MOST_REGIONS:
            raise OptionError(
                f"rpn.class_proposals of {len(self.classes)} classes must be at most {MOST_REGIONS} together, not "
                f"{self.rpn.class_proposals} each"
            )
        _require_share(self, "nms_iou", "min_score")
        for name in ("mask_scores", "second_look"):
            value = getattr(self, name)
            if type(value) is not bool:
                raise OptionError(f"{name} must be true or false, not {value!r:.100}")
        if self.head not in HEADS:
            raise OptionError(f"head must be 'box' or 'prompt', not {self.head!r}")
        if self.neck.blocks and self.neck.blocks[-1] >= self.encoder.depth:
            raise OptionError(f"the neck reads block {self.neck.blocks[-1]}, the encoder has {self.encoder.depth}")

    def to_json(self) -> dict[str, Any]:
        """Plain lists, numbers and strings, for the model file."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "SegmenterConfig":
        """The config that `to_json` wrote.

        Raises:
            OptionError: a field is missing, unknown or out of range.
        """
        parts = {
            "encoder": EncoderConfig,
            "neck": NeckConfig,
            "rpn": RPNConfig,
            "box_head": BoxHeadConfig,
            "mask_head": MaskHeadConfig,
            "prompt_head": PromptHeadConfig,
        }
        try:
            built = {name: part(**_tuples(fields[name])) for name, part in parts.items()}
            rest = _tuples({name: value for name, value in fields.items() if name not in parts})
            return cls(**built, **rest)
        except (KeyError, TypeError, AttributeError) as error:
            raise OptionError(f"the model's configuration does not fit this version of rs4d: {error}") from error


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    """JSON knows only lists; the frozen configs hold tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def _is_width(value: object) -> bool:
    return type(value) is int and 1 <= value <= LARGEST_WIDTH


def _require_positive(config: object, *names: str, most: int = LARGEST_WIDTH) -> None:
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or not 1 <= value <= most:
            raise OptionError(
                f"{type(config).__name__}.{name} must be a whole number of 1 to {most}, not {value!r:.100}"
            )


def _require_share(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not (isinstance(value, int | float) and 0 <= value <= 1):
            raise OptionError(f"{type(config).__name__}.{name} must lie between 0 and 1, not {value!r:.100}")


def public_blocks(count: int, head: Head) -> tuple[int, ...]:
    """The `count` blocks that the necks of the public checkpoints sum: 1, 3, 5, ... or, for prompts, 2, 4, 6, ..."""
    first = 2 if head == "prompt" else 1
    return tuple(range(first, first + 2 * count, 2))


def _paper(inner_dim: int, depth: int) -> dict[str, Any]:
    return {
        "encoder": EncoderConfig(dim=256, inner_dim=inner_dim, depth=depth, state_dim=16, dt_rank=16),
        "neck": NeckConfig(aggregator_channels=32, channels=256),
        "box_head": BoxHeadConfig(hidden=1024),
        "mask_head": MaskHeadConfig(channels=256),
        "prompt_head": PromptHeadConfig(dim=256),
    }


# small to huge: the table of the paper's variants; tiny is our own, for CPUs and few images.
_PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {
        "encoder": EncoderConfig(dim=192, inner_dim=384, depth=8, state_dim=8, dt_rank=12, stem_channels=(32, 64, 128)),
        "neck": NeckConfig(aggregator_channels=32, channels=96, top_down=True),
        "box_head": BoxHeadConfig(hidden=256),
        "mask_head": MaskHeadConfig(channels=96),
        "prompt_head": PromptHeadConfig(dim=128, heads=8, mlp_dim=512),
    },
    "small": _paper(inner_dim=512, depth=16),
    "base": _paper(inner_dim=512, depth=24),
    "large": _paper(inner_dim=640, depth=28),
    "huge": _paper(inner_dim=640, depth=32),
}
PRESETS = tuple(_PRESETS)


def presets_with(encoder: EncoderConfig) -> tuple[str, ...]:
    """The presets whose encoder it is: none for an architecture of one's own."""
    return tuple(name for name, parts in _PRESETS.items() if parts["encoder"] == encoder)


def preset(name: str, classes: tuple[str, ...], head: Head = "box") -> SegmenterConfig:
    """The configuration of a preset for the given classes.

    Raises:
        OptionError: no such preset or head, or no classes.
    """
    if name not in _PRESETS:
        raise OptionError(f"there is no preset {name!r}: choose one of {', '.join(PRESETS)}")
    # The paper's box head has scale 8, its prompt head 4 and 8. Tiny is for windows of 512 pixels with cars in them:
    # its two scales interleave over the five levels to sides of 8, 16, 23, 32, 45, 64, 90, 128, 181 and 362 pixels.
    scales = (2.0, 4 * 2**0.5) if name == "tiny" else (4.0, 8.0) if head == "prompt" else (8.0,)
    # A CPU pays for every region: tiny has fewer, and less alike ones, so that they still reach each object of a crowd.
    rpn = RPNConfig(scales, proposals=800, class_proposals=40, nms_iou=0.6) if name == "tiny" else RPNConfig(scales)
    parts = dict(_PRESETS[name])
    if name == "tiny":
        parts |= {"max_instances": 300, "mask_scores": True, "second_look": True}
    else:
        # The public necks leave out the last odd block (box) or block 0 (prompt): 11 of base's 24 are summed.
        blocks = public_blocks(parts["encoder"].depth // 2 - 1, head)
        parts["neck"] = dataclasses.replace(parts["neck"], blocks=blocks)
    return SegmenterConfig(preset=name, classes=tuple(classes), rpn=rpn, head=head, **parts)
