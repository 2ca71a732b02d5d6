"""The overlap of many boxes with a few, compiled."""

import numpy as np

from rs4d_core.ops.compiled import compiled

# Boxes at a time: their best overlap and its instance stay in the first-level cache while the instances pass by.
_BLOCK = 1024


@compiled()
def match(boxes_xyxy, truth_xyxy, best, truth_of_box):
    """For each of `boxes_xyxy (M, 4)` its best overlap among `truth_xyxy (N, 4)`, N >= 1, written to `best (M,)` and
    `truth_of_box (M,)` int64, the lower index winning a tie. Returns each truth's best box `(N,)` and overlap `(N,)`,
    the lower index winning a tie.
    """
    boxes, truths = len(boxes_xyxy), len(truth_xyxy)
    zero, least = np.float32(0), np.float32(1e-9)
    best_box = np.zeros(truths, np.int64)
    best_of_truth = np.full(truths, np.float32(-1))
    overlap = np.empty(_BLOCK, np.float32)
    for start in range(0, boxes, _BLOCK):
        count = min(_BLOCK, boxes - start)
        # One array a side, contiguous: this makes the inner loop vector code.
        left, top = boxes_xyxy[start : start + count, 0].copy(), boxes_xyxy[start : start + count, 1].copy()
        right, bottom = boxes_xyxy[start : start + count, 2].copy(), boxes_xyxy[start : start + count, 3].copy()
        block_best, block_truth = best[start : start + count], truth_of_box[start : start + count]
        block_best[:] = np.float32(-1)
        for index in range(truths):
            x0, y0, x1, y1 = truth_xyxy[index]
            area = (x1 - x0) * (y1 - y0)
            greatest = np.float32(-1)
            for box in range(count):
                width = max(min(right[box], x1) - max(left[box], x0), zero)
                height = max(min(bottom[box], y1) - max(top[box], y0), zero)
                shared = width * height
                union = area + (right[box] - left[box]) * (bottom[box] - top[box]) - shared
                overlap[box] = shared / max(union, least)
            for box in range(count):
                better = overlap[box] > block_best[box]
                block_truth[box] = index if better else block_truth[box]
                block_best[box] = overlap[box] if better else block_best[box]
            for box in range(count):
                greatest = max(greatest, overlap[box])
            if greatest > best_of_truth[index]:
                best_of_truth[index] = greatest
                for box in range(count):
                    if overlap[box] == greatest:
                        best_box[index] = start + box
                        break
    return best_box, best_of_truth
