"""Kill segmenting runs at random moments, and see that each goes on as if nothing had been.

    python tests/faults/campaign.py --kills 50 --side 1536 --seed 1

A generated scene is segmented whole, by the default model; then the same is killed by SIGKILL at moments drawn at
random, some from the start of the process on and most from its first window on, and started again each time: by the
command line, and now and then by an engine (`rs4d serve`). To start a process takes longer than to kill it, so most
are forked from one that has imported everything. Each layer that comes to its end has to hold what the
unbroken one does, to the bit, with one row in its table of runs, and nothing left beside it; then the next is begun,
until all kills are spent. Prints what came of it; the exit code is the number of layers that were not as the unbroken
one.
"""

import argparse
import json
import math
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import psutil

# Shares of the kills: of engines, of commands started from nothing, and of processes that may not even have begun with
# their first window.
ENGINES, COMMANDS, EARLY = 0.1, 0.1, 0.25

# A process that is neither through nor killed after so long, hangs.
PATIENCE_S = 600

COMMAND = (sys.executable, "-m", "rs4d_core.cli")


@dataclass
class Outcome:
    """Of a campaign.

    Attributes:
        kills: how many processes were killed while they ran, of which `engines` were engines.
        kept: windows in the journal after each of these kills.
        equal, unequal: layers that came to their end.
        instances: in a layer.
        seconds: that the unbroken run took, and those of all processes together that made the others.
    """

    kills: int = 0
    engines: int = 0
    kept: list[int] = field(default_factory=list)
    equal: int = 0
    unequal: int = 0
    instances: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)


def write_scene(path: Path, side: int, seed: int) -> None:
    """A generated scene of `side` x `side` pixels."""
    from rs4d_core.datasets.synthetic import generate_scene
    from rs4d_core.datasets.synthetic import write_scene as write

    write(generate_scene(seed=seed, width=side, height=side, resolution_m=0.5), path)


def content(layer: Path) -> list[tuple]:
    """All of a result layer but the ids of its features and of its run, sorted."""
    with closing(sqlite3.connect(layer)) as database:
        query = "SELECT class, score, status, edited, area_m2, geom FROM instances"
        return sorted(database.execute(query), key=repr)


def runs_in(layer: Path) -> int:
    """Rows of the table of runs."""
    with closing(sqlite3.connect(layer)) as database:
        return database.execute("SELECT COUNT(*) FROM runs").fetchone()[0]


def kept_beside(output: Path) -> int:
    """Windows in the journal beside an output that nobody is writing to."""
    journal = _journal(output)
    if not journal.exists():
        return 0
    with closing(sqlite3.connect(journal)) as database:
        if not database.execute("SELECT COUNT(*) FROM sqlite_master WHERE name = 'windows'").fetchone()[0]:
            return 0
        return database.execute("SELECT COUNT(*) FROM windows").fetchone()[0]


def campaign(
    scene: Path, folder: Path, kills: int, longest_s: float, rng: random.Random, request: dict | None = None
) -> Outcome:
    """Runs a campaign in a folder that holds nothing.

    Nothing may have been computed with torch in this process: its threads do not survive a fork, which then waits for
    them for ever.

    Args:
        longest_s: a process lives for no longer than this, from its start or its first window on: in seconds of the
            processor, so that runs get on where the machine is busy.
        request: further parameters, as `segment` of the engine's protocol names them: `model`, `window_px`, `score`.
    """
    outcome, whole, broken = Outcome(), folder / "whole.gpkg", folder / "broken.gpkg"
    began = time.perf_counter()
    _run_to_the_end(scene, whole, request or {}, folder / "log")
    unbroken_s, wanted = time.perf_counter() - began, content(whole)
    outcome.instances = len(wanted)
    whole.unlink()
    began = time.perf_counter()
    while outcome.kills < kills:
        kind, early, left_s = rng.random(), rng.random() < EARLY, rng.uniform(0, longest_s)
        by_engine = kind < ENGINES
        start = _engine if by_engine else _command if kind < ENGINES + COMMANDS else _Forked
        log = folder / "log"
        with start(scene, broken, request or {}, log) as process:
            born, began_at, used_s = time.monotonic(), 0.0, 0.0
            while process.poll() is None and used_s < began_at + left_s and not (by_engine and _finished(broken)):
                if not early and b" window" not in log.read_bytes():
                    began_at = used_s
                if time.monotonic() - born > PATIENCE_S:
                    process.kill()
                    raise RuntimeError(f"a run hangs: {log.read_text()}")
                time.sleep(0.01)
                used_s = _processor_seconds(process.pid)
            ended = process.poll() is not None
            process.kill()
        if ended or _finished(broken):
            _compare(broken, wanted, outcome)
        else:
            outcome.kills += 1
            outcome.engines += by_engine
            outcome.kept.append(kept_beside(broken))
            print(f"kill {outcome.kills}: {outcome.kept[-1]} windows kept", file=sys.stderr, flush=True)
    _run_to_the_end(scene, broken, request or {}, folder / "log")
    _compare(broken, wanted, outcome)
    outcome.seconds = (unbroken_s, time.perf_counter() - began)
    return outcome


