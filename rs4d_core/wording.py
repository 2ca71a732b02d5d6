"""How numbers and names are told to a person."""

import re
from collections.abc import Iterable

# What a terminal obeys or cannot show, and what turns the direction of writing so that a name reads as another:
# control characters, line and paragraph separators, overrides of direction, halves of surrogate pairs.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
LONGEST_NAME = 100


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 window", "4 windows". `plural` is for nouns that do not just take an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"


def visible(text: str) -> str:
    r"""A text of unknown origin, all of it to be seen: "\x1b[2J" becomes "\u001b[2J".

    Inside of a JSON text it means the same as before.
    """
    return _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def one_line(text: str) -> str:
    """A text of unknown origin on one line, all of it to be seen."""
    return visible(" ".join(text.split()))


def file_stem(name: str) -> str:
    """A name of unknown origin as the stem of a file's name, on any system: letters, digits, and _ - . inside."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:LONGEST_NAME] or "_"


def told_apart(stems: Iterable[str]) -> list[str]:
    """The same, no two alike, also where case tells no files apart: the second of a kind ends in -2, and so on."""
    names, taken = [], set()
    for stem in stems:
        name, number = stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


def is_name(value: object) -> bool:
    """Whether this is a text that can stand for a thing: on one line, neither empty nor a page long, all visible."""
    return isinstance(value, str) and 0 < len(value.strip()) <= len(value) <= LONGEST_NAME and visible(value) == value
