"""The card of a model file, which is read without its weights, and without torch."""

import dataclasses
import json
import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors

import rs4d_core
from rs4d_core.errors import ModelFileError, OptionError
from rs4d_core.models.config import PIXEL_MEAN, PIXEL_STD, SIZE_DIVISOR, SegmenterConfig
from rs4d_core.models.encoder_card import ENCODER_CARD_KEY
from rs4d_core.wording import LONGEST_NAME, is_name, visible

FORMAT_VERSION = 1
CARD_KEY = "rs4d"
# A card is a page of text, or ten where there are many classes and measurements.
LONGEST_CARD = 4 << 20
LARGEST_WINDOW_PX = 1 << 16
# Of values of 0..255: less would blow up their noise beyond what numbers hold.
LEAST_STD = 1e-3
_DEFAULT_MODEL = "rs4d-tiny.safetensors"


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


def join_training_data(own: Iterable[dict[str, str]], others: Iterable[dict[str, str]]) -> tuple[dict[str, str], ...]:
    """Both, in this order; of those with one name and licence the first."""
    joined: dict[tuple[str | None, str | None], dict[str, str]] = {}
    for data in (*own, *others):
        joined.setdefault((data.get("name"), data.get("licence")), data)
    return tuple(joined.values())


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


def read_card(path: Path) -> ModelCard:
    """The card of a model file, without reading its weights.

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
    """
    # With "pt", safetensors would import torch.
    with opened(path, "numpy") as (card, _):
        return card


@contextmanager
def opened(path: Path, framework: Literal["numpy", "pt"]) -> Iterator[tuple[ModelCard, Any]]:
    """The card of a model file, and the open file of safetensors, which gives tensors of `framework`.

    Raises:
        ModelFileError: the file is missing, truncated, no model of ours, or of a newer format.
    """
    if not os.path.isfile(path):  # Path.is_file raises for names that are too long, and in closed folders
        raise ModelFileError(f"there is no model file {path}: check the path, or take the default model")
    try:
        with safetensors.safe_open(path, framework=framework) as file:
            yield _card(path, file.metadata()), file
    except (safetensors.SafetensorError, OSError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(
            f"{path} is not a model file, or is truncated ({error}): get it anew, or name another"
        ) from error


def _card(path: Path, metadata: dict[str, str] | None) -> ModelCard:
    text = (metadata or {}).get(CARD_KEY)
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
