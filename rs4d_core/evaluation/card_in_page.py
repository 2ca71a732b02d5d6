"""The figures of a model's card in a Markdown page, between marks, so that they can be written anew and compared.

A mark is a line `<!-- card: NAME -->`, NAME one of `TABLES`; what stands below it, up to the line
`<!-- end of card -->`, is the table.
"""

import re
from collections.abc import Callable

from rs4d_core.card_tables import Table, by_class, by_data_set, by_data_set_and_class
from rs4d_core.errors import OptionError
from rs4d_core.models.card import ModelCard

TABLES: dict[str, Callable[[ModelCard], Table]] = {
    "data sets": lambda card: by_data_set(card.metrics),
    "classes": lambda card: by_data_set_and_class(
        {name: entry for name, entry in card.metrics.items() if name != "all"}, card.classes
    ),
    "default scores": lambda card: by_class({}, card.classes, card.default_scores),
    "training data": lambda card: (
        ("data set", "licence, as its source states it"),
        [(data.get("name", "-"), data.get("licence", "-")) for data in card.training_data],
    ),
}
_MARKED = re.compile(r"(?<=<!-- card: )(.*?)( -->\n)(.*?)(?=<!-- end of card -->)", re.DOTALL)


def with_card(page: str, card: ModelCard) -> str:
    """The page with its marked tables from the card.

    Raises:
        OptionError: the page has no mark, or one of an unknown table.
    """

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        if name not in TABLES:
            raise OptionError(f'the mark "card: {name}" names no table: take one of {", ".join(TABLES)}')
        return f"{name}{found[2]}\n{_markdown(*TABLES[name](card))}\n"

    text, count = _MARKED.subn(filled, page)
    if not count:
        raise OptionError(f"it has no mark <!-- card: NAME -->, NAME being one of {', '.join(TABLES)}")
    return text


def _markdown(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |\n" for line in lines)
