"""Divide the ground into blocks with roads between them."""

from dataclasses import dataclass

import numpy as np

from rs4d_core.datasets.synthetic.shapes import direction, rectangle


@dataclass(frozen=True, eq=False)
class Block:
    """A rectangle of ground.

    Attributes:
        centre: metres.
        length: along `angle`, metres.
        width: across, metres.
        angle: radians.
    """

    centre: np.ndarray
    length: float
    width: float
    angle: float

    @property
    def area(self) -> float:
        """Square metres."""
        return self.length * self.width

    def corners(self) -> np.ndarray:
        """`(4, 2)`."""
        return rectangle(self.centre, self.length, self.width, self.angle)

    def at_metres(self, u: float, v: float) -> np.ndarray:
        """The point `u` metres along and `v` metres across from the centre."""
        return self.centre + direction(self.angle) * u + direction(self.angle + np.pi / 2) * v

    def at(self, u: float, v: float) -> np.ndarray:
        """The same in shares of length and width, -0.5 .. 0.5."""
        return self.at_metres(u * self.length, v * self.width)

    def part(self, u0: float, u1: float, v0: float, v1: float) -> "Block":
        """The block between shares `u0..u1` of the length and `v0..v1` of the width."""
        return Block(self.at((u0 + u1) / 2, (v0 + v1) / 2), self.length * (u1 - u0), self.width * (v1 - v0), self.angle)

    def grid(self, columns: int, rows: int) -> "list[Block]":
        """The block in equal parts, column by column."""
        return [
            self.part(i / columns - 0.5, (i + 1) / columns - 0.5, j / rows - 0.5, (j + 1) / rows - 0.5)
            for i in range(columns)
            for j in range(rows)
        ]

    def shrunk(self, margin: float) -> "Block":
        """The block with `margin` metres less on each side; at least 1 m is left."""
        return Block(self.centre, max(1.0, self.length - 2 * margin), max(1.0, self.width - 2 * margin), self.angle)

    def turned(self) -> "Block":
        """The same ground, with length and width exchanged."""
        return Block(self.centre, self.width, self.length, self.angle + np.pi / 2)

    def random_points(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """`(count, 2)` places inside."""
        shares = rng.uniform(-0.5, 0.5, (count, 2))
        return np.array([self.at(u, v) for u, v in shares]).reshape(-1, 2)


def divide(
    block: Block, rng: np.random.Generator, largest: float, smallest: float, road_width: float
) -> tuple[list[Block], list[Block]]:
    """Cut a block by roads until no side is longer than about `largest` metres.

    Returns:
        Blocks, and roads as blocks whose length is the road's.
    """
    lengthwise = block.length >= block.width
    side = block.length if lengthwise else block.width
    if side < 2 * smallest + road_width or (side < largest and rng.random() < 0.6):
        return [block], []
    half = road_width / 2 / side
    cut = rng.uniform(0.35, 0.65) - 0.5
    if lengthwise:
        pieces = block.part(-0.5, cut - half, -0.5, 0.5), block.part(cut + half, 0.5, -0.5, 0.5)
        road = block.part(cut - half, cut + half, -0.5, 0.5).turned()
    else:
        pieces = block.part(-0.5, 0.5, -0.5, cut - half), block.part(-0.5, 0.5, cut + half, 0.5)
        road = block.part(-0.5, 0.5, cut - half, cut + half)
    blocks, roads = [], [road]
    for piece in pieces:
        more_blocks, more_roads = divide(piece, rng, largest, smallest, max(5.0, road_width * 0.8))
        blocks += more_blocks
        roads += more_roads
    return blocks, roads
