"""One process at a time on what is being written."""

import subprocess
import sys

import pytest

from rs4d_core.errors import BusyError, OutputError
from rs4d_core.sole_use import sole_use

HOLD = """
import sys, time
from pathlib import Path
from rs4d_core.sole_use import sole_use
with sole_use(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_is_held_by_one_process_and_is_free_once_that_is_killed(tmp_path):
    lock = tmp_path / ".lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, lock], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BusyError, match="wait for its end"), sole_use(lock, "in use: wait for its end"):
        pass
    holder.kill()
    holder.communicate()
    with sole_use(lock, "busy"):
        assert lock.exists()


def test_a_lock_is_held_against_the_same_process_as_well_and_given_back(tmp_path):
    lock = tmp_path / ".lock"
    with sole_use(lock, "busy"), pytest.raises(BusyError), sole_use(lock, "busy"):
        pass
    with sole_use(lock, "busy"):
        pass


def test_a_lock_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot make the lock"), sole_use(tmp_path / "file" / ".lock", "busy"):
        pass
