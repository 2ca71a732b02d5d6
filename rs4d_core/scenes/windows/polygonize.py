"""From the mask probabilities of one window to polygons in the scene.

Contours run at probability 0.5, between the centres of the mask's cells (linear interpolation), so outlines are finer
than pixels. What matters for seams is where a contour must NOT run: along a window border inside the scene. There a
polygon ends, open to the other side, at the centres of the outermost pixels (`Window.trusted_box`); inside that box it
is point for point the polygon that one big window would have given.
"""

from dataclasses import dataclass

import contourpy
import numpy as np
import shapely
from shapely import MultiPolygon

from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.windows.plan import Window

# A hair above 0.5: where four pixels meet like a chess board, neither colour is joined across the corner, so that two
# objects that touch there cannot overlap.
CONTOUR_LEVEL = 0.5 + 2.0**-20
MAX_INVALID_SHARE = 0.5
POINTS_PER_PX = 4096
# A box that a border cuts may end short of it by this much, or by this share of its own side.
BORDER_PX = 3.0
BORDER_SHARE = 0.1


@dataclass(frozen=True)
class Detection:
    """One instance seen in one window.

    Attributes:
        geometry: its polygons, pixels of the scene's model grid, x to the right and y down.
        score: 0..1.
        label: index into the model's classes.
        fragment: it reaches a window border inside the scene, so it may go on beyond it.
    """

    geometry: MultiPolygon
    score: float
    label: int
    fragment: bool


@dataclass(frozen=True)
class _Field:
    """Probabilities `values (h, w)` at the places `y (h,)` x `x (w,)`, pixels of the scene."""

    x: np.ndarray
    y: np.ndarray
    values: np.ndarray


def polygonize(
    instances: Instances,
    window: Window,
    scene_width: int,
    scene_height: int,
    valid: np.ndarray | None = None,
) -> list[Detection]:
    """Polygons of the instances found in `window` of a scene of `scene_width` x `scene_height` pixels.

    Args:
        instances: pixels relative to the window. They may reach beyond it, into padding; polygons do not.
        valid: `(window.height, window.width)` bool, False where the scene has no data. Polygons keep off such pixels,
            and instances that lie mostly on them are dropped.
    """
    frame = window.trusted_box(scene_width, scene_height)
    if valid is not None and valid.all():
        valid = None
    detected, fields = [], []
    for index, patch in enumerate(instances.masks):
        field = _field(patch, window, frame)
        if valid is not None:
            field = _without_invalid(field, window, frame, valid)
        if field is not None:
            detected.append(index)
            fields.append(field)
    geometries = _within(_contours(fields), frame)
    return [
        Detection(geometry, float(instances.scores[index]), int(instances.labels[index]), fragment)
        for index, geometry, fragment in zip(
            detected, geometries, (_is_fragment(instances.masks[i], window, frame) for i in detected), strict=True
        )
        if not geometry.is_empty
    ]


def border_margins(bounds: tuple[float, float, float, float]) -> tuple[float, float]:
    """How far from an inner border, along x and along y, what has these bounds must end to be whole, in pixels."""
    x0, y0, x1, y1 = bounds
    return max(BORDER_PX, BORDER_SHARE * (x1 - x0)), max(BORDER_PX, BORDER_SHARE * (y1 - y0))


def _is_fragment(patch: MaskPatch, window: Window, frame: tuple[float, float, float, float]) -> bool:
    """Whether a mask reaches an inner border, as nearly as a model can tell.

    Generous on purpose: a whole object taken for a fragment comes out the same (it is joined with its like from the
    other window), a fragment taken for a whole object would stay cut.
    """
    x0, y0, x1, y1 = patch.box_xyxy
    margin_x, margin_y = border_margins(patch.box_xyxy)
    return (
        (frame[0] > window.col and x0 < margin_x)
        or (frame[1] > window.row and y0 < margin_y)
        or (frame[2] < window.col + window.width and x1 > window.width - margin_x)
        or (frame[3] < window.row + window.height and y1 > window.height - margin_y)
    )


def _field(patch: MaskPatch, window: Window, frame: tuple[float, float, float, float]) -> _Field:
    """The patch in scene coordinates, with what is known around it."""
    x0, y0, x1, y1 = patch.box_xyxy
    height, width = patch.probabilities.shape
    x, columns = _axis(x0, x1, width, window.col, window.width, frame[0], frame[2])
    y, rows = _axis(y0, y1, height, window.row, window.height, frame[1], frame[3])
    # One row and column of zeros at the end, for index -1: outside its patch, an instance has probability 0.
    values = np.zeros((height + 1, width + 1))
    values[:-1, :-1] = patch.probabilities
    return _Field(x, y, values[rows[:, None], columns])


