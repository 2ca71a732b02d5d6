"""Teachers: frozen encoders whose map a student learns to reproduce."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor
from torch.nn import functional as F

from rs4d_core.distillation.recipe import SamChoice, SegmenterChoice
from rs4d_core.errors import DependencyError, ModelFileError
from rs4d_core.models.checkpoint import load_model
from rs4d_core.models.config import PIXEL_MEAN, PIXEL_STD
from rs4d_core.models.encoder import PATCH


class Teacher(ABC):
    """A frozen encoder.

    Attributes:
        name: in words.
        dim: channels of its maps.
        identity: tells its maps from those of any other teacher, or of the same one at another precision.
    """

    name: str
    dim: int
    identity: str

    @abstractmethod
    def maps(self, images: Tensor) -> Tensor:
        """The maps `(B, dim, S/16, S/16)` float32 of images `(B, 3, S, S)`, RGB in 0..255, on the teacher's device."""


def open_teacher(choice: SamChoice | SegmenterChoice, size: int, device: str, precision: str) -> Teacher:
    """Load the chosen teacher for images of `size` x `size` pixels.

    Args:
        device: as torch names it.
        precision: "32", or "bf16" for bfloat16.

    Raises:
        ModelFileError: there is no such model, or it is damaged or no fit teacher.
        DependencyError: transformers is not installed.
    """
    if isinstance(choice, SamChoice):
        return SamTeacher(choice.source, size, device, precision)
    return SegmenterTeacher(Path(choice.source), choice.map, device, precision)


class SegmenterTeacher(Teacher):
    """A model file of our own: the map at stride 16 that its heads read, or its encoder's last map.

    With a prompt head, they are the same. With a box head, the heads read what the neck sums up from the blocks; the
    last map is then the last block's behind a norm that nothing has trained. In the default model it hardly varies: one
    vector everywhere is within 0.09 of it, of a mean magnitude of 0.85.
    """

    def __init__(self, path: Path, which: str, device: str, precision: str) -> None:
        model = load_model(path, device)
        self._segmenter = model.segmenter.requires_grad_(False)
        self._kind, self._fast = torch.device(device).type, precision == "bf16"
        config = self._segmenter.config
        self._reads_last = which == "last" or config.head == "prompt"
        self.name, self.dim = model.name, config.encoder.dim if self._reads_last else config.neck.channels
        self.identity = f"segmenter {model.sha256} {self._reads_last} {precision}"

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        with torch.autocast(self._kind, torch.bfloat16, enabled=self._fast):
            encoded = self._segmenter.encoder(self._segmenter.normalise(images))
            if self._reads_last:
                return encoded.last.float()
            return self._segmenter.neck.feature_aggregator(encoded.blocks).float()


class SamTeacher(Teacher):
    """The image encoder of SAM (arXiv 2304.02643), ViT-B, L or H: the neck's map.

    At 1024 pixels it is SAM as it was trained. For another size, its position embedding is resampled (bicubic) to the
    tokens of that size, and its relative positions (linear) inside transformers, as ViTDet does: the map is then that
    of a network a little outside of what it was trained for. The size must be a multiple of 16.
    """

    def __init__(self, source: str, size: int, device: str, precision: str) -> None:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise DependencyError("a SAM teacher needs transformers: pip install -e '.[train]'") from error
        local = Path(source).is_dir()
        if not local and _is_path(source):
            raise ModelFileError(f'there is no folder "{source}" with a SAM model: check teacher.source')
        try:
            with _quiet(transformers.utils.logging):
                # The recipe names the teacher, and what comes is tensors, no code: a revision would pin nothing that
                # the checksum in `identity` does not tell.
                model, found = transformers.SamVisionModel.from_pretrained(  # nosec B615
                    source, local_files_only=local, use_safetensors=True, output_loading_info=True, dtype=torch.float32
                )
        except (OSError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(
                f'the teacher "{source}" cannot be loaded ({reason}): give a folder with a SAM model in safetensors, '
                "or its name on the hub of transformers"
            ) from error
        missing = sorted(found["missing_keys"])
        if missing:
            raise ModelFileError(
                f'the teacher "{source}" lacks {len(missing)} weights of a SAM image encoder ({missing[0]} first): '
                "give another model"
            )
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._encoder = model.vision_encoder.eval().requires_grad_(False)
        digest = _weights_sha256(self._encoder)
        _fit_to(self._encoder, size)
        self._encoder.to(device, dtype)
        self._dtype = dtype
        self._mean = torch.tensor(PIXEL_MEAN, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(PIXEL_STD, device=device).view(1, 3, 1, 1)
        self.name, self.dim = f"SAM {source}", model.config.output_channels
        self.identity = f"sam {digest} {precision}"

    @torch.inference_mode()
    def maps(self, images: Tensor) -> Tensor:
        normalised = (images - self._mean) / self._std
        return self._encoder(normalised.to(self._dtype)).last_hidden_state.float()


def _is_path(source: str) -> bool:
    """Whether it can be no name on the hub, which is "model" or "owner/model"."""
    return Path(source).is_absolute() or source.startswith(".") or len(Path(source).parts) > 2


@contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    """Keep transformers from listing the weights of SAM's other parts, and from drawing a bar."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()


def _fit_to(encoder: torch.nn.Module, size: int) -> None:
    """Make SAM's image encoder take images of `size` x `size` pixels."""
    encoder.patch_embed.image_size = (size, size)
    tokens = size // PATCH
    grid = encoder.pos_embed
    if grid is not None and grid.shape[1] != tokens:
        resampled = F.interpolate(grid.permute(0, 3, 1, 2), (tokens, tokens), mode="bicubic", align_corners=False)
        encoder.pos_embed = torch.nn.Parameter(resampled.permute(0, 2, 3, 1).contiguous(), requires_grad=False)


def _weights_sha256(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
