"""How this very installation is added to or made anew: commands to be typed as they stand.

Nothing is ever installed by the bare name of the project: what an index has under it need not be this project.
"""

import json
import os
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import rs4d_core

# For an installation that does not tell where it came from.
_UNKNOWN = "FOLDER-WITH-THE-SOURCE-OF-RS4D"


def add_command(extra: str) -> str:
    """The command that adds one group of optional packages, as pyproject.toml names them."""
    return typed(sys.executable, "-m", "pip", "install", f"{_source()}[{extra}]")


def reinstall_command() -> str:
    """The command that makes the installation anew."""
    source = _source()
    own = Path(source) / ".venv"
    if own == Path(sys.prefix) and os.name != "nt":  # what ./run.sh made, it makes again
        return f"{typed('rm', '-r', str(own))} && {typed(str(own.with_name('run.sh')))}"
    return typed(sys.executable, "-m", "pip", "install", "--force-reinstall", source)


def typed(*command: str) -> str:
    """A command as one types it on this system."""
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)


def _source() -> str:
    """The folder or wheel that was installed."""
    beside = Path(rs4d_core.__file__).resolve().parents[1]
    if (beside / "pyproject.toml").is_file():
        return str(beside)
    try:
        origin = json.loads(metadata.distribution("rs4d").read_text("direct_url.json") or "{}")
        address = urlsplit(origin["url"])
    except (metadata.PackageNotFoundError, ValueError, KeyError):
        return _UNKNOWN
    path = Path(url2pathname(address.path))
    return str(path) if address.scheme == "file" and path.exists() else _UNKNOWN
