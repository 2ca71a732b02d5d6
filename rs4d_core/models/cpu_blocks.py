"""The encoder's blocks on a CPU, without gradients: the same computation in buffers that all blocks share.

Fresh memory is what a block spends most of its time on otherwise: the system hands it out a zeroed page at a time,
which takes longer than the arithmetic on it.
"""

from collections.abc import Container, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rs4d_core.ops.add_norm import add_norm
from rs4d_core.ops.bidirectional_scan_numba import bidirectional_scan_numba, working_floats
from rs4d_core.ops.causal_conv_numba import conv_silu_numba
from rs4d_core.ops.lanes import LANES


def can_run(tokens: Tensor, inner_dim: int) -> bool:
    """Whether `run_blocks` takes these tokens `(B, L, d)` now."""
    return (
        not torch.is_grad_enabled()
        and tokens.device.type == "cpu"
        and tokens.dtype == torch.float32
        and tokens.shape[2] % LANES == 0
        and inner_dim % LANES == 0
        and _product_dtype() in (torch.float32, torch.bfloat16)
    )


def _product_dtype() -> torch.dtype:
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32


def run_blocks(
    tokens: Tensor, layers: Sequence[nn.Module], norm: nn.LayerNorm, depths: Container[int]
) -> tuple[list[Tensor | None], Tensor]:
    """Send tokens `(B, L, d)` through blocks (`encoder.Block`) and the last norm.

    Matrix products are in autocast's dtype where it is on, and so is what goes from one to the next; the residual
    stream and all other arithmetic are in float32.

    Returns:
        The outputs of the blocks, None for those whose index is not in `depths`, and the normalised last one:
        `(B, L, d)` each, float32.
    """
    dtype = _product_dtype()
    with torch.autocast("cpu", enabled=False):
        buffers = _Buffers(tokens.shape, layers[0].mixer, dtype)
        stream = _fresh(tokens.shape, torch.float32).copy_(tokens)
        outputs: list[Tensor | None] = []
        added = None
        for index in range(len(layers) + 1):
            last = index == len(layers)
            layer_norm = norm if last else layers[index].norm
            # What is kept stays as it is: the next sum goes to memory of its own.
            into = stream if added is None or index - 2 not in depths else _fresh(tokens.shape, torch.float32)
            normed = _fresh(tokens.shape, torch.float32) if last else buffers.normed
            add_norm(stream, added, layer_norm.weight, layer_norm.bias, layer_norm.eps, into, normed)
            stream = into
            if index:
                outputs.append(stream if index - 1 in depths else None)
            if not last:
                added = buffers.mix(layers[index].mixer)
    return outputs, normed


class _Buffers:
    """Memory for what is between two residual sums."""

    def __init__(self, shape: tuple[int, int, int], mixer: nn.Module, dtype: torch.dtype) -> None:
        batch, length, dim = shape
        inner = mixer.inner_dim
        self.normed = _fresh((batch, length, dim), dtype)
        self._mixed = self.normed
        self._u = _fresh((batch, length, inner), dtype)
        self._z = _fresh((batch, length, inner), dtype)
        self._both = _fresh((2 * batch, length, inner), dtype)
        self._working_memory = _fresh((working_floats(batch, length, inner),), torch.float32)
        self._projected = _fresh((2 * batch, length, mixer.dt_rank + 2 * mixer.state_dim), dtype)

    def mix(self, mixer: nn.Module) -> Tensor:
        """What `mixer` makes of `normed`, `(B, L, d)`; valid until the next call."""
        to_u, to_z = mixer.in_proj.weight.chunk(2)
        _product(self.normed, to_u, self._u)
        _product(self.normed, to_z, self._z)
        conv_silu_numba(self._u, mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias, out=self._both)
        _product(self._both, mixer.x_proj.weight, self._projected)
        bidirectional_scan_numba(
            self._both, self._projected, mixer.dt_proj.weight, mixer.dt_proj.bias, mixer.rates(), mixer.D, self._z,
            out=self._u, working_memory=self._working_memory,
        )  # fmt: skip
        return _product(self._u, mixer.out_proj.weight, self._mixed)


def _product(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """`x weight^T` in x's dtype."""
    torch.mm(x.flatten(0, 1), weight.to(x.dtype).T, out=out.flatten(0, 1))
    return out


def _fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    # numpy asks the system for huge pages, which are handed out hundreds of times faster than small ones.
    memory = torch.from_numpy(np.empty(tuple(shape), np.float32 if dtype == torch.float32 else np.int16))
    return memory if dtype == torch.float32 else memory.view(dtype)
