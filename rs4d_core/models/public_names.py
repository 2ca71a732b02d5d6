"""Where the tensors of our segmenter stand in the public RS4D checkpoints, and in SAM as transformers saves it.

The public names are those of mmdetection, of RSPrompter's public code (arXiv 2306.16269), and of transformers for the
mixers and for SAM's decoder.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from rs4d_core.errors import ModelFileError
from rs4d_core.models.config import SegmenterConfig
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.wording import counted

PATCH_KEY = "patch_embed.projection.weight"
_SHOWN = 3
"""Names that a message lists of each kind."""

Namer = Callable[[str], str | None]
"""Our name of a tensor -> theirs; None where they have none, and ours is zero."""


class PublicWeights:
    """The tensors of a checkpoint, and which of them have been asked for.

    Args:
        tensors: by their public names.
        path: of their file, for messages.
    """

    def __init__(self, tensors: Mapping[str, Tensor], path: Path) -> None:
        self.tensors = tensors
        self._path = path
        self._used: set[str] = set()
        self._faults: dict[str, list[str]] = {"missing": [], "of another shape": [], "not finite": []}

    def shape(self, name: str, dimensions: int) -> tuple[int, ...]:
        """The shape of a tensor that tells how large the model is.

        Raises:
            ModelFileError: there is none of this name and number of dimensions.
        """
        tensor = self.tensors.get(name)
        if tensor is None or tensor.ndim != dimensions:
            fault = "lacks" if tensor is None else f"has {tensor.ndim} dimensions, not {dimensions}, in"
            raise ModelFileError(f"{self._path} {fault} {name}: give a checkpoint of RS4D or SAM as published")
        return tuple(tensor.shape)

    def entries(self, pattern: str) -> int:
        """How many numbered entries there are, from 0 on: `pattern` has a group for the number."""
        return len({match[1] for match in map(re.compile(pattern).match, self.tensors) if match})

    def renamed(self, config: SegmenterConfig, name_of: Mapping[str, Namer]) -> dict[str, Tensor]:
        """Our tensors in float32, for those parts of a segmenter whose prefixes are the keys of `name_of`.

        What is missing or does not fit is remembered for `check`.
        """
        with torch.device("meta"):
            wanted = Segmenter(config).state_dict()
        weights = {}
        for prefix, namer in name_of.items():
            for ours, place in wanted.items():
                if ours.startswith(prefix):
                    weights[ours] = self._take(namer(ours), place)
        return weights

    def _take(self, theirs: str | None, place: Tensor) -> Tensor:
        zeros = torch.zeros(place.shape, dtype=place.dtype)
        if theirs is None:
            return zeros
        tensor = self.tensors.get(theirs)
        if tensor is None:
            self._faults["missing"].append(theirs)
            return zeros
        self._used.add(theirs)
        if tensor.shape != place.shape:
            shapes = f"{tuple(tensor.shape)} instead of {tuple(place.shape)}"
            self._faults["of another shape"].append(f"{theirs}: {shapes}")
            return zeros
        if not torch.isfinite(tensor).all():
            self._faults["not finite"].append(theirs)
        # A copy: one norm of theirs becomes many of ours.
        return tensor.to(place.dtype, copy=True)

    def pass_over(self, names: Iterable[str]) -> None:
        """These are known, and have no place in our model."""
        self._used.update(names)

    def fold_biases(self, weights: dict[str, Tensor]) -> int:
        """Biases of the neck's convolutions that a batch norm follows: into its mean, which is the same to rounding.

        The norm takes off the mean of what the convolution gives, so a bias that ours does not have is a mean that is
        less by as much. Changes `weights`; returns how many biases there were.
        """
        folded = 0
        for name, bias in self.tensors.items():
            match = re.fullmatch(r"(neck\.feature_aggregator\..+\.)(\d+)\.bias", name)
            if match is None or name in weights or name in self._used:
                continue
            norm = f"{match[1]}{int(match[2]) + 1}.running_mean"
            if norm in weights and weights[norm].shape == bias.shape:
                weights[norm] = weights[norm] - bias
                self._used.add(name)
                folded += 1
        return folded

    def check(self) -> None:
        """See that all has come over.

        Raises:
            ModelFileError: tensors are unknown, missing, of another shape, or not finite; it names the first of each.
        """
        faults = {"unknown": [name for name in self.tensors if name not in self._used], **self._faults}
        found = [
            f"{counted(len(names), 'tensor')} {fault} ({listed(names)})" for fault, names in faults.items() if names
        ]
        if found:
            raise ModelFileError(f"{self._path} does not fit: {'; '.join(found)}: give a checkpoint as published")


def listed(names: Iterable[str]) -> str:
    """The first few names."""
    names = list(names)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def encoder_name(ours: str, prefix: str) -> str:
    """Of a tensor `encoder.*`, in a checkpoint whose encoder's names begin with `prefix`."""
    name = ours.removeprefix("encoder.")
    # One norm serves all blocks there.
    name = re.sub(r"^layers\.\d+\.norm\.", "pre_norm.", name)
    name = re.sub(r"^(layers\.\d+)\.mixer\.", r"\1.", name)
    name = re.sub(r"^norm\.", "ln1.", name).replace("stem.projection.weight", PATCH_KEY)
    return prefix + name


