"""Write the figures of a model's card into the tables of Markdown pages.

    python training/describe.py docs/models.md [--model MODEL]

A table stands between the lines `<!-- card: NAME -->` and `<!-- end of card -->`; NAME is "data sets", "classes",
"default scores" or "training data". Exit status: 0 done, 2 bad input.
"""

import argparse
import sys
from pathlib import Path

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.evaluation.card_in_page import with_card
from rs4d_core.models.card import default_model_path, read_card
from rs4d_core.runs.command import exit_status
from rs4d_core.whole_file import write_whole


def _run() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+", metavar="PAGE", help="a Markdown file with such marks")
    parser.add_argument("--model", type=Path, help="a model file (default: the model that comes along)")
    arguments = parser.parse_args()
    card = read_card(arguments.model or default_model_path())
    for page in arguments.pages:
        try:
            text = page.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise OptionError(f"cannot read {page}: {error}") from error
        try:
            described = with_card(text, card)
        except OptionError as error:
            raise OptionError(f"{page}: {error}") from error
        try:
            write_whole(page, described.encode())
        except OSError as error:
            raise OutputError(f"cannot write {page}: {error}") from error
        print(page)
    return 0


def main() -> int:
    return exit_status(_run, "no page was left half written")


if __name__ == "__main__":
    sys.exit(main())
