"""How long encoders and whole models take on a GPU, against SAM ViT-B in the same run and against what the GPU allows.

No encoder can be faster than either of two floors, both from rates that are measured on the GPU itself:

- operations: its multiply-accumulates (see `counts`) at the rate of a large bfloat16 matrix product;
- bytes: every tensor between two kernels written once and read once, at the rate of a large copy.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.benchmark import Timer

from rs4d_core.errors import DependencyError
from rs4d_core.evaluation.counts import SIDE_PX, encoder_macs
from rs4d_core.installation import add_command
from rs4d_core.models.config import PRESETS, EncoderConfig, preset
from rs4d_core.models.encoder import PATCH
from rs4d_core.models.mixer import BidirectionalMixer
from rs4d_core.models.segmenter import Segmenter

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SECONDS_A_FIGURE = 1.0
_COPIED_BYTES = 2**30
_PRODUCT_SIDE = 8192


def measure() -> dict[str, Any]:
    """The figures of the benchmark's section "gpu": `{"gpu": None}` where there is no CUDA GPU.

    Raises:
        DependencyError: transformers is not installed.
    """
    if not torch.cuda.is_available():
        return {"gpu": None}
    rates = {
        "bytes_a_second": 2 * _COPIED_BYTES / _copy_seconds("cuda", _COPIED_BYTES),
        "macs_a_second": _PRODUCT_SIDE**3 / _product_seconds("cuda", _PRODUCT_SIDE),
    }
    return {
        "gpu": {
            "name": torch.cuda.get_device_name(),
            **rates,
            "mixer_error": {name: mixer_error("cuda", dtype) for name, dtype in _PRECISIONS.items()},
            **window_seconds("cuda", SIDE_PX, tuple(PRESETS), **rates),
        }
    }


def mixer_error(device: str, dtype: torch.dtype) -> float:
    """The largest difference of a base mixer's output from float64's, relative to the largest output."""
    torch.manual_seed(0)
    config = preset("base", ("object",)).encoder
    mixer = BidirectionalMixer(config.dim, config.inner_dim, config.state_dim, config.dt_rank)
    tokens = torch.randn(1, 1000, config.dim)
    with torch.inference_mode():
        wanted = mixer.double()(tokens.double())
        mixer.float().to(device)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=dtype == torch.bfloat16):
            found = mixer(tokens.to(device))
    return float((found.double().cpu() - wanted).abs().max() / wanted.abs().max())


def window_seconds(
    device: str, side_px: int, presets: Sequence[str], bytes_a_second: float, macs_a_second: float
) -> dict[str, Any]:
    """Seconds of one window of `side_px` x `side_px` under bfloat16 autocast, for SAM and for each preset.

    Args:
        device: a torch device.
        side_px: a multiple of 32.
        presets: names of `PRESETS`.
        bytes_a_second, macs_a_second: what the device reaches.

    Returns:
        `sam_vit_b_seconds`, and `presets`, with for each `encoder_seconds`, `model_seconds` (boxes and masks too),
        `ratio` (SAM's encoder over ours), `floor_seconds` (`bytes`, `operations`), and `floor_share`: the larger floor
        over the encoder's time.

    Raises:
        DependencyError: transformers is not installed.
    """
    try:
        from transformers import SamVisionConfig, SamVisionModel
    except ImportError as error:
        raise DependencyError(f"SAM is timed with transformers: {add_command('train')}") from error
    images = torch.rand(1, 3, side_px, side_px, device=device) * 255
    sam_seconds = _seconds(SamVisionModel(SamVisionConfig(image_size=side_px)).eval().to(device), images)
    figures = {}
    for name in presets:
        torch.manual_seed(0)
        config = preset(name, ("object",))
        model = Segmenter(config).eval().to(device)
        encoder_seconds = _seconds(model.encoder, model.normalise(images))
        floors = {
            "bytes": _block_bytes(config.encoder, side_px) / bytes_a_second,
            "operations": sum(encoder_macs(config.encoder, side_px).values()) / macs_a_second,
        }
        figures[name] = {
            "encoder_seconds": encoder_seconds,
            "model_seconds": _seconds(model.predict, images),
            "ratio": sam_seconds / encoder_seconds,
            "floor_seconds": floors,
            "floor_share": max(floors.values()) / encoder_seconds,
        }
    return {"sam_vit_b_seconds": sam_seconds, "presets": figures}


def _block_bytes(config: EncoderConfig, side_px: int) -> int:
    """Bytes that the encoder's blocks write and read: bfloat16, and float32 for the residual stream."""
    tokens = (side_px // PATCH) ** 2
    inner, projected = config.inner_dim, config.dt_rank + 2 * config.state_dim
    # Normed tokens; u and z; u convolved in both directions; what both are projected to; the gated mean.
    half = config.dim + 2 * inner + 2 * inner + 2 * projected + inner
    return tokens * config.depth * 2 * (2 * half + 4 * config.dim)


def _seconds(function, images: torch.Tensor) -> float:
    """The median time of a call; `Timer` warms up, and waits for the GPU."""
    with torch.inference_mode(), torch.autocast(images.device.type, torch.bfloat16):
        timer = Timer("function(images)", globals={"function": function, "images": images})
        return timer.blocked_autorange(min_run_time=_SECONDS_A_FIGURE).median


def _copy_seconds(device: str, size: int) -> float:
    source = torch.empty(size, dtype=torch.uint8, device=device)
    timer = Timer("target.copy_(source)", globals={"source": source, "target": torch.empty_like(source)})
    return timer.blocked_autorange(min_run_time=_SECONDS_A_FIGURE).median


def _product_seconds(device: str, side: int) -> float:
    matrix = torch.rand(side, side, dtype=torch.bfloat16, device=device)
    timer = Timer("matrix @ matrix", globals={"matrix": matrix})
    return timer.blocked_autorange(min_run_time=_SECONDS_A_FIGURE).median
