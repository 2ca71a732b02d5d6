"""Model files: weights and card in one `.safetensors`, without pickle."""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from rs4d_core.device import choose_device, fast_dtype
from rs4d_core.errors import ModelFileError, OutputError
from rs4d_core.freed_memory import keep_freed_memory
from rs4d_core.models.card import CARD_KEY, ModelCard, opened
from rs4d_core.models.encoder import PATCH
from rs4d_core.models.instances import Instances
from rs4d_core.models.neck import STRIDES
from rs4d_core.models.segmenter import Encoded, Segmenter
from rs4d_core.whole_file import write_whole

# As many maps of the pyramid's width at its finest stride as a prediction may take. The tiny preset took 8 in bfloat16;
# the rest is for what was not measured.
MAPS_AT_ONCE = 20
# What these parts compute has a meaning for the model's own classes only.
_CLASS_PARTS = ("rpn.rpn_own.", "box_head.fc_cls.", "box_head.fc_reg.", "mask_head.conv_logits.")


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to predict.

    It is what a scene's pipeline calls a predictor: what it needs of the card is at hand by name.

    Attributes:
        card: the file's card.
        segmenter: in evaluation mode, on `device`.
        sha256: of the file.
        device: where it computes, as torch names it.
        device_reason: why there.
        dtype: of its matrix products.
    """

    card: ModelCard
    segmenter: Segmenter
    sha256: str
    device: str
    device_reason: str
    dtype: torch.dtype

    @property
    def name(self) -> str:
        """The model's name."""
        return self.card.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels."""
        return self.card.classes

    @property
    def colors(self) -> tuple[str, ...]:
        """One "#rrggbb" a class."""
        return self.card.colors

    @property
    def resolution_m(self) -> tuple[float, float]:
        """Smallest and largest ground size of a pixel that the model expects, in metres."""
        return self.card.resolution_m

    @property
    def window_px(self) -> int:
        """Side of the windows that a scene is cut into."""
        return self.card.window_px

    @property
    def overlap_px(self) -> int:
        """How far neighbouring windows overlap."""
        return self.card.overlap_px

    @property
    def bytes_a_pixel(self) -> float:
        """Memory that a prediction takes for each pixel of its images, at most.

        Nearly all of it are maps at strides 2 and 4 of the stem and the pyramid, and the blocks' float32 maps.
        """
        config, size = self.card.config, self.dtype.itemsize
        kept_blocks = config.encoder.depth * config.encoder.dim * 4 / PATCH**2
        return MAPS_AT_ONCE * config.neck.channels * size / STRIDES[0] ** 2 + kept_blocks

    @property
    def default_scores(self) -> tuple[float, ...]:
        """A class's score under which its instances are not worth showing, one a class."""
        return self.card.default_scores

    def predict(self, images: Tensor, least_scores: Tensor | None = None) -> list[Instances]:
        """The instances of each image of `(B, 3, H, W)`, 0..255, H and W multiples of 32; see `Segmenter.predict`."""
        with self._precision():
            return self.segmenter.predict(images.to(self.device), least_scores, self.card.window_px**2)

    def encode(self, image: Tensor) -> Encoded:
        """One image `(1, 3, H, W)`, 0..255, H and W multiples of 32, for `outline`."""
        with self._precision():
            return self.segmenter.encode(image.to(self.device))

    def outline(self, image: Encoded, boxes_xyxy: Tensor, label: int | None = None) -> Instances:
        """What lies in boxes `(K, 4)` that somebody has drawn: see `Segmenter.outline`."""
        with self._precision():
            return self.segmenter.outline(image, boxes_xyxy, label)

    def _precision(self) -> torch.autocast:
        return torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)


def save_model(path: Path, segmenter: Segmenter, card: ModelCard, dtype: torch.dtype = torch.float32) -> None:
    """Write weights and card to `path`, whole or not at all; see `save_weights`.

    Raises:
        OutputError: the file cannot be written.
    """
    save_weights(path, segmenter.state_dict(), card, dtype)


