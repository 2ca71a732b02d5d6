"""One process at a time on a file or folder that is being written over minutes or days."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from rs4d_core.errors import BusyError, OutputError


@contextmanager
def sole_use(lock: Path, busy: str) -> Iterator[None]:
    """Hold the lock file `lock`, in a folder that exists, while the context is open.

    The operating system takes the lock back when the process ends, however it ends: a file that is left over locks
    nothing. The file stays, as removing it would let two processes hold a lock of the same name.

    Args:
        busy: what to tell where another holds it: what is in use, and what to do.

    Raises:
        BusyError: another process, or another part of this one, holds it.
        OutputError: the lock file cannot be made.
    """
    held = FileLock(lock, blocking=False)
    try:
        held.acquire()
    except Timeout:
        raise BusyError(busy) from None
    except (OSError, NotImplementedError) as error:
        raise OutputError(f"cannot make the lock {lock} ({error}): give a place that can be written") from error
    try:
        yield
    finally:
        held.release()
