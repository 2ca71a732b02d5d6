"""The encoder's blocks on a CPU, without gradients: the same computation in buffers that all blocks share.

Fresh memory is what a block spends most of its time on otherwise: the system hands it out a zeroed page at a time,
which takes longer than the arithmetic on it. For the same reason a long sequence goes through a block in pieces: once
from the first to the last, and once back. What a piece needs stays in the cache, so that time grows with the sequence
and not faster, and between the two ways only the input of the convolution and the first scan's result wait in memory.
"""

from collections.abc import Container, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from rs4d_core.ops.add_norm import add_norm
from rs4d_core.ops.bidirectional_scan_numba import PiecewiseScan, waiting_size
from rs4d_core.ops.causal_conv_numba import PiecewiseConv
from rs4d_core.ops.lanes import LANES

# Steps at a time. Of 256 to 4096, the fastest with the base encoder: the fewer pieces, the fewer times threads meet.
PIECE = 4096


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
        for group in buffers.groups():
            _add(stream[group], None, layers[0].norm, stream[group], buffers.normed[group])
        for index, layer in enumerate(layers):
            last = index + 1 == len(layers)
            next_norm = norm if last else layers[index + 1].norm
            # What is kept stays as it is: the next sum goes to memory of its own.
            into = stream if index - 1 not in depths else _fresh(tokens.shape, torch.float32)
            normed = _fresh(tokens.shape, torch.float32) if last else buffers.normed
            for piece, added in buffers.mix(layer.mixer):
                _add(stream[piece], added, next_norm, into[piece], normed[piece])
            stream = into
            outputs.append(stream if index in depths else None)
    return outputs, normed


def _add(stream: Tensor, added: Tensor | None, norm: nn.LayerNorm, into: Tensor, normed: Tensor) -> None:
    add_norm(stream, added, norm.weight, norm.bias, norm.eps, into, normed)


class _Buffers:
    """Memory for what is between two residual sums."""

    def __init__(self, shape: tuple[int, int, int], mixer: nn.Module, dtype: torch.dtype) -> None:
        self._batch, self._length, dim = shape
        inner = mixer.inner_dim
        self._rows = min(self._batch, max(1, PIECE // self._length))
        tokens = self._rows * min(self._length, PIECE)
        self.normed = _fresh(shape, dtype)
        self._u = _fresh((self._rows, self._length, inner), dtype)
        self._waiting = _fresh((waiting_size(self._rows, self._length, inner),), dtype)
        self._piece, self._z = _fresh((tokens, inner), dtype), _fresh((tokens, inner), dtype)
        self._projected = _fresh((tokens, mixer.dt_rank + 2 * mixer.state_dim), dtype)
        self._mixed = _fresh((tokens, dim), dtype)

    def groups(self) -> Iterator[slice]:
        """The sequences that are computed at the same time."""
        for first in range(0, self._batch, self._rows):
            yield slice(first, min(first + self._rows, self._batch))

    def mix(self, mixer: nn.Module) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
        """Pieces of the tokens, and what `mixer` makes of each: `(rows, T, d)`, valid until the next one is asked for.

        A piece of `normed` is not read any more once it has been given.
        """
        dtype = self.normed.dtype
        to_u, to_z = mixer.in_proj.weight.to(dtype).chunk(2)
        to_columns, to_tokens = mixer.x_proj.weight.to(dtype), mixer.out_proj.weight.to(dtype)
        conv = PiecewiseConv(mixer.conv1d.weight.squeeze(1), mixer.conv1d.bias)
        for group in self.groups():
            rows = group.stop - group.start
            scan = PiecewiseScan(mixer.dt_proj.weight, mixer.dt_proj.bias, mixer.rates(), mixer.D, rows)
            u = self._u[:rows]
            pieces = [slice(at, min(at + PIECE, self._length)) for at in range(0, self._length, PIECE)]
            for piece in pieces:
                seen, waiting, projected = self._of(piece, rows)
                _product(self.normed[group, piece], to_u, u[:, piece])
                conv.there(u, piece.start, seen)
                _product(seen, to_columns, projected)
                scan.there(seen, projected, waiting, begin=piece.start == 0)
            for piece in reversed(pieces):
                seen, waiting, projected = self._of(piece, rows)
                conv.back(u, piece.start, seen)
                _product(seen, to_columns, projected)
                z, mixed = (_first(memory, *seen.shape[:2]) for memory in (self._z, self._mixed))
                _product(self.normed[group, piece], to_z, z)
                scan.back(seen, projected, waiting, piece.stop == self._length, z, out=z)
                yield (group, piece), _product(z, to_tokens, mixed)

    def _of(self, piece: slice, rows: int) -> tuple[Tensor, Tensor, Tensor]:
        """Memory for a piece's inputs of the scan, for its waiting results, and for its step sizes, B and C."""
        length = piece.stop - piece.start
        a_step = len(self._waiting) // (self._rows * self._length)
        waiting = self._waiting[rows * piece.start * a_step : rows * piece.stop * a_step]
        return _first(self._piece, rows, length), waiting, _first(self._projected, rows, length)


def _first(memory: Tensor, rows: int, length: int) -> Tensor:
    """As much of `memory` as `(rows, length, ...)` takes."""
    return memory[: rows * length].unflatten(0, (rows, length))


def _product(x: Tensor, weight: Tensor, out: Tensor) -> Tensor:
    """`x weight^T`."""
    torch.mm(x.flatten(0, 1), weight.T, out=out.flatten(0, 1))
    return out


def _fresh(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    # numpy asks the system for huge pages, which are handed out hundreds of times faster than small ones.
    memory = torch.from_numpy(np.empty(tuple(shape), np.float32 if dtype == torch.float32 else np.int16))
    return memory if dtype == torch.float32 else memory.view(dtype)
