"""Encoder files: an encoder's weights alone, with a card, in one `.safetensors`: what distillation makes.

They are no model files: nothing can be segmented with them. A segmenter's encoder starts from one.
"""

import dataclasses
import json
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError

from rs4d_core.errors import ModelFileError, OutputError
from rs4d_core.models.encoder import Encoder
from rs4d_core.models.encoder_card import ENCODER_CARD_KEY, EncoderCard, read_encoder_card
from rs4d_core.whole_file import write_whole


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


def load_encoder_weights(path: Path, encoder: Encoder) -> EncoderCard:
    """Take over all weights of an encoder file; its card.

    Raises:
        ModelFileError: the file is missing, truncated, no encoder of ours, of a newer format, or of other dimensions.
    """
    card = read_encoder_card(path)
    if card.config != encoder.config:
        ours, others = (dataclasses.asdict(config) for config in (encoder.config, card.config))
        other = ", ".join(f"{name} {others[name]} for {ours[name]}" for name in ours if ours[name] != others[name])
        raise ModelFileError(f"{path} holds an encoder of other dimensions ({other}): take a model of the same preset")
    try:
        encoder.load_state_dict(safetensors.torch.load_file(path))
    except (RuntimeError, SafetensorError, OSError) as error:
        raise ModelFileError(f"the weights in {path} do not fit its card: the file is damaged; get it anew") from error
    return card
