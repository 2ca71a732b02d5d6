"""Which chips are cut out of scenes with labelled objects, and which of them are held back.

Every scene is divided into blocks of ground, and whole blocks are held back. Chips never reach over the edge of their
block, and those of a block that is held back keep a margin to all others, so that no pixel is in two splits, and no
object that reaches over a border by less than the margin; of a longer one, both may show a piece. Where scenes overlap,
what shows ground that is held back in another scene is left out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely
from affine import Affine
from pyproj import CRS, Transformer

from rs4d_core.datasets.findings import DROPPED, IMAGE, Finding
from rs4d_core.datasets.places import BLOCK_LENGTHS, Split, held_back_blocks
from rs4d_core.errors import OptionError
from rs4d_core.scenes.layers.chips import SMALLEST_CHIP_PX, chip_windows
from rs4d_core.scenes.windows.plan import Window


@dataclass(frozen=True, eq=False)
class Ground:
    """One scene, closed again, and the objects in it.

    Attributes:
        path: of the scene.
        layer: of the objects.
        name: what the scene's chips are named after.
        size: width and height of its grid.
        transform: grid pixels to the scene's CRS.
        crs_wkt: of the scene.
        resolution_m: metres in a grid pixel; None where the ground is unknown.
        outlines: `(N,)` MultiPolygons in grid pixels.
        labels: `(N,)` int.
    """

    path: Path
    layer: str
    name: str
    size: tuple[int, int]
    transform: Affine
    crs_wkt: str | None
    resolution_m: float | None
    outlines: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Job:
    """A chip to be cut.

    Attributes:
        ground: number of the scene.
        split: "train" or "val".
        window: of the scene's grid.
        empty: no outline touches it.
    """

    ground: int
    split: str
    window: Window
    empty: bool


def plan_chips(
    grounds: list[Ground], classes: int, chip_px: int, overlap_px: int, split: Split, findings: list[Finding]
) -> list[Job]:
    """The chips to cut, scene by scene; a scene's empty chips for training come last, shuffled.

    Args:
        classes: how many there are.
        chip_px: length of a chip.
        overlap_px: of neighbouring chips of one block, at least.
        split: its margin is in pixels of the chips.
        findings: gets what is left out.

    Raises:
        OptionError: the margin leaves nothing of a block.
        DatasetError: the objects lie too close together to be split.
    """
    blocks, held = _blocks(grounds, classes, chip_px, split)
    jobs: list[Job] = []
    for number, (ground, own) in enumerate(zip(grounds, blocks, strict=True)):
        tree = shapely.STRtree(ground.outlines)
        full, empty = [], []
        for block in own:
            kept = (number, block) in held
            area = _within(block, ground.size, split.margin) if kept else block
            for window in chip_windows(area, chip_px, overlap_px):
                shows = len(tree.query(_box(window), predicate="intersects")) > 0
                job = Job(number, "val" if kept else "train", window, not shows)
                (empty if job.empty and not kept else full).append(job)
        order = np.random.default_rng([split.seed, number]).permutation(len(empty))
        jobs += [*full, *(empty[i] for i in order)]
    return _without_shared_ground(grounds, jobs, findings)


def _blocks(
    grounds: list[Ground], classes: int, chip_px: int, split: Split
) -> tuple[list[list[Window]], set[tuple[int, Window]]]:
    """The blocks of each scene, and those that are held back, by scene and block."""
    if not split.share:
        return [[Window(0, 0, *ground.size)] for ground in grounds], set()
    for length in BLOCK_LENGTHS:
        blocks = [_grid(*ground.size, length * chip_px) for ground in grounds]
        flat = [(number, block) for number, own in enumerate(blocks) for block in own]
        counts = np.array([_count(grounds[number], block, classes) for number, block in flat])
        if (counts.sum(axis=1) > 0).sum() >= split.least_blocks:
            break
    return blocks, {flat[index] for index in held_back_blocks(counts, split)}


def _grid(width: int, height: int, block_px: int) -> list[Window]:
    """A scene divided into blocks of about this length."""
    edges = [
        [round(i * side / count) for i in range(count + 1)]
        for side, count in ((width, max(1, round(width / block_px))), (height, max(1, round(height / block_px))))
    ]
    return [
        Window(left, top, right - left, bottom - top)
        for top, bottom in zip(edges[1], edges[1][1:], strict=False)
        for left, right in zip(edges[0], edges[0][1:], strict=False)
    ]


def _count(ground: Ground, block: Window, classes: int) -> np.ndarray:
    """Objects of each class whose middle lies in a block."""
    x, y = shapely.get_coordinates(shapely.centroid(ground.outlines)).T
    inside = (x >= block.col) & (x < block.col + block.width) & (y >= block.row) & (y < block.row + block.height)
    return np.bincount(ground.labels[inside], minlength=classes)


def _within(block: Window, size: tuple[int, int], margin: float) -> Window:
    """A block less the margin along the sides that do not lie on the scene's edge.

    Raises:
        OptionError: nothing is left.
    """
    gap = int(np.ceil(margin))
    left, top = (gap if block.col else 0), (gap if block.row else 0)
    right = gap if block.col + block.width < size[0] else 0
    bottom = gap if block.row + block.height < size[1] else 0
    inner = Window(block.col + left, block.row + top, block.width - left - right, block.height - top - bottom)
    if min(inner.width, inner.height) < SMALLEST_CHIP_PX:
        raise OptionError(
            f"a margin of {gap} px leaves nothing of a block of {block.width} x {block.height} px that is held back: "
            "give a smaller margin or larger chips"
        )
    return inner


def _without_shared_ground(grounds: list[Ground], jobs: list[Job], findings: list[Finding]) -> list[Job]:
    """The jobs less those for training that show ground which is held back in another scene."""
    held = [job for job in jobs if job.split == "val"]
    if len(grounds) < 2 or not held:
        return jobs
    place_of = [_to_degrees(ground) for ground in grounds]
    places = np.array([place_of[job.ground](job.window) for job in held])
    tree = shapely.STRtree(places)
    kept = []
    for job in jobs:
        place = place_of[job.ground](job.window)
        near = [index for index in tree.query(place) if held[index].ground != job.ground]
        # A hundredth of a chip is the rounding of two grids that meet.
        shared = shapely.area(shapely.intersection(places[near], place)) > place.area / 100
        if job.split == "train" and shared.any():
            where = chip_name(grounds[job.ground], job.window)
            findings.append(Finding(IMAGE, DROPPED, "shows ground held back in another scene", where))
        else:
            kept.append(job)
    return kept


def chip_name(ground: Ground, window: Window) -> str:
    """The file name of a chip."""
    return f"{ground.name}_r{window.row}_c{window.col}.tif"


def _to_degrees(ground: Ground) -> Callable[[Window], shapely.Geometry]:
    """A function from windows of a scene to their ground in longitude and latitude."""
    if ground.crs_wkt is None:
        return lambda window: shapely.Polygon()  # nothing is known of where it lies
    transformer = Transformer.from_crs(CRS.from_wkt(ground.crs_wkt), "EPSG:4326", always_xy=True)
    return lambda window: shapely.transform(
        _box(window), lambda x, y: transformer.transform(*(ground.transform @ (x, y))), interleaved=False
    )


def _box(window: Window) -> shapely.Polygon:
    return shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
