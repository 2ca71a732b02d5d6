"""How a device may be named, which is told without torch."""

import re

from rs4d_core.errors import OptionError


def check_device_name(name: str) -> None:
    """Raises OptionError for all but "auto", "cpu", "cuda" and "cuda:N". Whether there is such a GPU, torch tells."""
    if not re.fullmatch("auto|cpu|cuda(:[0-9]{1,9})?", name):
        raise OptionError(f"unknown device {name!r:.100}: use auto, cpu, cuda or cuda:N")