def _journal(output: Path) -> Path:
    return output.with_name(f".{output.name}.unfinished")


def _finished(output: Path) -> bool:
    return output.exists() and not _journal(output).exists()


def _processor_seconds(pid: int) -> float:
    """That a process has computed for; infinite for one that is no more."""
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return math.inf
    return times.user + times.system


def _command(scene: Path, output: Path, request: dict, log: Path) -> subprocess.Popen:
    with log.open("wb") as file:
        command = [*COMMAND, "segment", scene, "-o", output, *_options(request)]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)


def _options(request: dict) -> list[str]:
    return [text for name, value in request.items() for text in (f"--{name.removesuffix('_px')}", str(value))]


class _Forked:
    """The command in a copy of this process, with the methods of a `Popen` that are needed."""

    def __init__(self, scene: Path, output: Path, request: dict, log: Path) -> None:
        import rs4d_core.models.checkpoint
        import rs4d_core.scenes.pipeline  # noqa: F401

        log.write_bytes(b"")
        self._process = get_context("fork").Process(target=self._run, args=(scene, output, request, log))
        self._process.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()

    def __enter__(self) -> "_Forked":
        return self

    def __exit__(self, *_exception: object) -> None:
        self._process.join()

    @staticmethod
    def _run(scene: Path, output: Path, request: dict, log: Path) -> None:
        from rs4d_core.cli import main

        with log.open("wb") as file, open(os.devnull, "wb") as nothing:
            os.dup2(file.fileno(), 2)
            os.dup2(nothing.fileno(), 1)
        os._exit(main(["segment", str(scene), "-o", str(output), *_options(request)]))


def _run_to_the_end(scene: Path, output: Path, request: dict, log: Path) -> None:
    with _Forked(scene, output, request, log) as process:
        pass
    if process.poll():
        raise RuntimeError(log.read_text())


def _engine(scene: Path, output: Path, request: dict, log: Path) -> subprocess.Popen:
    """An engine with one thing to do."""
    with log.open("wb") as file:
        engine = subprocess.Popen([*COMMAND, "serve"], stdin=subprocess.PIPE, stdout=file, stderr=subprocess.DEVNULL)
    params = {"scene": str(scene), "output": str(output), **request}
    engine.stdin.write(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "segment", "params": params}).encode() + b"\n")
    engine.stdin.flush()
    return engine


def _compare(output: Path, wanted: list[tuple], outcome: Outcome) -> None:
    beside = [name for name in os.listdir(output.parent) if output.stem in name and name != output.name]
    if content(output) == wanted and runs_in(output) == 1 and not beside:
        outcome.equal += 1
        print("equal to the unbroken run", file=sys.stderr, flush=True)
    else:
        outcome.unequal += 1
        print(f"not as the unbroken run: {runs_in(output)} runs, left beside it: {beside}", file=sys.stderr)
    output.unlink()


def start() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--side", type=int, default=1536, help="of the scene, pixels")
    parser.add_argument(
        "--longest", type=float, default=10.0, help="seconds of the processor until a process is killed, at most"
    )
    parser.add_argument("--window", type=int, default=384, help="side of the windows, pixels")
    parser.add_argument("--model", type=Path, help="(default: the one that comes along)")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scene, folder = Path(name) / "scene.tif", Path(name) / "layers"
        folder.mkdir()
        write_scene(scene, arguments.side, arguments.seed)
        rng = random.Random(arguments.seed)
        request = {"window_px": arguments.window}
        if arguments.model is not None:
            request["model"] = str(arguments.model)
        outcome = campaign(scene, folder, arguments.kills, arguments.longest, rng, request)
    unbroken_s, broken_s = outcome.seconds
    print(
        f"{outcome.kills} kills ({outcome.engines} of engines); {outcome.equal} layers equal to the unbroken one, "
        f"{outcome.unequal} not; {outcome.instances} instances each; unbroken {unbroken_s:.0f} s, "
        f"all broken runs together {broken_s:.0f} s; windows kept after each kill: {outcome.kept}"
    )
    return outcome.unequal


if __name__ == "__main__":
    sys.exit(start())
