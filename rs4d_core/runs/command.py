"""What the training scripts share as commands: the options of a run by recipe, and what errors come to."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from rs4d_core.errors import RS4DError


def run_options(description: str, paths: str, named_after: str) -> argparse.ArgumentParser:
    """The options `recipe`, `--data`, `--runs`, `--name`, `--set` and `--json`.

    Args:
        description: of the command, shown as it stands.
        paths: what in the recipe starts from the data folder.
        named_after: whose name the run folder has by default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path, help="a TOML file; see training/recipes")
    parser.add_argument("--data", type=Path, required=True, help=f"the folder that the recipe's {paths} start from")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders are (default: runs)")
    parser.add_argument("--name", help=f"name of the run folder (default: the {named_after}'s name)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="A.B=C", help="another value for a setting of the recipe"
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return parser


def exit_status(run: Callable[[], int], interrupted: str) -> int:
    """What `run` returns; 2 after one line for bad input or a missing package; 130 where it was interrupted, after a
    line that says what became of the work."""
    try:
        with warnings.catch_warnings():
            # What libraries warn of is meant for developers; users get this program's own notes.
            warnings.simplefilter("ignore")
            return run()
    except RS4DError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        print(f"error: {error.name} is not installed; training needs: pip install -e '.[train]'", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of stdout has gone, as `head` does. Python would complain about it once more on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print(f"interrupted: {interrupted}", file=sys.stderr)
        return 130
