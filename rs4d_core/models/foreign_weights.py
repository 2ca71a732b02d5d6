"""Read the tensors of other programs' weight files, and nothing else: no code of theirs runs, whatever a file holds."""

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from rs4d_core.errors import ModelFileError

_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
"""What `save_pretrained` of transformers calls a model's weights."""

_WRAPPED = "module."


class _PassedOver:
    """Stands for any class or function that a checkpoint names besides its tensors: it takes everything, does nothing.

    Training frameworks store their configuration, loss histories and optimizers beside the weights. Those name classes
    of the framework; the weights are wanted without it.
    """

    def __new__(cls, *_: Any, **__: Any) -> "_PassedOver":
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


def read_foreign_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, of a torch file, or of a folder that transformers has saved, by name.

    Of a torch file with a `state_dict` inside, as mmengine writes it, those are taken. A `module.` in front of all
    names, which wrappers for several GPUs leave there, is taken off.

    Raises:
        ModelFileError: the file is missing or damaged, or holds no tensors by name.
    """
    if path.is_dir():
        found = [path / name for name in _FOLDER_FILES if (path / name).is_file()]
        if not found:
            raise ModelFileError(
                f"the folder {path} has no {' or '.join(_FOLDER_FILES)}: name the file with the weights"
            )
        path = found[0]
    if not path.is_file():
        raise ModelFileError(f"there is no file {path}: check the path of the weights")
    tensors = _read_safetensors(path) if path.suffix == ".safetensors" else _named_tensors(_read_torch(path), path)
    if all(name.startswith(_WRAPPED) for name in tensors):
        tensors = {name.removeprefix(_WRAPPED): tensor for name, tensor in tensors.items()}
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _read_torch(path: Path) -> Any:
    """What `torch.save` wrote, by the reader that knows tensors and plain containers only."""
    # Bytes that are no pickle make the reader stumble in any way: over an index, a key, an encoding.
    stumbles = (pickle.UnpicklingError, struct.error, OSError, EOFError, RuntimeError, ValueError, LookupError)
    stumbles += (TypeError, AttributeError, AssertionError)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")
            if not zipfile.is_zipfile(path):  # as torch wrote before 1.6
                _check_is_pickle(path)
                return torch.load(path, map_location="cpu", weights_only=True)
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            with torch.serialization.safe_globals([(_PassedOver, name) for name in foreign]):
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except stumbles as error:
        raise _damaged(path, error) from error


def _check_is_pickle(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(1) != pickle.PROTO:
            raise ModelFileError(f"{path} is no torch file: name the file with the weights")


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content:
        raise ModelFileError(f"{path} holds no tensors by name: give a state dict, or a checkpoint with a state_dict")
    for name, tensor in content.items():
        if not (isinstance(name, str) and isinstance(tensor, Tensor)):
            raise ModelFileError(
                f"{path} is no state dict: {name!r:.60} is a {type(tensor).__name__}; give the file with the weights"
            )
    return dict(content)


def _damaged(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{path} cannot be read as weights ({_reason(error)}): get the file anew, or save its state_dict alone"
    )


def _reason(error: Exception) -> str:
    """Why, without torch's advice around it, which is to try again without the safe reader."""
    code = re.search(r"\bGLOBAL (\S+)", str(error))
    if code is not None:
        return f"it names code ({code[1]}), which is never run"
    reason = str(error).partition("WeightsUnpickler error:")[2] or str(error)
    lines = reason.strip().splitlines()
    return lines[0] if lines and "weights_only" not in lines[0] else type(error).__name__
