"""Hostile input, by the hundred: mutated rasters and model files, each given to the command `rs4d` in a process.

    python tests/faults/mutations.py --rasters 200 --models 200 --seed 1

Every run has to end by itself in exit 0 or 2, in lines of its own that command no terminal, one line where it refuses,
without taking more memory than --memory, and without leaving anything but the result. Prints what was done to the
files and how the runs ended; the exit code is the number of runs that ended otherwise, 99 at most. The same seed makes
the same files: --rasters 1 --models 0 --first 37 --keep FOLDER repeats one and leaves its files.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"  # before torch is loaded: see `warm_up`
sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).resolve().parents[1] / "core")]

import mutations_models  # noqa: E402
import mutations_rasters  # noqa: E402
from mutations_run import DONE, REFUSED, Ended, command, forked, warm_up  # noqa: E402

_KINDS = {"raster": mutations_rasters, "model": mutations_models}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rasters", type=int, default=200)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--memory", type=float, default=1500, metavar="MIB", help="what a run may hold at most")
    parser.add_argument("--first", type=int, default=0, metavar="NUMBER", help="of the files of each kind")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="work here, and leave the files")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="mutations-"))
    folder.mkdir(parents=True, exist_ok=True)
    campaign = Campaign(folder, arguments.seed, arguments.memory, keep=arguments.keep is not None)
    try:
        for kind, count in (("raster", arguments.rasters), ("model", arguments.models)):
            for number in range(arguments.first, arguments.first + count):
                campaign.run(kind, number)
    finally:
        if arguments.keep is None:
            shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(campaign.to_json()))
    else:
        campaign.show()
    return min(len(campaign.faults), 99)


class Campaign:
    """Runs, and how they ended.

    Attributes:
        ends: of each kind and mutation, how often a run was done, refused or at fault.
        faults: one line each.
        peak_mib, seconds: of the run that took most.
    """

    def __init__(self, folder: Path, seed: int, most_mib: float, keep: bool) -> None:
        self.ends: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.faults: list[str] = []
        self.peak_mib = self.seconds = 0.0
        self._folder, self._seed, self._most_mib, self._keep = folder, seed, most_mib, keep
        self._seeds = {kind: self._made(kind) for kind in _KINDS}
        warm_up(self._seeds["raster"][0], self._seeds["model"][0], folder)

    def run(self, kind: str, number: int) -> None:
        """Mutate the file of this number, and give it to the command."""
        folder = self._folder / f"{kind}-{number}"
        folder.mkdir()

        def mutate() -> None:
            print(*_KINDS[kind].mutated(number, self._seeds[kind], folder, self._seed), sep="\t")

        made = forked(mutate, folder)
        if made.code != DONE:
            raise RuntimeError(f"{kind} {number} cannot be made: {made.errors}")
        name, path = made.output.strip("\n").split("\t")
        if kind == "raster":
            runs = [("segment", path, "--model", self._seeds["model"][0], "-o", "out.gpkg")]
            if name in mutations_rasters.MAY_BE_HUGE:
                runs[0] += ("--bbox", *mutations_rasters.CORNER)
        else:
            runs = [("info", path), ("segment", self._seeds["raster"][0], "--model", path, "-o", "out.gpkg")]
            runs[0] += ("--json",) * (number % 2)
        before = set(folder.iterdir())
        for run in runs:
            ended = forked(command(*run), folder)
            self._note(kind, number, name, run[0], ended, set(folder.iterdir()) - before)
        if not self._keep:
            shutil.rmtree(folder)

    def show(self) -> None:
        """A table of all."""
        print(f"{'':38} {'done':>6} {'refused':>8} {'faults':>7}")
        for kind in _KINDS:
            rows = {name: ends for (of, name), ends in self.ends.items() if of == kind}
            for name, ends in [*rows.items(), (f"all runs on a {kind}", sum(rows.values(), Counter()))]:
                print(f"{name:38} {ends['done']:6} {ends['refused']:8} {ends['fault']:7}")
        print(f"most memory {self.peak_mib:.0f} MiB, longest run {self.seconds:.1f} s")

    def to_json(self) -> dict:
        """Plain values."""
        ends = {kind: dict(sum((e for (of, _), e in self.ends.items() if of == kind), Counter())) for kind in _KINDS}
        by_mutation = {f"{kind}: {name}": dict(ends) for (kind, name), ends in self.ends.items()}
        most = {"peak_mib": self.peak_mib, "seconds": self.seconds}
        return {"ends": ends, "by_mutation": by_mutation, "faults": self.faults, **most}

    def _made(self, kind: str) -> list[Path]:
        folder = self._folder / f"{kind}-seeds"
        folder.mkdir(exist_ok=True)
        made = forked(lambda: print(*_KINDS[kind].seeds(folder), sep="\n"), folder)
        if made.code != DONE:
            raise RuntimeError(f"the seeds cannot be made: {made.errors}")
        return [Path(line) for line in made.output.splitlines()]

    def _note(self, kind: str, number: int, name: str, method: str, ended: Ended, left: set[Path]) -> None:
        self.peak_mib, self.seconds = max(self.peak_mib, ended.peak_mib), max(self.seconds, ended.seconds)
        fault = ended.fault(self._most_mib)
        expected = {"out.gpkg"} if method == "segment" and ended.code == DONE else set()
        if fault is None and {path.name for path in left} != expected:
            fault = f"leaves {', '.join(sorted(path.name for path in left)) or 'nothing'}"
        if fault is not None:
            self.faults.append(f"{kind} {number} ({name}), {method}: {' '.join(fault.split())}")
            print(f"FAULT {self.faults[-1]}", file=sys.stderr, flush=True)
        end = "fault" if fault else {DONE: "done", REFUSED: "refused"}[ended.code]
        self.ends[kind, name][end] += 1


if __name__ == "__main__":
    sys.exit(main())
