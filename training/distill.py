"""Distil an encoder from a teacher, by a recipe. Started again, the same command goes on from the last checkpoint.

    python training/distill.py training/recipes/distill-base.toml --data IMAGES --runs runs

With --ablation, it distils for every noise, mask and schedule of the recipe's [ablation], in RUNS/NAME-ablation, and
writes the figures to ablation.csv and ablation.md there.

The run folder, RUNS/NAME, holds the recipe as run, log.txt, metrics.jsonl, curve.png, maps.png, checkpoints/, and the
encoder, encoder.safetensors, which a recipe of training/finetune.py starts from (model.encoder). Several GPUs:
--set running.devices=8. Exit status: 0 done, 2 bad input, 130 interrupted with a checkpoint written.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from rs4d_core.runs.command import exit_status, run_options

if TYPE_CHECKING:
    from rs4d_core.distillation.recipe import DistillationRecipe


def _arguments() -> argparse.Namespace:
    parser = run_options(__doc__, "folders", "student")
    parser.add_argument("--ablation", action="store_true", help="distil for every noise, mask and schedule of a grid")
    return parser.parse_args()


def _ablate(arguments: argparse.Namespace, recipe: "DistillationRecipe", folder: Path) -> int:
    from rs4d_core.distillation.ablation import run_ablation
    from rs4d_core.interruption import Interruption

    command = [sys.executable, __file__, "--data", str(arguments.data)]
    folder = folder.with_name(f"{folder.name}-ablation")
    with Interruption():
        result = run_ablation(recipe, arguments.recipe, arguments.set, command, folder)
    if arguments.json:
        print(json.dumps(vars(result), default=str))
    else:
        print(result.markdown)
    return 130 if result.interrupted else 0


def _run() -> int:
    arguments = _arguments()
    # Imported after --help: torch takes seconds, and may be missing.
    from rs4d_core.distillation.loop import distil
    from rs4d_core.distillation.recipe import DistillationRecipe
    from rs4d_core.runs.tables import read_settings

    recipe = read_settings(DistillationRecipe, arguments.recipe, arguments.set)
    folder = arguments.runs / (arguments.name or recipe.student.name)
    if arguments.ablation:
        return _ablate(arguments, recipe, folder)
    result = distil(recipe, arguments.data, folder)
    if arguments.json and result.reports:
        print(json.dumps(result.to_json()))
    elif result.reports and result.encoder is not None:
        print(result.encoder)
    # Another process than the first, if it seemed to fail, would have the first one killed while it writes.
    return 130 if result.interrupted and result.reports else 0


def main() -> int:
    return exit_status(_run, "the last checkpoint, if there is one yet, is kept")


if __name__ == "__main__":
    sys.exit(main())
