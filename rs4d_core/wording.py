"""How numbers are told to a person."""


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """A number with its noun: "1 window", "4 windows". `plural` is for nouns that do not just take an s."""
    return f"{count} {noun if count == 1 else plural or f'{noun}s'}"
