"""COCO run lengths (RLE), checked before pycocotools sees them.

pycocotools decodes in C without checks: a malformed string reads beyond its end. Nothing from a file goes there
unchecked.
"""

import numpy as np
from pycocotools import mask as mask_utils


def checked_rle(segmentation: dict, width: int, height: int) -> dict:
    """The compressed form that pycocotools takes, from either form that a file may hold.

    Args:
        segmentation: `{"size": [h, w], "counts": list of ints | compressed str}`, column-major, background first.
        width: of the image, pixels.
        height: of the image, pixels.

    Raises:
        ValueError: the run lengths are malformed or describe another size. The message says how.
    """
    if "size" not in segmentation or "counts" not in segmentation:
        raise ValueError("run lengths lack 'size' or 'counts'")
    size, counts = segmentation["size"], segmentation["counts"]
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int for side in size)):
        raise ValueError(f"the 'size' of the run lengths is {size!r}, not [height, width] in whole pixels")
    if size != [height, width]:
        raise ValueError(f"the run lengths are for {size[1]} x {size[0]} pixels, the image has {width} x {height}")
    if isinstance(counts, list):
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("the run lengths are not all whole numbers of 0 or more")
        _check_total(sum(counts), width, height)
        return mask_utils.frPyObjects({"size": size, "counts": counts}, height, width)
    if not isinstance(counts, str):
        raise ValueError(f"the 'counts' of the run lengths are a {type(counts).__name__}, not a list or a string")
    runs = _decompress(counts)
    if (runs < 0).any():
        raise ValueError("the compressed run lengths hold a negative run")
    _check_total(int(runs.sum()), width, height)
    return {"size": size, "counts": counts.encode("ascii")}


def _check_total(total: int, width: int, height: int) -> None:
    if total != width * height:
        raise ValueError(f"the run lengths cover {total} pixels, the image has {width * height}")


def _decompress(counts: str) -> np.ndarray:
    """The runs `(R,)` int64 of COCO's string form.

    Each number is written in groups of 5 bits, lowest first, as the character 48 + group; bit 6 says that more groups
    follow, the highest bit of the last group is the sign. From the fourth number on, it is the difference to the number
    two places before (rleToString in pycocotools' maskApi.c).
    """
    codes = np.frombuffer(counts.encode("utf-8"), np.uint8).astype(np.int64) - 48
    if not len(codes) or (codes < 0).any() or (codes > 63).any() or codes[-1] & 0x20:
        raise ValueError("the compressed run lengths are cut off or hold characters that are not COCO's")
    last = (codes & 0x20) == 0
    ends = np.flatnonzero(last)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 7:  # 35 bits: beyond any image
        raise ValueError("the compressed run lengths hold a number beyond any image's size")
    place = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 0x1F) << (5 * place), starts)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * lengths), 0)
    if len(values) > 3:  # numbers 1, 3, 5, ... and 2, 4, 6, ... are two chains of differences
        values[1::2] = np.cumsum(values[1::2])
        values[2::2] = np.cumsum(values[2::2])
    return values
