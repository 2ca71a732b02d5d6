"""Train a segmenter by a recipe. Started again, the same command goes on from the last checkpoint.

    python training/finetune.py training/recipes/tiny.toml --data DATA --runs runs

The run folder, RUNS/NAME, holds the recipe as run, log.txt, metrics.jsonl, checkpoints/, and the model files
best.safetensors and final.safetensors. Exit status: 0 done, 2 bad input, 130 interrupted with a checkpoint written.
"""

import json
import sys

from rs4d_core.runs.command import exit_status, run_options


def _run() -> int:
    arguments = run_options(__doc__, "paths", "model").parse_args()
    # Imported after --help: torch takes seconds, and may be missing.
    from rs4d_core.finetuning.loop import train
    from rs4d_core.finetuning.recipe import Recipe
    from rs4d_core.runs.tables import read_settings

    recipe = read_settings(Recipe, arguments.recipe, arguments.set)
    result = train(recipe, arguments.data, arguments.runs / (arguments.name or recipe.model.name))
    if arguments.json and result.reports:
        paths = {name: getattr(result, name) for name in ("folder", "final", "best")}
        shown = {name: None if path is None else str(path) for name, path in paths.items()}
        print(json.dumps({**shown, "step": result.step, "interrupted": result.interrupted, "metrics": result.metrics}))
    elif result.reports and result.final is not None:
        print(result.final)
    # Another process than the first, if it seemed to fail, would have the first one killed while it writes.
    return 130 if result.interrupted and result.reports else 0


def main() -> int:
    return exit_status(_run, "the last checkpoint, if there is one yet, is kept")


if __name__ == "__main__":
    sys.exit(main())
