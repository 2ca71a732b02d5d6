"""Model files: weights and card in one `.safetensors`, without pickle."""

import dataclasses
import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

import rs4d_core
from rs4d_core.device import choose_device, fast_dtype
from rs4d_core.errors import ModelFileError, OptionError, OutputError
from rs4d_core.freed_memory import keep_freed_memory
from rs4d_core.models.config import SIZE_DIVISOR, SegmenterConfig
from rs4d_core.models.encoder import PATCH
from rs4d_core.models.encoder_file import ENCODER_CARD_KEY
from rs4d_core.models.instances import Instances
from rs4d_core.models.neck import STRIDES
from rs4d_core.models.segmenter import PIXEL_MEAN, PIXEL_STD, Encoded, Segmenter
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import LONGEST_NAME, is_name, visible

FORMAT_VERSION = 1
_CARD_KEY = "rs4d"
# A card is a page of text, or ten where there are many classes and measurements.
LONGEST_CARD = 4 << 20
LARGEST_WINDOW_PX = 1 << 16
# Of values of 0..255: less would blow up their noise beyond what numbers hold.
LEAST_STD = 1e-3
# As many maps of the pyramid's width at its finest stride as a prediction may take. The tiny preset took 8 in bfloat16;
# the rest is for what was not measured.
MAPS_AT_ONCE = 20
_DEFAULT_MODEL = "rs4d-tiny.safetensors"
# What these parts compute has a meaning for the model's own classes only.
_CLASS_PARTS = ("rpn.rpn_own.", "box_head.fc_cls.", "box_head.fc_reg.", "mask_head.conv_logits.")


