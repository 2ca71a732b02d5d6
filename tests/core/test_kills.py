"""The short form of tests/faults/campaign.py."""

import random
import sys
from pathlib import Path

from rs4d_core.datasets.synthetic import generate_scene, write_scene

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "faults"))

from campaign import campaign


def test_runs_that_are_killed_go_on_and_come_to_the_same(untrained_model, tmp_path):
    write_scene(generate_scene(3, 320, 320, 0.5), tmp_path / "scene.tif")
    (tmp_path / "layers").mkdir()
    request = {"model": str(untrained_model), "window_px": 64, "score": 0.05}
    outcome = campaign(tmp_path / "scene.tif", tmp_path / "layers", 3, 1.0, random.Random(4), request)
    assert (outcome.kills, outcome.unequal) == (3, 0)
    assert outcome.equal > 0
    assert outcome.instances > 5
