"""`best_anchors` on the CPU: sorting the anchors of every class takes four times as long as one look at each."""

import torch
from torch import Tensor

from rs4d_core.ops.compiled import compiled, run_spans
from rs4d_core.ops.float_bits import array_of, number


@compiled()
def _sink(sums, places, at):
    """Mend a heap, the least of which is first, whose entry `at` may be too large for where it is."""
    count = len(sums)
    value, place = sums[at], places[at]
    while 2 * at + 1 < count:
        child = 2 * at + 1
        if child + 1 < count and sums[child + 1] < sums[child]:
            child += 1
        if not sums[child] < value:
            break
        sums[at], places[at] = sums[child], places[child]
        at = child
    sums[at], places[at] = value, place


@compiled()
def _best(logits, sums, places, anchors, start, stop):
    """Rows `start..stop` of `sums` and `places`: the classes of the first image, then those of the second, ..."""
    _, positions, row = logits.shape
    classes, count = row // anchors - 1, sums.shape[1]
    for task in range(start, stop):
        image, label = divmod(task, classes)
        heap, where = sums[task], places[task]
        place = 0
        for position in range(positions):
            for anchor in range(anchors):
                own = number(logits[image, position, (1 + label) * anchors + anchor])
                value = number(logits[image, position, anchor]) + own
                if place < count:
                    heap[place], where[place] = value, place
                    if place + 1 == count:
                        for at in range(count // 2 - 1, -1, -1):
                            _sink(heap, where, at)
                elif value > heap[0]:
                    heap[0], where[0] = value, place
                    _sink(heap, where, 0)
                place += 1


def best_anchors_numba(logits: Tensor, anchors: int, count: int) -> tuple[Tensor, Tensor]:
    """See `best_anchors`; `logits (B, P, (1 + K) * A)`, float32 or bfloat16."""
    batch, positions, row = logits.shape
    classes, count = row // anchors - 1, min(count, positions * anchors)
    sums = torch.empty(batch * classes, count)
    places = torch.empty(batch * classes, count, dtype=torch.int64)
    if count:
        arrays = array_of(logits.contiguous()), sums.numpy(), places.numpy()
        run_spans(lambda start, stop: _best(*arrays, anchors, start, stop), batch * classes)
    return sums.view(batch, classes, count), places.view(batch, classes, count)