@dataclass(frozen=True)
class ModelCard:
    """What a user has to know of a model, stored in its file.

    Attributes:
        name: the model's name.
        config: architecture and class names.
        colors: one "#rrggbb" a class.
        resolution_m: smallest and largest ground size of a pixel, in metres, that the model expects.
        window_px: side of the windows that a scene is cut into, a multiple of 32.
        overlap_px: how far neighbouring windows overlap.
        default_scores: a class's score under which its instances are not worth showing, one a class.
        training_data: name and licence of each data set.
        metrics: measured accuracy, by data set.
        bands: what the three channels are.
        mean, std: normalisation of the channels, in 0..255.
        created_by: the program that wrote the file.
        format_version: of this card.
    """

    name: str
    config: SegmenterConfig
    colors: tuple[str, ...]
    resolution_m: tuple[float, float]
    window_px: int
    overlap_px: int
    default_scores: tuple[float, ...]
    training_data: tuple[dict[str, str], ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    bands: tuple[str, ...] = ("red", "green", "blue")
    mean: tuple[float, ...] = PIXEL_MEAN
    std: tuple[float, ...] = PIXEL_STD
    created_by: str = f"rs4d {rs4d_core.__version__}"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise OptionError(
                f"a model's name must be of one line, up to {LONGEST_NAME} characters, not {self.name!r:.100}"
            )
        count = len(self.config.classes)
        if len(self.colors) != count or len(self.default_scores) != count:
            raise OptionError(f"a card needs one color and one default score for each of its {count} classes")
        if not all(isinstance(color, str) and re.fullmatch("#[0-9a-f]{6}", color) for color in self.colors):
            raise OptionError(f"colors must be written as #rrggbb, not {self.colors!r:.200}")
        if not all(isinstance(score, (int, float)) and 0 <= score <= 1 for score in self.default_scores):
            raise OptionError(f"default scores must lie between 0 and 1, not {self.default_scores!r:.200}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, self.mean + self.std)):
            raise OptionError(f"mean and std must be three numbers each, not {self.mean!r:.100} and {self.std!r:.100}")
        if min(self.std) < LEAST_STD:
            raise OptionError(f"std must be {LEAST_STD:g} or more, not {self.std}")
        low, high = self.resolution_m
        if not 0 < low <= high < math.inf:
            raise OptionError(f"resolution_m must be two rising lengths in metres, not {self.resolution_m}")
        window, overlap = self.window_px, self.overlap_px
        whole = type(window) is int and type(overlap) is int
        if not (whole and 0 <= overlap < window <= LARGEST_WINDOW_PX and window % SIZE_DIVISOR == 0):
            raise OptionError(
                f"window_px must be a multiple of {SIZE_DIVISOR}, up to {LARGEST_WINDOW_PX}, and overlap_px less than "
                f"it, not {window!r:.100} and {overlap!r:.100}"
            )
        if not (isinstance(self.metrics, dict) and all(isinstance(data, dict) for data in self.training_data)):
            raise OptionError("metrics, and each entry of training_data, must be values by name")
        if not all(isinstance(text, str) for text in (self.created_by, *self.bands)):
            raise OptionError("created_by and bands must be texts")

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels."""
        return self.config.classes

    def to_json(self) -> dict[str, Any]:
        """The card as plain lists, numbers and strings."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> "ModelCard":
        """The card that `to_json` wrote.

        Raises:
            OptionError: a field is missing, unknown or out of range.
        """
        try:
            plain = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
            return cls(**plain | {"config": SegmenterConfig.from_json(fields["config"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, OptionError):
                raise
            raise OptionError(f"the model's card does not fit this version of rs4d: {error}") from error


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


def default_model_path() -> Path:
    """The model that comes with the package.

    Raises:
        ModelFileError: this installation has none.
    """
    package = Path(__file__).resolve().parents[1]
    # An installed package carries the folder inside (see setup.py), a checkout has it beside.
    for folder in (package, package.parent):
        path = folder / "resources" / "models" / _DEFAULT_MODEL
        if path.is_file():
            return path
    raise ModelFileError(f"the default model {_DEFAULT_MODEL} is not installed: name a model file")


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
        write_whole(path, safetensors.torch.save(tensors, {_CARD_KEY: json.dumps(card.to_json())}))
    except OSError as error:
        raise OutputError(f"cannot write the model file {path}: {error}") from error


def replace_card(path: Path, card: ModelCard) -> None:
    """Write another card into a model file, whole or not at all; its weights stay as they are stored.

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
        OutputError: the file cannot be written.
    """
    with _opened(path) as file:
        _card(path, file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    _write(path, tensors, card)


def read_card(path: Path) -> ModelCard:
    """The card of a model file, without reading its weights.

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
    """
    with _opened(path) as file:
        return _card(path, file.metadata())


def load_model(path: Path, device: str = "auto") -> LoadedModel:
    """Read a model file and make it ready on `device` ("auto", "cpu", "cuda", "cuda:N").

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, of a newer format, a part of a model only, or
            its weights do not fit its card or are no numbers.
        OptionError: there is no such device.
    """
    chosen = choose_device(device)
    with _opened(path) as file:
        card = _card(path, file.metadata())
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
    with _opened(path) as file:
        card = _card(path, file.metadata())
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


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not os.path.isfile(path):  # Path.is_file raises for names that are too long, and in closed folders
        raise ModelFileError(f"there is no model file {path}: check the path, or take the default model")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{path} is not a model file, or is truncated ({error}): get it anew, or name another"
        ) from error


def _card(path: Path, metadata: dict[str, str] | None) -> ModelCard:
    text = (metadata or {}).get(_CARD_KEY)
    if ENCODER_CARD_KEY in (metadata or {}):
        raise ModelFileError(f"{path} holds an encoder alone: fine-tune a model that starts from it (model.encoder)")
    if len(text or "") > LONGEST_CARD:
        raise ModelFileError(f"the card in {path} has {len(text)} characters, which no card needs: get the file anew")
    if text is None:
        raise ModelFileError(f"{path} holds no rs4d model card: it was made by another program; name an rs4d model")
    try:
        fields = json.loads(text)
        version = fields["format_version"]
        if version > FORMAT_VERSION:
            raise ModelFileError(
                f"{path} has card format {version}, newer than this rs4d knows ({FORMAT_VERSION}): update rs4d"
            )
        return ModelCard.from_json(fields)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        reason = visible(str(error))
        raise ModelFileError(f"the card in {path} cannot be read ({reason:.300}): get the file anew") from error


def file_sha256(path: Path) -> str:
    """The checksum that tells model files apart. Raises OSError where the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(functools.partial(file.read, 1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()
