"""Kill Dask workers, and clients with them, at random moments of segmenting runs, and see that nothing comes of it.

    python tests/faults/cluster_kills.py --kills 20 --side 3072 --seed 1

A generated scene is segmented by one process; then over a cluster of two processes (`--cluster local:2`), of which one
or the client is killed by SIGKILL again and again, from the first window on. A run whose worker was killed has to go
on by itself; one whose client was killed, by the same command. Each layer that comes to its end has to hold what that
of the one process does, to the bit, and no worker may outlive its client. Prints what came of it; the exit code is the
number of layers that were not as the unbroken one, and of workers left behind.
"""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from campaign import COMMAND, content, runs_in, write_scene

CLIENTS = 0.3
# Of processes whose parent has gone.
GRACE_S = 20


@dataclass
class Outcome:
    """Of a campaign: how often workers and clients were killed, layers that came to their end, workers left behind."""

    workers: int = 0
    clients: int = 0
    equal: int = 0
    unequal: int = 0
    left: int = 0


def workers_of(client: subprocess.Popen) -> list[psutil.Process]:
    """The worker processes that a client has just now."""
    try:
        children = psutil.Process(client.pid).children()
        return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
    except psutil.NoSuchProcess:
        return []


def started(scene: Path, output: Path, log: Path, *options: str) -> subprocess.Popen:
    """The command, writing what it says to `log`."""
    with log.open("wb") as file:
        command = [*COMMAND, "segment", scene, "-o", output, *options]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def campaign(scene: Path, folder: Path, kills: int, longest_s: float, rng: random.Random) -> Outcome:
    """Runs a campaign in a folder that holds nothing; between two kills there are `longest_s` seconds at most."""
    outcome, whole, broken, log = Outcome(), folder / "whole.gpkg", folder / "broken.gpkg", folder / "log"
    with started(scene, whole, log) as process:
        if process.wait():
            raise RuntimeError(f"the run of one process ended with {process.returncode}: {log.read_text()}")
    wanted, unfinished = content(whole), False
    while outcome.workers + outcome.clients < kills or unfinished:
        with started(scene, broken, log, "--cluster", "local:2") as client:
            while client.poll() is None and outcome.workers + outcome.clients < kills:
                if b" window" not in log.read_bytes():
                    time.sleep(0.02)
                    continue
                time.sleep(rng.uniform(0, longest_s))
                workers = workers_of(client)
                if client.poll() is not None or not workers:
                    continue
                if rng.random() < CLIENTS:
                    outcome.clients += 1
                    client.kill()
                    outcome.left += len(psutil.wait_procs(workers, timeout=GRACE_S)[1])
                else:
                    outcome.workers += 1
                    rng.choice(workers).kill()
            code = client.wait()
        # Dask gives a stretch of windows up whose workers died several times, which is then the campaign's own doing.
        given_up = code == 2 and "give workers more memory" in log.read_text()
        unfinished = code == -signal.SIGKILL or given_up
        if unfinished:
            continue
        if code == 0 and content(broken) == wanted and runs_in(broken) == 1:
            outcome.equal += 1
        else:
            outcome.unequal += 1
            print(f"not as the unbroken run: exit code {code}, {log.read_text()}", file=sys.stderr)
        broken.unlink(missing_ok=True)
    return outcome


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--side", type=int, default=3072, help="of the scene, pixels")
    parser.add_argument("--longest", type=float, default=8.0, help="seconds between two kills, at most")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scene, folder = Path(name) / "scene.tif", Path(name) / "layers"
        folder.mkdir()
        write_scene(scene, arguments.side, arguments.seed)
        outcome = campaign(scene, folder, arguments.kills, arguments.longest, random.Random(arguments.seed))
    print(
        f"{outcome.workers} workers and {outcome.clients} clients killed; {outcome.equal} layers equal to that of one "
        f"process, {outcome.unequal} not; {outcome.left} workers left behind"
    )
    return outcome.unequal + outcome.left


if __name__ == "__main__":
    sys.exit(main())
