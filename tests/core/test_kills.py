"""The short form of tests/faults/campaign.py."""

import re
import subprocess
import sys
from pathlib import Path

CAMPAIGN = Path(__file__).resolve().parents[1] / "faults" / "campaign.py"


def test_runs_that_are_killed_go_on_and_come_to_the_same(untrained_model):
    options = ["--kills", "3", "--side", "320", "--window", "64", "--longest", "1", "--seed", "4"]
    # A process of its own: it forks, which one that has computed with torch must not.
    command = [sys.executable, CAMPAIGN, *options, "--model", untrained_model]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = re.match(r"3 kills .*; (\d+) layers equal to the unbroken one, 0 not; (\d+) instances each", done.stdout)
    assert said is not None, done.stdout
    layers, instances = map(int, said.groups())
    assert layers > 0
    assert instances > 5
