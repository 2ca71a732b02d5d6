"""The walk of non-maximum suppression, compiled."""

import numpy as np

from rs4d_core.ops.compiled import compiled


@compiled()
def suppress(boxes_xyxy, groups, iou_threshold, alive):
    """Set `alive (K,)` to whether each box survives.

    `boxes_xyxy (K, 4)` float32 are sorted by group, best first inside each; `groups (K,)`. Plain IEEE float32
    throughout, so that the result is the same on every machine.
    """
    count = len(boxes_xyxy)
    # One array a side, contiguous: this makes the inner loop vector code.
    left, top = boxes_xyxy[:, 0].copy(), boxes_xyxy[:, 1].copy()
    right, bottom = boxes_xyxy[:, 2].copy(), boxes_xyxy[:, 3].copy()
    area = (right - left) * (bottom - top)
    threshold = np.float32(iou_threshold)
    nothing = np.float32(0)
    alive[:] = True
    end = 0
    for best in range(count):
        if best == end:
            while end < count and groups[end] == groups[best]:
                end += 1
        if not alive[best]:
            continue
        for other in range(best + 1, end):
            width = max(min(right[best], right[other]) - max(left[best], left[other]), nothing)
            height = max(min(bottom[best], bottom[other]) - max(top[best], top[other]), nothing)
            shared = width * height
            alive[other] &= not (shared / (area[best] + area[other] - shared) > threshold)
