"""Train a segmenter by a recipe. Started again, the same command goes on from the last checkpoint.

    python training/finetune.py training/recipes/tiny.toml --data DATA --runs runs

The run folder, RUNS/NAME, holds the recipe as run, log.txt, metrics.jsonl, checkpoints/, and the model files
best.safetensors and final.safetensors. Exit status: 0 done, 2 bad input, 130 interrupted with a checkpoint written.
"""

import argparse
import json
import sys
from pathlib import Path

from rs4d_core.errors import RS4DError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a TOML file; see training/recipes")
    parser.add_argument("--data", type=Path, required=True, help="the folder that the recipe's paths start from")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are (default: runs)")
    parser.add_argument("--name", help="name of the run folder (default: the model's name)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="another value for a setting of the recipe"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    try:
        from rs4d_core.finetuning.loop import train
        from rs4d_core.finetuning.recipe_file import read_recipe

        recipe = read_recipe(arguments.recipe, arguments.set)
        result = train(recipe, arguments.data, arguments.runs / (arguments.name or recipe.model.name))
    except RS4DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed; training needs: pip install -e '.[train]'", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the last checkpoint is kept", file=sys.stderr)
        return 130
    if arguments.json and result.reports:
        paths = {name: getattr(result, name) for name in ("folder", "final", "best")}
        shown = {name: None if path is None else str(path) for name, path in paths.items()}
        print(json.dumps({**shown, "step": result.step, "interrupted": result.interrupted, "metrics": result.metrics}))
    elif result.reports and result.final is not None:
        print(result.final)
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
