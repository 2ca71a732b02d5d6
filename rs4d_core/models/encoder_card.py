"""The card of an encoder file, which is read without its weights, and without torch."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError

import rs4d_core
from rs4d_core.errors import ModelFileError, OptionError
from rs4d_core.models.config import EncoderConfig
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


def holds_encoder(path: Path) -> bool:
    """Whether a file is an encoder file, of whatever format version. False also for files that cannot be read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return ENCODER_CARD_KEY in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_encoder_card(path: Path) -> EncoderCard:
    """The card of an encoder file, without reading its weights.

    Raises:
        ModelFileError: the file is missing, truncated, no encoder of ours, or of a newer format.
    """
    if not path.is_file():
        raise ModelFileError(f"there is no encoder file {path}: check the path, or distil one (training/distill.py)")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            text = (file.metadata() or {}).get(ENCODER_CARD_KEY)
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
        return EncoderCard(**plain | {"config": EncoderConfig(**config)})
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"the card in {path} cannot be read ({error}): get the file anew") from error
