"""Encoder files: an encoder's weights alone, with a card, in one `.safetensors`: what distillation makes.

They are no model files: nothing can be segmented with them. A segmenter's encoder starts from one.
"""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

import rs4d_core
from rs4d_core.errors import ModelFileError, OptionError, OutputError
from rs4d_core.models.config import EncoderConfig
from rs4d_core.models.encoder import Encoder
from rs4d_core.whole_file import write_whole
from rs4d_core.wording import is_name

FORMAT_VERSION = 1
ENCODER_CARD_KEY = "rs4d-encoder"


@dataclass(frozen=True)
class EncoderCard:
    """Where an encoder comes from.

    Attributes:
        name: the encoder's name.
        config: its architecture.
        source: what it was made from, in words: the teacher, or the file that was converted.
        image_size: side of the square images it was trained on, pixels; None where that is not known.
        training_data: names of the folders its images came from.
        corruption: how the images were corrupted that it learned from: the settings of a recipe's section of that name.
        metrics: what was measured, by name.
        created_by: the program that wrote the file.
        format_version: of this card.
    """

    name: str
    config: EncoderConfig
    source: str
    image_size: int | None = None
    training_data: tuple[str, ...] = ()
    corruption: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    created_by: str = f"rs4d {rs4d_core.__version__}"
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Raises OptionError for values of other types: cards come from files."""
        if not is_name(self.name):
            raise OptionError(f"an encoder's name must be of one line, not {self.name!r:.100}")
        if not (isinstance(self.training_data, tuple) and isinstance(self.metrics, dict)):
            raise OptionError("training_data must be a list, and metrics values by name")

    def to_json(self) -> dict[str, Any]:
        """The card as plain lists, numbers and strings."""
        return dataclasses.asdict(self)


def save_encoder(path: Path, encoder: Encoder, card: EncoderCard, dtype: torch.dtype = torch.float32) -> None:
    """Write weights and card to `path`, whole or not at all. Matrices and kernels are stored as `dtype`.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        name: tensor.detach().cpu().to(dtype if tensor.ndim > 1 else tensor.dtype).contiguous()
        for name, tensor in encoder.state_dict().items()
    }
    try:
        write_whole(path, safetensors.torch.save(tensors, {ENCODER_CARD_KEY: json.dumps(card.to_json())}))
    except OSError as error:
        raise OutputError(f"cannot write the encoder file {path}: {error}") from error


def holds_encoder(path: Path) -> bool:
    """Whether a file is an encoder file, of whatever format version. False also for files that cannot be read."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return ENCODER_CARD_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_encoder_card(path: Path) -> EncoderCard:
    """The card of an encoder file, without reading its weights.

    Raises:
        ModelFileError: the file is missing, truncated, no encoder of ours, or of a newer format.
    """
    return _read(path)[0]


def load_encoder_weights(path: Path, encoder: Encoder) -> EncoderCard:
    """Take over all weights of an encoder file; its card.

    Raises:
        ModelFileError: the file is missing, truncated, no encoder of ours, of a newer format, or of other dimensions.
    """
    card, tensors = _read(path, weights=True)
    if card.config != encoder.config:
        ours, others = (dataclasses.asdict(config) for config in (encoder.config, card.config))
        other = ", ".join(f"{name} {others[name]} for {ours[name]}" for name in ours if ours[name] != others[name])
        raise ModelFileError(f"{path} holds an encoder of other dimensions ({other}): take a model of the same preset")
    try:
        encoder.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelFileError(f"the weights in {path} do not fit its card: the file is damaged; get it anew") from error
    return card


def _read(path: Path, weights: bool = False) -> tuple[EncoderCard, dict[str, torch.Tensor]]:
    if not path.is_file():
        raise ModelFileError(f"there is no encoder file {path}: check the path, or distil one (training/distill.py)")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(ENCODER_CARD_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path} is not an encoder file, or is truncated ({error}): get it anew") from error
    if text is None:
        raise ModelFileError(f"{path} holds no rs4d encoder card: name one that training/distill.py made")
    try:
        fields = json.loads(text)
        if fields["format_version"] > FORMAT_VERSION:
            raise ModelFileError(f"{path} has a card newer than this rs4d knows ({FORMAT_VERSION}): update rs4d")
        plain = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
        config = {k: tuple(v) if isinstance(v, list) else v for k, v in fields["config"].items()}
        return EncoderCard(**plain | {"config": EncoderConfig(**config)}), tensors
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"the card in {path} cannot be read ({error}): get the file anew") from error
