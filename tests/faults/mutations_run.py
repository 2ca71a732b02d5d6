"""Run the command `rs4d` in processes of their own, many a minute, and see how each ends.

The libraries are loaded once; each run is a fork of that process, so a crash, a hang or a flood of memory is its own
alone. For systems with fork, such as Linux.
"""

import atexit
import io
import os
import re
import resource
import signal
import sys
import threading
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

DONE, REFUSED = 0, 2
# A run of a seed takes a second of a processor. What takes this long hangs, or this often as long by the clock of a
# machine that may have other things to do.
LIMIT_S, LIMIT_BY_CLOCK = 60, 10
# Address space, so that a flood of memory ends the run and not the machine; the libraries take 5 GiB of it.
ADDRESS_SPACE = 16 << 30
_POLL_S = 0.005

# What a terminal obeys instead of showing it, save the end of a line, and what turns the direction of writing.
_OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_PROGRESS = re.compile(r"rs4d: \d+ of \d+ windows?, ")


@dataclass(frozen=True)
class Ended:
    """How a run came to its end.

    Attributes:
        code: of the exit; the negative number of the signal that ended it; None where it was still at work.
        output, errors: what it printed.
        seconds: it took.
        peak_mib: the most memory that it held, MiB.
    """

    code: int | None
    output: str
    errors: str
    seconds: float
    peak_mib: float

    def fault(self, most_mib: float) -> str | None:
        """What is wrong with this end, in a few words; None where it is as it should be."""
        if self.code in (None, -signal.SIGXCPU):
            return f"hangs ({self.seconds:.0f} s)"
        if self.code not in (DONE, REFUSED):
            ended = f"signal {-self.code}" if self.code < 0 else f"exit {self.code}"
            return f"{ended}: {self.errors.strip()[-300:]}"
        if self.peak_mib > most_mib:
            return f"took {self.peak_mib:.0f} MiB"
        lines = [line for line in self.errors.splitlines() if not _PROGRESS.match(line)]
        if not all(line.startswith("rs4d: ") for line in lines):
            return f"said in other words than its own: {self.errors.strip()[:300]}"
        if self.code == REFUSED and (len(lines) != 1 or self.output):
            return f"refused in {len(lines)} lines: {self.errors.strip()[:300]}"
        if _OBEYED.search(self.output + self.errors):
            return f"commands to the terminal: {(self.output + self.errors)!r:.300}"
        return None


def warm_up(scene: Path, model: Path, folder: Path) -> None:
    """One run in this process, after which a fork needs a tenth of the time: all is imported and compiled.

    No thread may be left of it, for threads do not survive a fork, and what they held stays locked.
    """
    from rs4d_core import cli

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        code = cli.main(["segment", str(scene), "--model", str(model), "-o", str(folder / "warm.gpkg")])
    threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    if code != DONE or threads:
        raise RuntimeError(f"the first run ended in {code} and left the threads {threads}")


def forked(work, folder: Path, limit_s: int = LIMIT_S) -> Ended:
    """Call `work`, without arguments, in a process of its own, with `folder` to be in; its code is the exit's."""
    told = [folder.with_name(f"{folder.name}.{name}") for name in ("out", "err")]
    begun = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _become(work, folder, *told, limit_s)
    code: int | None = None
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            code = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - begun > LIMIT_BY_CLOCK * limit_s:
            os.kill(pid, signal.SIGKILL)
            usage = os.wait4(pid, 0)[2]
            break
        time.sleep(_POLL_S)
    seconds = time.monotonic() - begun
    output, errors = (path.read_text(encoding="utf-8", errors="surrogateescape") for path in told)
    for path in told:
        path.unlink()
    return Ended(code, output, errors, seconds, usage.ru_maxrss / 1024)


def command(*arguments: object):
    """The command `rs4d` with its arguments, for `forked`."""

    def run() -> None:
        from rs4d_core import cli

        sys.argv = ["rs4d", *map(str, arguments)]
        cli.command()

    return run


def _become(work, folder: Path, out: Path, err: Path, limit_s: int) -> None:
    """The life of a fork, which never returns to what its parent was at."""
    code = 70
    try:
        os.chdir(folder)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        for number, path in ((1, out), (2, err)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        used_s = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used_s + limit_s, used_s + 2 * limit_s))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            work()
            code = DONE
        except SystemExit as stop:
            code = int(stop.code or DONE)
        except BaseException:
            traceback.print_exc()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)
