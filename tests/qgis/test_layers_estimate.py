"""What the panel tells before a run is what the engine does then."""

import json
import random

import pytest
from conftest import run_engine_python

from rs4d_qgis.layers.estimate import grid_side, reading_resolution_m, resolution_sentence, windows

_ENGINE = """
import json, sys
from rs4d_core.scenes.reading.resample import Axis
from rs4d_core.scenes.reading.scene import LEAST_SHARE
from rs4d_core.scenes.reading.resolution import choose_scale
from rs4d_core.scenes.windows.plan import plan
import math
results = []
for own, expected, wanted, side, window, overlap in json.load(sys.stdin):
    scale = choose_scale((own, own), expected, wanted, side, side)
    grid = max(1, math.ceil(side / scale.step_x - LEAST_SHARE))
    results.append((scale.resolution_m, grid, len(plan(grid, grid // 2 + 1, window, overlap))))
print(json.dumps(results))
"""


def test_the_rules_are_the_engine_s():
    random.seed(1)
    cases = []
    for _ in range(300):
        finest = random.uniform(0.05, 2.0)
        window = 32 * random.randint(1, 40)
        own = finest * random.choice([0.05, 0.5, 0.99, 1.0, 1.015, 1.5, 3.0, 20.0])
        wanted = random.choice([None, None, own, own * random.uniform(0.3, 3.0)])
        overlap = random.randint(16, window - 1) if window > 32 else 16
        expected = (finest, finest * random.uniform(1.0, 3.0))
        cases.append((own, expected, wanted, random.randint(1, 3000), window, overlap))
    answers = json.loads(run_engine_python(_ENGINE, stdin=json.dumps(cases)))
    for (own, expected, wanted, side, window, overlap), (resolution, grid, count) in zip(cases, answers, strict=True):
        reading = reading_resolution_m(own, expected, wanted)
        assert reading == pytest.approx(resolution)
        assert grid_side(side, own, reading) == grid
        assert windows(grid, grid // 2 + 1, window, overlap) == count


@pytest.mark.parametrize(
    ("own", "wanted", "is_picture", "says"),
    [
        (0.075, None, False, "has 0.075 m a pixel, the model expects 0.3 to 1 m: it will be resampled to 0.3 m."),
        (0.5, None, False, "it will be read as it is."),
        (10.0, None, False, "resampled to 2.5 m. Small objects cannot be made out"),
        (0.5, 0.8, False, "resampled to 0.8 m, as asked for."),
        (None, None, True, "has no resolution of its own: it will be fetched as the model expects 0.3 to 1 m."),
        (None, 0.5, True, "has no resolution of its own: it will be fetched at 0.5 m, as asked for."),
        (None, None, False, "on the ground is unknown, the model expects 0.3 to 1 m: it will be read as it is."),
    ],
)
def test_the_resolution_is_told_against_the_model_s(own, wanted, is_picture, says):
    assert says in resolution_sentence(own, (0.3, 1.0), wanted, is_picture)