def neck_namer(tensors: Mapping[str, Tensor]) -> Namer:
    """For tensors `neck.*`. How the pyramid's norms are called is not certain: they are what is no `conv`."""
    pattern = re.compile(r"neck\.feature_spliter\.(?:lateral|fpn)_convs\.\d+\.(?!conv\.)(\w+)\.")
    calls = Counter(match[1] for match in map(pattern.match, tensors) if match)
    norm = calls.most_common(1)[0][0] if calls else "ln"

    def name_of(ours: str) -> str | None:
        match = re.fullmatch(r"(neck\.feature_spliter\.(?:lateral|fpn)_)(conv|norm)s\.(\d+)\.(\w+)", ours)
        if match is None:
            return ours
        start, layer, number, parameter = match.groups()
        theirs = f"{start}convs.{number}.{'conv' if layer == 'conv' else norm}.{parameter}"
        # Convolutions before a norm have no bias there.
        return None if theirs.endswith(".conv.bias") and theirs not in tensors else theirs

    return name_of


def rpn_name(ours: str) -> str | None:
    """Of a tensor `rpn.*`. A class's own part of the objectness is ours alone: zero changes nothing."""
    return None if ours.startswith("rpn.rpn_own.") else f"rpn_head.{ours.removeprefix('rpn.')}"


def box_head_name(ours: str) -> str:
    """Of a tensor `box_head.*`."""
    return f"roi_head.bbox_head.{ours.removeprefix('box_head.')}"


def mask_head_name(ours: str) -> str:
    """Of a tensor `mask_head.*` of a box head."""
    return re.sub(r"^(.*mask_head\.convs\.\d+)\.", r"\1.conv.", f"roi_head.{ours}")


def prompt_head_name(ours: str) -> str:
    """Of a tensor `mask_head.*` of a prompt head."""
    if ours.startswith("mask_head.shared_image_embedding."):
        return ours.replace("mask_head.", "shared_image_embedding.", 1)
    return f"roi_head.{ours}".replace("mask_head.mask_decoder.", "mask_head.mask_decoder.mask_decoder.", 1)


def sam_namer(tensors: Mapping[str, Tensor]) -> Namer:
    """For tensors `mask_head.*`, other than `point_emb`, in a `SamModel` of transformers."""
    shared = "shared_image_embedding."
    # One embedding has two names there; which of them a file holds depends on what wrote it.
    if not any(name.startswith(shared) for name in tensors):
        shared = "prompt_encoder.shared_embedding."

    def name_of(ours: str) -> str:
        name = ours.replace("mask_head.", "prompt_encoder." if ".no_mask_embed." in ours else "", 1)
        return name.replace("shared_image_embedding.", shared)

    return name_of
