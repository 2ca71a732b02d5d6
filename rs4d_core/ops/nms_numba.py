"""The walk of non-maximum suppression, compiled."""

import numpy as np

from rs4d_core.ops.compiled import compiled

# Columns that boxes are sorted into by their centre, a group: about this many boxes each, up to so many columns.
_BOXES_A_COLUMN = 16
_MOST_COLUMNS = 4096
# Overlaps are computed in float32: what may overlap enough is sought this much farther, in widths.
_SLACK = 1e-3


@compiled()
def suppress(boxes_xyxy, groups, iou_threshold, kept):
    """Write to `kept` the indices of the boxes that survive, best first, as many as it holds; returns their number.

    `boxes_xyxy (K, 4)` float32 are sorted, best first; `groups (K,)` int64. Plain IEEE float32 throughout, so that the
    result is the same on every machine.

    A box is compared with those alone whose centre is close enough across. With an overlap of more than t, the centres
    are less than (1 / t - 1) / 2 times either's width apart: so far they are where one box lies at the side of another
    that is 1 / t times as wide. So time grows with the boxes of a larger image, and not with their square.
    """
    count = len(boxes_xyxy)
    column, columns, first_x, a_width, widest = _columns(boxes_xyxy)
    group, number = _numbered(groups)
    place, start = _by_column(group * columns + column, number * columns)
    # One array a side, contiguous, neighbours together: this makes the inner loop vector code.
    left, top = np.empty(count, np.float32), np.empty(count, np.float32)
    right, bottom = np.empty(count, np.float32), np.empty(count, np.float32)
    for box in range(count):
        left[place[box]], top[place[box]], right[place[box]], bottom[place[box]] = boxes_xyxy[box]
    area = (right - left) * (bottom - top)
    alive = np.ones(count, np.bool_)
    threshold = np.float32(iou_threshold)
    reach = (1 / iou_threshold - 1) / 2 if iou_threshold > 0 else np.inf
    nothing = np.float32(0)
    found = 0
    for box in range(count):
        best = place[box]
        if not alive[best]:
            continue
        if found == len(kept):
            break
        kept[found] = box
        found += 1
        x0, y0, x1, y1, mine = left[best], top[best], right[best], bottom[best], area[best]
        width = np.float64(x1) - np.float64(x0)
        if not (0 < width < np.inf):
            continue  # It overlaps nothing, and cannot tell where to look.
        centre = (np.float64(x0) + np.float64(x1)) / 2
        far = min(width * (reach + _SLACK), (width + widest) / 2 + width * _SLACK)
        # Those that were looked at before may lose their mark too: nothing asks for it any more.
        row = group[box] * columns
        begin = start[row + _column(centre - far, columns, first_x, a_width)]
        end = start[row + _column(centre + far, columns, first_x, a_width) + 1]
        for other in range(begin, end):
            across = max(min(x1, right[other]) - max(x0, left[other]), nothing)
            down = max(min(y1, bottom[other]) - max(y0, top[other]), nothing)
            shared = across * down
            alive[other] &= not (shared / (mine + area[other] - shared) > threshold)
    return found


@compiled()
def _columns(boxes_xyxy):
    """Each box's column by its centre: their numbers, how many there are, where the first begins, how wide each is.

    And the widest box. Boxes that are not finite overlap nothing: they may lie anywhere.
    """
    count = len(boxes_xyxy)
    centre = np.empty(count, np.float64)
    first, last, widest = np.inf, -np.inf, 0.0
    for box in range(count):
        x0, x1 = np.float64(boxes_xyxy[box, 0]), np.float64(boxes_xyxy[box, 2])
        centre[box] = (x0 + x1) / 2
        if np.isfinite(centre[box]):
            first, last, widest = min(first, centre[box]), max(last, centre[box]), max(widest, x1 - x0)
    columns = min(max(count // _BOXES_A_COLUMN, 1), _MOST_COLUMNS)
    a_width = (last - first) / columns if last > first else 1.0
    column = np.zeros(count, np.int64)
    for box in range(count):
        if np.isfinite(centre[box]):
            column[box] = _column(centre[box], columns, first, a_width)
    return column, columns, first, a_width, widest


@compiled()
def _column(x, columns, first_x, a_width):
    return np.int64(min(max((x - first_x) / a_width, 0.0), columns - 1.0))


@compiled()
def _numbered(groups):
    """The groups as numbers from 0, and how many there are."""
    if not len(groups):
        return groups, 0
    least, largest = groups.min(), groups.max()
    if np.float64(largest) - np.float64(least) < 64:
        return groups - least, largest - least + 1
    names = np.unique(groups)
    return np.searchsorted(names, groups), len(names)


@compiled()
def _by_column(column, columns):
    """Where each box comes when they are sorted by column, and where each column starts (and the last one ends)."""
    start = np.zeros(columns + 1, np.int64)
    for box in range(len(column)):
        start[column[box] + 1] += 1
    for index in range(columns):
        start[index + 1] += start[index]
    place, free = np.empty(len(column), np.int64), start.copy()
    for box in range(len(column)):
        place[box] = free[column[box]]
        free[column[box]] += 1
    return place, start
