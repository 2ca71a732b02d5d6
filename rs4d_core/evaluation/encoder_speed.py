"""How long the base encoder takes on this CPU, against SAM ViT-B's in the same run, and where the time goes.

Runs are interleaved, and medians told: what else the machine does so hits both sides alike. Both sides have random
weights, which take as long as trained ones.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from rs4d_core.errors import DependencyError
from rs4d_core.evaluation.c_scan import plain_c_scan
from rs4d_core.freed_memory import keep_freed_memory
from rs4d_core.installation import add_command
from rs4d_core.models.config import preset
from rs4d_core.models.encoder import PATCH, Encoder
from rs4d_core.ops.add_norm import add_norm
from rs4d_core.ops.bidirectional_scan import bidirectional_scan
from rs4d_core.ops.causal_conv import bidirectional_conv_silu
from rs4d_core.ops.selective_scan import selective_scan
from rs4d_core.peak_memory import peak_rss_mb

_PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
_SIDE_PX = 1024
_LARGER_SIDES_PX = (2048, 4096)
# Of our encoder a round; of SAM's, which takes many times longer, one.
_RUNS_A_ROUND = 2
_ROUNDS = 3
_SHORT_RUNS = 15


def measure() -> dict[str, Any]:
    """All figures of the benchmark's section "encoder": seconds, ratios (SAM over ours), shares, and memory in MiB.

    Raises:
        DependencyError: transformers is not installed.
    """
    try:
        from transformers import SamVisionConfig, SamVisionModel
    except ImportError as error:
        raise DependencyError(f"SAM is timed with transformers: {add_command('train')}") from error
    keep_freed_memory()  # as in the engine
    config, encoder, depths = _base()
    sam = SamVisionModel(SamVisionConfig(image_size=_SIDE_PX)).eval()
    images = torch.randn(1, 3, _SIDE_PX, _SIDE_PX)
    seconds: dict[str, Any] = {"base": {}, "sam_vit_b": {}}
    ratios, shares = {}, {}
    for name, dtype in _PRECISIONS.items():
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            encoder(images, depths)
            ours, theirs = [], []
            for number in range(_ROUNDS):
                _tell(f"{name}, {_SIDE_PX} px against SAM ViT-B: round {number + 1} of {_ROUNDS}")
                ours += [_seconds(lambda: encoder(images, depths)) for _ in range(_RUNS_A_ROUND)]
                theirs.append(_seconds(lambda: sam(images)))
        key = f"{name}_{_SIDE_PX}"
        seconds["base"][key], seconds["sam_vit_b"][key] = statistics.median(ours), statistics.median(theirs)
        ratios[key] = seconds["sam_vit_b"][key] / seconds["base"][key]
        shares[name] = _shares(config, dtype, seconds["base"][key])
    return {
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "ratios": {"base": ratios},
        "shares": {"base": shares},
        "scaling": {"base": {name: _scaling(name) for name in _PRECISIONS}},
        "scan": _scan_against_c(config),
    }


def _tell(what: str) -> None:
    print(f"encoder: {what}", file=sys.stderr, flush=True)


def _base():
    torch.manual_seed(0)
    config = preset("base", ("object",)).encoder
    # Every second block's output is kept, as the neck reads them.
    return config, Encoder(config).eval(), range(1, config.depth, 2)


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _median_of_many(run: Callable[[], Any]) -> float:
    run()
    return statistics.median(_seconds(run) for _ in range(_SHORT_RUNS))


@torch.inference_mode()
def _shares(config, dtype: torch.dtype, total_s: float) -> dict[str, float]:
    """Shares of an encoder's time: of its parts, each timed alone on tensors of the same shapes, and of the rest."""
    length, inner, columns = (_SIDE_PX // PATCH) ** 2, config.inner_dim, config.dt_rank + 2 * config.state_dim
    tokens, weights = torch.randn(1, length, config.dim), torch.ones(config.dim)
    normed, wide = tokens.to(dtype), torch.randn(1, length, inner, dtype=dtype)
    both, projected = torch.randn(2, length, inner, dtype=dtype), torch.randn(2, length, columns, dtype=dtype)
    to_inner, to_columns = (
        torch.randn(rows, across, dtype=dtype) / across for rows, across in ((inner, config.dim), (columns, inner))
    )
    to_tokens = torch.randn(config.dim, inner, dtype=dtype) / inner
    conv, bias = torch.randn(inner, 4), torch.randn(inner)
    dt_weight, A = torch.randn(inner, config.dt_rank) / 4, -torch.rand(inner, config.state_dim) * config.state_dim
    inner_out, columns_out, tokens_out = torch.empty_like(wide), torch.empty_like(projected), torch.empty_like(normed)

    def products() -> None:
        for _ in range(2):
            torch.mm(normed[0], to_inner.T, out=inner_out[0])
        torch.mm(both.flatten(0, 1), to_columns.T, out=columns_out.flatten(0, 1))
        torch.mm(wide[0], to_tokens.T, out=tokens_out[0])

    parts = {
        "matrix_products": products,
        "scan_and_gate": lambda: bidirectional_scan(both, projected, dt_weight, bias - 4, A, bias, wide),
        "conv_and_silu": lambda: bidirectional_conv_silu(wide, conv, bias),
        "norm_and_sum": lambda: add_norm(tokens, normed, weights, weights, 1e-6, tokens, normed),
    }
    shares = {name: config.depth * _median_of_many(run) / total_s for name, run in parts.items()}
    return {**shares, "rest": 1 - sum(shares.values())}


def _scan_against_c(config) -> dict[str, float | None]:
    """Seconds of one direction's scan of one block, of the compiled kernel and of a C loop (None: no compiler)."""
    length, inner, states = (_SIDE_PX // PATCH) ** 2, config.inner_dim, config.state_dim
    u, delta = torch.randn(1, length, inner), 0.1 * torch.rand(1, length, inner)
    A, (B, C), D = -torch.rand(inner, states) * states, torch.randn(2, 1, length, states), torch.randn(inner)
    y = torch.empty_like(u)
    ours = lambda: selective_scan(u, delta, A, B, C, D)  # noqa: E731
    try:
        loop = plain_c_scan(u, delta, A, B.contiguous(), C.contiguous(), D, y)
    except (OSError, subprocess.CalledProcessError):
        return {"numba_s": _median_of_many(ours), "c_s": None, "numba_over_c": None}
    loop()
    torch.testing.assert_close(y, ours(), rtol=1e-3, atol=1e-3)
    pairs = [(_seconds(ours), _seconds(loop)) for _ in range(2 * _SHORT_RUNS)]
    numba_s, c_s = (statistics.median(times) for times in zip(*pairs, strict=True))
    return {"numba_s": numba_s, "c_s": c_s, "numba_over_c": numba_s / c_s}


def _scaling(precision: str) -> dict[str, float]:
    """Seconds and peak memory at each side, each in a process of its own, and the steps from one side to the next."""
    figures: dict[str, float] = {}
    last_s = None
    for side in (_SIDE_PX, *_LARGER_SIDES_PX):
        _tell(f"{precision}, {side} px")
        command = [sys.executable, "-m", __name__, precision, str(side)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
        found = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        figures[f"seconds_{side}"], figures[f"peak_mib_{side}"] = found["seconds"], found["peak_mib"]
        if last_s is not None:
            figures[f"step_{side}"] = found["seconds"] / last_s
        last_s = found["seconds"]
    return figures


def _one_side(precision: str, side: int) -> dict[str, float]:
    keep_freed_memory()  # as in the engine
    _, encoder, depths = _base()
    images = torch.randn(1, 3, side, side)
    bf16 = _PRECISIONS[precision] == torch.bfloat16
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        # The first run gets its memory from the system; in the engine, only a first window does.
        encoder(images, depths)
        times = [_seconds(lambda: encoder(images, depths)) for _ in range(3)]
    return {"seconds": statistics.median(times), "peak_mib": peak_rss_mb()}


if __name__ == "__main__":
    print(json.dumps(_one_side(sys.argv[1], int(sys.argv[2]))))