def _axis(
    start: float, end: float, cells: int, origin: int, size: int, frame_start: float, frame_end: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cell centres along one axis and, beside them, the index of the cell whose value each has (-1: zero).

    A side of the patch that reaches the window border (to within a pixel) is continued with its own values up to the
    frame; any other side is closed with zeros, one cell further out.

    Args:
        start, end: the patch, relative to the window's `origin`; `size` is the window's.
        frame_start, frame_end: the window's trusted box, scene coordinates.
    """
    step = (end - start) / cells
    index = np.arange(-1, cells + 1)
    places = origin + start + (index + 0.5) * step
    first, last = 0, cells + 2
    if start < 1.0:
        if places[1] > frame_start:
            places[0], index[0] = frame_start, 0
        else:
            first = 1
    if end > size - 1.0:
        if places[-2] < frame_end:
            places[-1], index[-1] = frame_end, cells - 1
        else:
            last = -1
    else:
        index[-1] = -1
    return places[first:last], index[first:last]


def _without_invalid(
    field: _Field, window: Window, frame: tuple[float, float, float, float], valid: np.ndarray
) -> _Field | None:
    """The field on the pixel grid with zeros where the scene has no data; None if most of the instance lies there."""
    columns = np.arange(
        max(int(np.floor(field.x[0])), window.col), min(int(np.ceil(field.x[-1])), window.col + window.width)
    )
    rows = np.arange(
        max(int(np.floor(field.y[0])), window.row), min(int(np.ceil(field.y[-1])), window.row + window.height)
    )
    if not len(columns) or not len(rows):
        return field
    has_data = valid[rows[:, None] - window.row, columns - window.col]
    if has_data.all():
        return field
    along_x = _interpolation(field.x, columns + 0.5)
    along_y = _interpolation(field.y, rows + 0.5)
    probabilities = along_y @ field.values @ along_x.T
    inside = probabilities > CONTOUR_LEVEL
    if (inside & ~has_data).sum() > MAX_INVALID_SHARE * inside.sum():
        return None
    box = (
        float(columns[0] - window.col),
        float(rows[0] - window.row),
        float(columns[-1] + 1 - window.col),
        float(rows[-1] + 1 - window.row),
    )
    return _field(MaskPatch(np.where(has_data, probabilities, 0.0), box), window, frame)


def _interpolation(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Weights `(wanted, known)` of linear interpolation; 0 outside the known range."""
    right = np.clip(np.searchsorted(known, wanted), 1, len(known) - 1)
    share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
    inside = (share >= 0) & (share <= 1)
    weights = np.zeros((len(wanted), len(known)))
    each = np.arange(len(wanted))
    weights[each, right - 1] = np.where(inside, 1 - share, 0)
    weights[each, right] = np.where(inside, share, 0)
    return weights


def _contours(fields: list[_Field]) -> np.ndarray:
    """One valid MultiPolygon (perhaps empty) a field: where its values lie above the contour level."""
    points, rings, polygons, parts = [np.empty((0, 2))], [0], [0], [0]
    for field in fields:
        generator = contourpy.contour_generator(
            field.x, field.y, field.values, name="serial", fill_type=contourpy.FillType.OuterOffset
        )
        # The upper level lies above every probability: one boundary, not a band.
        for ring_points, offsets in zip(*generator.filled(CONTOUR_LEVEL, 2.0), strict=True):
            points.append(ring_points)
            rings.extend((offsets[1:].astype(np.int64) + rings[-1]).tolist())
            polygons.append(len(rings) - 1)
        parts.append(len(polygons) - 1)
    return multipolygons(
        shapely.from_ragged_array(
            shapely.GeometryType.MULTIPOLYGON,
            # Two windows compute the same point with different rounding, and GEOS (3.14) may find that polygons which
            # differ by 1e-15 share nothing. On a grid of 1/4096 pixel they are the same.
            np.round(np.concatenate(points) * POINTS_PER_PX) / POINTS_PER_PX,
            (np.array(rings), np.array(polygons), np.array(parts)),
        )
    )


def _within(geometries: np.ndarray, frame: tuple[float, float, float, float]) -> np.ndarray:
    """The geometries cut to the frame; nearly all lie in it already, and are left untouched."""
    x0, y0, x1, y1 = frame
    bounds = shapely.bounds(geometries)
    outside = (bounds[:, 0] < x0) | (bounds[:, 1] < y0) | (bounds[:, 2] > x1) | (bounds[:, 3] > y1)
    geometries[outside] = multipolygons(shapely.intersection(geometries[outside], shapely.box(x0, y0, x1, y1)))
    return geometries
