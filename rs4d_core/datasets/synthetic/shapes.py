"""Plane figures in metres, as `(K, 2)` float64 arrays of x (right) and y (down)."""

import numpy as np


def rectangle(centre: np.ndarray | tuple[float, float], length: float, width: float, angle: float = 0.0) -> np.ndarray:
    """Corners of a rectangle whose length lies along `angle` (radians, from x towards y)."""
    half = np.array([(-length, -width), (length, -width), (length, width), (-length, width)]) / 2
    return turn(half, angle) + centre


def turn(points: np.ndarray, angle: float) -> np.ndarray:
    """`points` turned about the origin by `angle`, radians, from x towards y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([(cos, sin), (-sin, cos)])


def direction(angle: float) -> np.ndarray:
    """The unit vector at `angle`."""
    return np.array([np.cos(angle), np.sin(angle)])


def ellipse(centre: np.ndarray, radius_x: float, radius_y: float, angle: float = 0.0, corners: int = 48) -> np.ndarray:
    """A polygon with its corners on the ellipse."""
    phase = np.linspace(0, 2 * np.pi, corners, endpoint=False)
    return turn(np.stack([radius_x * np.cos(phase), radius_y * np.sin(phase)], axis=1), angle) + centre


def stadium(centre: np.ndarray, straight: float, radius: float, angle: float) -> np.ndarray:
    """Two half circles of `radius` joined by straights: the outline of a running track."""
    phase = np.linspace(-np.pi / 2, np.pi / 2, 20)
    right = np.stack([straight / 2 + radius * np.cos(phase), radius * np.sin(phase)], axis=1)
    return turn(np.concatenate([right, -right]), angle) + centre


def inset(quad: np.ndarray, along: float, across: float) -> np.ndarray:
    """A four-cornered figure as `rectangle` gives it, with each side moved inwards."""
    x_axis, y_axis = quad[1] - quad[0], quad[3] - quad[0]
    x_axis, y_axis = x_axis / np.linalg.norm(x_axis), y_axis / np.linalg.norm(y_axis)
    moves = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) * (along, across)
    return quad + moves[:, :1] * x_axis + moves[:, 1:] * y_axis
