"""What one window of a scene shows: the unit that is predicted, kept, sent between machines and merged."""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely

from rs4d_core.scenes.windows.polygonize import Detection

# Least column, least row, greatest column, greatest row, in pixels of the model's grid.
Box = tuple[float, float, float, float]

# Index of the window; how many detections; how many boxes. All numbers are little-endian, wherever they are written.
_HEAD = struct.Struct("<qII")
_NUMBERS = np.dtype([("score", "<f8"), ("label", "<i4"), ("fragment", "u1"), ("bytes", "<u8")])


@dataclass(frozen=True)
class WindowDetections:
    """What was found in a window.

    Attributes:
        index: of the window in the plan.
        detections: in pixels of the model's grid.
        not_read: parts of the scene that reach into the window and could not be read, in pixels of the model's grid.
            Nothing is known of them, as where a scene has no data. A part has the same box in all windows that it
            reaches into.
    """

    index: int
    detections: list[Detection]
    not_read: tuple[Box, ...] = ()

    def to_bytes(self) -> bytes:
        """All of it, exact to the bit."""
        shapes = shapely.to_wkb(np.array([found.geometry for found in self.detections], dtype=object))
        numbers = np.array(
            [
                (found.score, found.label, found.fragment, len(shape))
                for found, shape in zip(self.detections, shapes, strict=True)
            ],
            dtype=_NUMBERS,
        )
        head = _HEAD.pack(self.index, len(numbers), len(self.not_read))
        return b"".join([head, numbers.tobytes(), np.array(self.not_read, dtype="<f8").tobytes(), *shapes])

    @classmethod
    def from_bytes(cls, content: bytes) -> "WindowDetections":
        """What `to_bytes` gave.

        Raises:
            ValueError: it is cut short or is something else.
        """
        try:
            index, count, boxes = _HEAD.unpack_from(content)
            numbers = np.frombuffer(content, _NUMBERS, count, _HEAD.size)
            start = _HEAD.size + numbers.nbytes
            not_read = np.frombuffer(content, "<f8", 4 * boxes, start).reshape(-1, 4)
            lengths = numbers["bytes"]
            ends = start + not_read.nbytes + np.cumsum(lengths)
            shapes = [content[end - length : end] for end, length in zip(ends.tolist(), lengths.tolist(), strict=True)]
            if start + not_read.nbytes + int(lengths.sum()) != len(content):
                raise ValueError(f"they have {len(content)} bytes")
            geometries = shapely.from_wkb(np.array(shapes, dtype=object))
        except (struct.error, ValueError, shapely.errors.ShapelyError) as error:
            raise ValueError(f"these are no detections of a window: {error}") from error
        return cls(
            index,
            [
                Detection(geometry, float(row["score"]), int(row["label"]), bool(row["fragment"]))
                for geometry, row in zip(geometries, numbers, strict=True)
            ],
            tuple(tuple(box) for box in not_read.tolist()),
        )


class WindowSource(Protocol):
    """Where the detections of a scene's windows come from: this process, a cluster, or the journal of an earlier run.

    The bits of a prediction depend on the windows that are predicted along with it. So that every source gives the
    same, window `i` is always predicted with those of the plan from `i // batch * batch` on, `batch` of them, whichever
    of them are asked for.

    Attributes:
        batch: so many windows are predicted at a time.
        model_seconds: time spent in the predictor so far.
        interrupted: `run` ended because it was cancelled.
        notes: what the user should know of how the windows were predicted.
    """

    batch: int
    model_seconds: float
    interrupted: bool
    notes: list[str]

    def run(self, indices: Iterable[int]) -> Iterator[WindowDetections]:
        """The windows of these indices of the plan, which ascend, in that order, as soon as each is known.

        The indices are taken one by one, some time before their windows come; there may be very many.

        Raises:
            OptionError: a window does not fit into memory.
            SceneError: the scene cannot be read.
        """
