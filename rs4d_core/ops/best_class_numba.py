"""`best_class` on the CPU."""

import torch
from torch import Tensor

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of, number
from rs4d_core.ops.lanes import LANES, largest, load, store


@compiled()
def _best(logits, objectness, anchors, row, start, stop):
    """Positions `start..stop`; flat arrays, `row` logits a position.

    All anchors of a position are computed at once, those of a class lying together. What a vector holds beyond them is
    written too, where the next position's come next: so the last positions, behind which is nothing of this span's,
    are computed one by one.
    """
    beyond = -(-anchors // LANES) * LANES
    alone = max(stop - -(-beyond // anchors), start)
    for position in range(start, alone):
        first = position * row
        for anchor in range(0, anchors, LANES):
            best = load(logits, first + anchors + anchor)
            for at in range(first + 2 * anchors + anchor, first + row, anchors):
                best = largest(best, load(logits, at))
            store(objectness, position * anchors + anchor, load(logits, first + anchor) + best)
    for position in range(alone, stop):
        for anchor in range(anchors):
            first = position * row + anchor
            best = number(logits[first + anchors])
            for at in range(first + 2 * anchors, (position + 1) * row, anchors):
                best = max(best, number(logits[at]))
            objectness[position * anchors + anchor] = number(logits[first]) + best


def best_class_numba(logits: Tensor, anchors: int) -> Tensor:
    """See `best_class`; `logits (B, P, (1 + K) * A)`, float32 or bfloat16."""
    batch, positions, row = logits.shape
    objectness = torch.empty(batch, positions * anchors)
    arrays = [array_of(tensor.contiguous()).reshape(-1) for tensor in (logits, objectness)]
    run_spans(lambda start, stop: _best(*arrays, anchors, row, start, stop), batch * positions)
    return objectness
