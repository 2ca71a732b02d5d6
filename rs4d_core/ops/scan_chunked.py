"""Selective scan in plain torch, for devices and dtypes that have no kernel of their own.

The sequence is cut into segments, walked one after the other so that memory stays that of one segment, and each segment
into a square of pieces x steps. All pieces advance together, each from a zero state; then one walk along the pieces
hands on what each passes to the next. A segment so takes about 2 sqrt(SEGMENT) operations in a row instead of SEGMENT.

It is stable: the decay from the start of a piece to a step is the exponential of the (negative) sum of the exponents in
between. The textbook form `exp(S_t) * cumsum(x_s * exp(-S_s))` overflows where the sums grow.
"""

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

PIECE = 16
SEGMENT = PIECE * PIECE

# exp(-80): what remains of a state after such a decay is lost in rounding, and going further down would fill the states
# with denormal numbers, which are several times slower to compute with.
_SMALLEST_EXPONENT = -80.0


def scan_chunked(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor) -> Tensor:
    """The selective scan (see `selective_scan`), computed in float32, or in float64 where u is. Differentiable.

    The backward pass recomputes each segment from the state at its start.
    """
    precision = torch.float64 if u.dtype == torch.float64 else torch.float32
    u, delta, A, B, C, D = (tensor.to(precision) for tensor in (u, delta, A, B, C, D))
    batch, length, channels = u.shape
    state = u.new_zeros(batch, channels, A.shape[1])
    outputs = [u[:, :0]]
    for start in range(0, length, SEGMENT):
        part = slice(start, start + SEGMENT)
        segment = (u[:, part], delta[:, part], A, B[:, part], C[:, part], state)
        if torch.is_grad_enabled():
            output, state = checkpoint(_scan_segment, *segment, use_reentrant=False, preserve_rng_state=False)
        else:
            output, state = _scan_segment(*segment)
        outputs.append(output)
    return torch.cat(outputs, dim=1) + D * u


def _scan_segment(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """One segment from `state (B, D, N)`: its `y (B, L, D)` without the skip, and the state after it."""
    length = u.shape[1]
    # Steps of size 0 that fill the last piece leave the state as it is.
    missing = -length % PIECE
    inflow, delta, B, C = (functional.pad(tensor, (0, 0, 0, missing)) for tensor in (delta * u, delta, B, C))
    inflow, delta, B, C = (tensor.unflatten(1, (-1, PIECE)) for tensor in (inflow, delta, B, C))
    # From here on (B, pieces, PIECE, D, N).
    decay = torch.exp((delta[..., None] * A).clamp(min=_SMALLEST_EXPONENT))
    from_start = torch.exp((delta.cumsum(2)[..., None] * A).clamp(min=_SMALLEST_EXPONENT))
    added = inflow[..., None] * B[:, :, :, None, :]

    steps = [added[:, :, 0]]
    for t in range(1, PIECE):
        steps.append(decay[:, :, t] * steps[-1] + added[:, :, t])
    starts = []
    for piece in range(added.shape[1]):
        starts.append(state)
        state = from_start[:, piece, -1] * state + steps[-1][:, piece]

    states = torch.stack(steps, dim=2) + from_start * torch.stack(starts, dim=1)[:, :, None]
    y = (states * C[:, :, :, None, :]).sum(-1)
    return y.flatten(1, 2)[:, :length], state
