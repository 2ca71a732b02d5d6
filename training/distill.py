"""Distil an encoder from a teacher, by a recipe. Started again, the same command goes on from the last checkpoint.

    python training/distill.py training/recipes/distill-base.toml --data IMAGES --runs runs

The run folder, RUNS/NAME, holds the recipe as run, log.txt, metrics.jsonl, curve.png, maps.png, checkpoints/, and the
encoder, encoder.safetensors, which a recipe of training/finetune.py starts from (model.encoder). Several GPUs:
--set running.devices=8. Exit status: 0 done, 2 bad input, 130 interrupted with a checkpoint written.
"""

import argparse
import json
import sys
from pathlib import Path

from rs4d_core.errors import RS4DError


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a TOML file; see training/recipes")
    parser.add_argument("--data", type=Path, required=True, help="the folder that the recipe's folders start from")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are (default: runs)")
    parser.add_argument("--name", help="name of the run folder (default: the student's name)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="another value for a setting of the recipe"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    try:
        from rs4d_core.distillation.loop import distil
        from rs4d_core.distillation.recipe import read_distillation_recipe

        recipe = read_distillation_recipe(arguments.recipe, arguments.set)
        result = distil(recipe, arguments.data, arguments.runs / (arguments.name or recipe.student.name))
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
        shown = {name: str(value) if isinstance(value, Path) else value for name, value in vars(result).items()}
        shown.pop("reports")
        print(json.dumps(shown))
    elif result.reports and result.encoder is not None:
        print(result.encoder)
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    sys.exit(main())
