"""How a scene is cut into the overlapping windows that a model sees one at a time."""

from collections.abc import Sequence
from dataclasses import dataclass

from rs4d_core.errors import OptionError
from rs4d_core.models.config import SIZE_DIVISOR

# With less than this, an object cut by a seam shows too little of itself twice to be recognised as one object.
MIN_OVERLAP_PX = 16


@dataclass(frozen=True)
class Window:
    """A rectangle of whole pixels of the model's grid: columns `col .. col + width`, rows `row .. row + height`."""

    col: int
    row: int
    width: int
    height: int

    def trusted_box(self, scene_width: int, scene_height: int) -> tuple[float, float, float, float]:
        """The part `(x0, y0, x1, y1)` of the window inside which a contour is what it would be without windows.

        A contour between two pixel centres depends on both pixels. Inside the scene it is therefore known up to the
        centres of the window's outermost pixels; where the window ends with the scene, it is known up to the edge.
        """
        return (
            self.col + (0.5 if self.col > 0 else 0.0),
            self.row + (0.5 if self.row > 0 else 0.0),
            self.col + self.width - (0.5 if self.col + self.width < scene_width else 0.0),
            self.row + self.height - (0.5 if self.row + self.height < scene_height else 0.0),
        )


@dataclass(frozen=True)
class Plan(Sequence[Window]):
    """The windows of a scene, row by row. They are made when asked for: a scene may have a hundred million of them.

    Attributes:
        columns, rows: the first pixels of the windows along each side of the scene, rising.
        width, height: of every window.
    """

    columns: Sequence[int]
    rows: Sequence[int]
    width: int
    height: int

    def __len__(self) -> int:
        return len(self.columns) * len(self.rows)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"window {index} of {len(self)}")
        row, column = divmod(index % len(self), len(self.columns))
        return Window(self.columns[column], self.rows[row], self.width, self.height)


def check_tiling(window_px: int | None, overlap_px: int | None) -> None:
    """Sees whether scenes can be cut like that, as far as both are known.

    Raises:
        OptionError: `window_px` is no positive multiple of 32, or `overlap_px` is under 16 or not below `window_px`.
    """
    # A window of another size would have to be padded, and padding is an edge that is not in the scene.
    if window_px is not None and (window_px < SIZE_DIVISOR or window_px % SIZE_DIVISOR):
        near = max(1, round(window_px / SIZE_DIVISOR)) * SIZE_DIVISOR
        raise OptionError(f"window of {window_px} px: it must be a multiple of {SIZE_DIVISOR} px; {near} would do")
    if overlap_px is None:
        return
    if window_px is not None and overlap_px >= window_px:
        raise OptionError(
            f"overlap of {overlap_px} px is not smaller than the window of {window_px} px: choose a smaller overlap"
        )
    if overlap_px < MIN_OVERLAP_PX:
        raise OptionError(
            f"overlap of {overlap_px} px: objects cut by a seam can only be joined with {MIN_OVERLAP_PX} px or more"
        )


def plan(width: int, height: int, window_px: int, overlap_px: int) -> Plan:
    """Windows that cover every pixel of a scene of `width` x `height` pixels, row by row.

    All windows have the same size: `window_px`, or the scene's size along a side that is shorter than that. The last
    row and column are shifted inwards rather than cut off, so neighbours overlap by `overlap_px` or more.

    Raises:
        OptionError: as `check_tiling` does.
    """
    check_tiling(window_px, overlap_px)
    columns, rows = (_starts(side, window_px, overlap_px) for side in (width, height))
    return Plan(columns, rows, min(window_px, width), min(window_px, height))


def _starts(size: int, window_px: int, overlap_px: int) -> list[int]:
    """First pixels of the windows along one side of the scene."""
    if size <= window_px:
        return [0]
    last = size - window_px
    return [*range(0, last, window_px - overlap_px), last]
