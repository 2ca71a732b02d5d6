"""A window that does not fit into memory, seen as smaller ones: what they show is joined as everywhere else."""

from rs4d_core.models.config import SIZE_DIVISOR
from rs4d_core.scenes.seams.between_windows import SeamMerger
from rs4d_core.scenes.windows.plan import Plan, Window, plan
from rs4d_core.scenes.windows.polygonize import Detection, border_margins

# Smaller ones would show too little of what lies around a thing.
SMALLEST_PX = 256


def smaller_side(side: int, overlap_px: int) -> int | None:
    """Side of the windows of which two, overlapping, cover `side` pixels; None where they would be too small."""
    half = -(-(side + overlap_px) // (2 * SIZE_DIVISOR)) * SIZE_DIVISOR
    return half if SMALLEST_PX <= half < side else None


def parts_of(window: Window, side: int, overlap_px: int) -> Plan:
    """Windows of this side that cover a window; in pixels of the scene, as it is."""
    within = plan(window.width, window.height, side, overlap_px)
    return Plan(
        [window.col + col for col in within.columns],
        [window.row + row for row in within.rows],
        within.width,
        within.height,
    )


def joined(
    parts: Plan, shown: list[list[Detection]], window: Window, scene_width: int, scene_height: int
) -> list[Detection]:
    """The detections of a window from those of its parts."""
    merger = SeamMerger(parts, scene_width, scene_height)
    merged = [found for index, detections in enumerate(shown) for found in merger.add(index, detections)]
    merged += merger.finish()
    x0, y0, x1, y1 = window.trusted_box(scene_width, scene_height)
    inner = (x0 > window.col, y0 > window.row, x1 < window.col + window.width, y1 < window.row + window.height)
    detections = []
    for found in sorted(merged, key=lambda found: (-found.score, found.geometry.bounds)):
        left, top, right, bottom = found.geometry.bounds
        margin_x, margin_y = border_margins(found.geometry.bounds)
        reaches = (left < x0 + margin_x, top < y0 + margin_y, right > x1 - margin_x, bottom > y1 - margin_y)
        fragment = any(both for both in map(all, zip(inner, reaches, strict=True)))
        detections.append(Detection(found.geometry, found.score, found.label, fragment))
    return detections