def save_weights(path: Path, weights: Mapping[str, Tensor], card: ModelCard, dtype: torch.dtype) -> None:
    """Write weights with names of a segmenter's, and card; those of a part alone make a file to start training from.

    Weight matrices and kernels are stored as `dtype`. Vectors stay as they are: they are few, and the statistics of a
    batch norm may exceed what half precision can hold.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.ndim > 1 else tensor.dtype).contiguous()
        for name, tensor in weights.items()
    }
    _write(path, tensors, card)


def _write(path: Path, tensors: dict[str, Tensor], card: ModelCard) -> None:
    try:
        write_whole(path, safetensors.torch.save(tensors, {CARD_KEY: json.dumps(card.to_json())}))
    except OSError as error:
        raise OutputError(f"cannot write the model file {path}: {error}") from error


def replace_card(path: Path, card: ModelCard) -> None:
    """Write another card into a model file, whole or not at all; its weights stay as they are stored.

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
        OutputError: the file cannot be written.
    """
    with opened(path, "pt") as (_, file):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _write(path, tensors, card)


def load_model(path: Path, device: str = "auto") -> LoadedModel:
    """Read a model file and make it ready on `device` ("auto", "cpu", "cuda", "cuda:N").

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, of a newer format, a part of a model only, or
            its weights do not fit its card or are no numbers.
        OptionError: there is no such device.
    """
    chosen = choose_device(device)
    with opened(path, "pt") as (card, file):
        # The shapes are compared before anything is read or built in memory: a card may claim any size.
        with torch.device("meta"):
            segmenter = Segmenter(card.config)
        wanted = {name: list(tensor.shape) for name, tensor in segmenter.state_dict().items()}
        found = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
        if found and found.items() < wanted.items():
            parts = ", ".join(sorted({name.partition(".")[0] for name in found}))
            raise ModelFileError(
                f"{path} holds a part of a model only ({parts}): it is for training to start from, as "
                "model.start of a recipe; name a whole model"
            )
        wrong = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        if wrong:
            raise ModelFileError(
                f"the weights in {path} do not fit its card ({len(wrong)} tensors, {wrong[0]} first): "
                "the file is damaged or was made by another version; get it anew"
            )
        segmenter = Segmenter(card.config)
        segmenter.load_state_dict({name: file.get_tensor(name) for name in wanted})
    broken = [name for name, tensor in segmenter.state_dict().items() if not tensor.isfinite().all()]
    if broken:
        raise ModelFileError(
            f"the weights in {path} hold values that are no numbers ({len(broken)} tensors, {broken[0]} first): "
            "the file is damaged, or its training went wrong; get it anew"
        )
    if chosen.name == "cpu":
        keep_freed_memory()
    segmenter.set_normalisation(card.mean, card.std)
    segmenter.to(chosen.name, memory_format=torch.channels_last).eval()
    return LoadedModel(card, segmenter, file_sha256(path), chosen.name, chosen.reason, fast_dtype(chosen.name))


def load_weights_that_fit(path: Path, segmenter: Segmenter) -> list[str]:
    """Take over the tensors of a model file that have a name and shape of the segmenter's; returns their names.

    The others keep their values: the parts that depend on the classes, where those are others.

    Raises:
        ModelFileError: the file is missing, truncated or no model of ours.
    """
    weights = segmenter.state_dict()
    with opened(path, "pt") as (card, file):
        named = set(file.keys())
        fit = [
            name
            for name, tensor in weights.items()
            if name in named and file.get_slice(name).get_shape() == list(tensor.shape)
        ]
        if card.classes != segmenter.config.classes:
            fit = [name for name in fit if not name.startswith(_CLASS_PARTS)]
        for name in fit:
            weights[name].copy_(file.get_tensor(name))
    return fit


def file_sha256(path: Path) -> str:
    """The checksum that tells model files apart. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
