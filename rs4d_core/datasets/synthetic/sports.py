"""Tennis courts and running tracks."""

import numpy as np

from rs4d_core.datasets.synthetic.buildings import pick_color
from rs4d_core.datasets.synthetic.canvas import Canvas, Color, lit
from rs4d_core.datasets.synthetic.shapes import rectangle, stadium, turn
from rs4d_core.datasets.synthetic.world import Thing

COURTS: tuple[Color, ...] = (
    (62, 92, 134), (76, 104, 150), (70, 116, 84), (86, 128, 92), (164, 96, 70), (176, 112, 82),
    (92, 84, 128), (110, 120, 118),
)  # fmt: skip
TRACKS: tuple[Color, ...] = ((166, 84, 66), (178, 98, 78), (148, 70, 60), (84, 100, 148), (140, 136, 134))
_LINE: Color = (226, 226, 222)
# Lengths of the International Tennis Federation's rules, metres.
COURT_LENGTH, COURT_WIDTH = 23.77, 10.97
_SINGLES_WIDTH, _SERVICE = 8.23, 6.40


def tennis_court(color: Color, centre: np.ndarray, angle: float) -> Thing:
    """A court up to its outer lines, as data sets label it; the run-off belongs to the ground."""
    outline = rectangle(centre, COURT_LENGTH, COURT_WIDTH, angle)
    x, y, s = COURT_LENGTH / 2, COURT_WIDTH / 2, _SINGLES_WIDTH / 2
    lines = [
        [(-x, -y), (x, -y), (x, y), (-x, y), (-x, -y)],
        [(-x, -s), (x, -s)],
        [(-x, s), (x, s)],
        [(-_SERVICE, -s), (-_SERVICE, s)],
        [(_SERVICE, -s), (_SERVICE, s)],
        [(-_SERVICE, 0), (_SERVICE, 0)],
    ]
    lines = [turn(np.array(line), angle) + centre for line in lines]
    net = turn(np.array([(0, -y - 0.4), (0, y + 0.4)]), angle) + centre

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 6)
        for line in lines:
            canvas.line(line, _LINE, 0.15)
        canvas.line(net, (60, 60, 60), 0.2)

    return Thing("tennis_court", outline, draw)


def running_track(rng: np.random.Generator, centre: np.ndarray, angle: float, scale: float) -> Thing:
    """An oval track with its infield, which data sets label together."""
    lanes = int(rng.integers(6, 10))
    straight, inner = 84.4 * scale, 36.5 * scale
    outer = inner + lanes * 1.22
    color = pick_color(rng, TRACKS, 8)
    turf = pick_color(rng, ((84, 112, 62), (98, 124, 70), (122, 126, 80), (66, 104, 64)), 8)
    outline = stadium(centre, straight, outer, angle)
    pitch = rectangle(centre, min(105.0 * scale, straight + inner * 0.6), inner * 1.75, angle)
    striped = rng.random() < 0.6
    x, y = np.linalg.norm(pitch[1] - pitch[0]), np.linalg.norm(pitch[3] - pitch[0])
    stripes = [
        rectangle(centre + turn(np.array([(k - 5) * x / 11, 0.0]), angle), x / 11, y, angle) for k in range(0, 11, 2)
    ]
    ends_tracked = rng.random() < 0.5

    def draw(canvas: Canvas) -> None:
        canvas.polygon(outline, color, 8)
        for lane in range(1, lanes):
            ring = stadium(centre, straight, inner + lane * 1.22, angle)
            canvas.line(np.concatenate([ring, ring[:1]]), lit(color, 1.22), 0.08)
        canvas.polygon(stadium(centre, straight, inner, angle), color if ends_tracked else turf, 30)
        canvas.polygon(pitch, turf, 30)
        if striped:
            for stripe in stripes:
                canvas.polygon(stripe, lit(turf, 1.07), 30)
        canvas.line(np.concatenate([pitch, pitch[:1]]), _LINE, 0.25)
        canvas.line(np.array([(pitch[0] + pitch[1]) / 2, (pitch[2] + pitch[3]) / 2]), _LINE, 0.25)

    return Thing("ground_track_field", outline, draw)
