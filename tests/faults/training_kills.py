"""Kill training runs at random steps, and see that each goes on as if nothing had been.

    python tests/faults/training_kills.py --kills 10 --steps 60 --seed 1

A distillation and a fine-tuning are done whole; then the same is killed by SIGKILL so many times, at steps drawn at
random and sometimes within a step, and started again each time. All losses and figures of the log, and the file that
the run is for, have to be those of the unbroken run, to the bit. Prints what came of it; the exit code is the number
of kinds of runs that did not.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "core"))

from small_runs import metrics_of, start, steps_of, wait_for_steps, write_distillation, write_finetuning

_LONGEST_WAIT_S = 0.3
"""After the log has told of a step: into the middle of another, of a measurement or of a checkpoint."""


@dataclass(frozen=True)
class Kind:
    """A kind of run: its script, what writes its recipe and images, the run folder's name, and what comes out."""

    script: str
    write: Callable[[Path], Path]
    name: str
    result: str


KINDS = (
    Kind("distill", write_distillation, "pupil", "encoder.safetensors"),
    Kind("finetune", write_finetuning, "squares", "final.safetensors"),
)


def is_as_unbroken(kind: Kind, kills: int, steps: int, rng: random.Random, folder: Path) -> bool:
    """Whether a run of `steps` steps that is killed `kills` times leaves what an unbroken one does."""
    data = folder / "data"
    data.mkdir(parents=True)
    recipe = kind.write(data)
    settings = "--set", f"optimization.steps={steps}", "--set", "running.checkpoint_steps=5"
    whole, broken = folder / "whole", folder / "broken"
    _finish(start(kind.script, recipe, data, whole, *settings))
    killed_at = []
    for at in sorted(rng.sample(range(1, steps), kills)):
        # At least a step further than the one before came: what that has logged beyond its checkpoint still stands.
        further = min(max(at, len(steps_of(broken / kind.name)) + 1), steps)
        run = start(kind.script, recipe, data, broken, *settings)
        wait_for_steps(run, broken / kind.name, further)
        time.sleep(rng.uniform(0, _LONGEST_WAIT_S))
        run.kill()
        run.communicate()
        killed_at.append(len(steps_of(broken / kind.name)))
    _finish(start(kind.script, recipe, data, broken, *settings))
    equal_logs = metrics_of(broken / kind.name) == metrics_of(whole / kind.name)
    files = [(runs / kind.name / kind.result).read_bytes() for runs in (whole, broken)]
    equal_results = files[0] == files[1]
    same = {"log": equal_logs, kind.result: equal_results}
    said = [f"{what} {'the same' if equal else 'ANOTHER'}" for what, equal in same.items()]
    print(f"{kind.script}: {steps} steps, killed after {', '.join(map(str, killed_at))}: {', '.join(said)}", flush=True)
    return equal_logs and equal_results


def _finish(run: subprocess.Popen) -> None:
    errors = run.communicate()[1]
    if run.returncode:
        raise SystemExit(f"a run that nobody killed ended with {run.returncode}: {errors}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of each run (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="of each run (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=1, help="of the steps that runs are killed at (default: %(default)s)"
    )
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        good = [
            is_as_unbroken(kind, arguments.kills, arguments.steps, rng, Path(folder) / kind.script) for kind in KINDS
        ]
    return good.count(False)


if __name__ == "__main__":
    sys.exit(main())
