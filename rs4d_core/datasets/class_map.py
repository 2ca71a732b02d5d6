"""What the classes of a file are called elsewhere, as a command line says it."""

from rs4d_core.errors import OptionError


def read_class_map(option: str, text: str) -> dict[str, str]:
    """The names of "A=B,C=D", which calls A B and C D. Raises OptionError, which names the `option`."""
    pairs = [entry.partition("=") for entry in text.split(",") if entry]
    for name, equals, target in pairs:
        if not (name and equals and target):
            raise OptionError(f'{option} "{text}" is not of the form A=B,C=D')
    return {name.strip(): target.strip() for name, _, target in pairs}
