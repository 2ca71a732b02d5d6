"""The Dask cluster of a run: one on this machine that lives as long as the run, or one that somebody else runs."""

import logging
import os
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rs4d_core
from rs4d_core.errors import ClusterError, DependencyError, OptionError, RS4DError
from rs4d_core.installation import add_command
from rs4d_core.scenes.cluster import dask_worker
from rs4d_core.sole_use import sole_use
from rs4d_core.wording import counted, one_line

if TYPE_CHECKING:
    from distributed import Client

CONNECT_S = 8
_LOCAL, _TLS = "local:", "tls://"
_LOOPBACK = "127.0.0.1"
_FOLDER, _LOCK = "rs4d-cluster-", "lock"


@dataclass(frozen=True)
class Cluster:
    """Workers that have this version of rs4d.

    Attributes:
        client: connected to their scheduler.
        asked_for: as on the command line: "local:2", "tcp://host:8786".
        wanted_device: what the workers are told: "auto", "cpu", "cuda" or "cuda:N".
        devices: where they compute, as torch names it; one for each worker that was there at the start.
        dtypes: in which types, likewise.
    """

    client: "Client"
    asked_for: str
    wanted_device: str
    devices: tuple[str, ...]
    dtypes: tuple[str, ...]

    @property
    def device(self) -> str:
        """The kinds of devices, in words: "cpu", or "cpu, cuda:0"."""
        return ", ".join(sorted(set(self.devices)))

    @property
    def description(self) -> str:
        """Who predicts, in words."""
        return f"{counted(len(self.devices), 'worker')} of {self.asked_for}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of them."""
        if len(set(self.dtypes)) == 1:
            return ()
        kinds = ", ".join(f"{count} in {dtype}" for dtype, count in sorted(Counter(self.dtypes).items()))
        return (f"workers compute in different precisions ({kinds}): another run may differ in the last digits",)


def check_where(where: str) -> None:
    """Raises OptionError for what is neither local:N nor the address of a scheduler."""
    if where.startswith(_LOCAL):
        _local_workers(where)
    elif "://" not in where:
        raise OptionError(f"cluster {where!r}: give tcp://HOST:PORT of a Dask scheduler, or local:N for N processes")


@contextmanager
def open_cluster(where: str, device: str) -> Iterator[Cluster]:
    """Starts N worker processes for "local:N", which end with the context and with this process, or connects.

    Raises:
        OptionError: `where` is neither, or a worker does not have the device.
        DependencyError: Dask is not installed.
        ClusterError: nobody answers, there are no workers, or a worker has no rs4d, or another.
    """
    check_where(where)
    try:
        import dask
        import distributed
    except ImportError as error:
        raise DependencyError(f"--cluster needs Dask, which is not installed: {add_command('cluster')}") from error
    # What it logs is for those who run a cluster. Users get errors of this program.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if where.startswith(_TLS) and distributed.Security().get_connection_args("client")["ssl_context"] is None:
        raise ClusterError(
            f"{where} asks for certificates, and Dask's configuration has none: set distributed.comm.tls.ca-file, "
            "client.cert and client.key there, or DASK_DISTRIBUTED__COMM__TLS__CA_FILE, ...__CLIENT__CERT and "
            "...__CLIENT__KEY in the environment"
        )
    with dask.config.set(_CONFIG), _scheduler(where) as scheduler:
        try:
            client = distributed.Client(scheduler, timeout=CONNECT_S, set_as_default=False)
        except Exception as error:  # a wrong address, name or certificate, or something else that listens there
            raise ClusterError(
                f"no Dask scheduler answers at {where} ({one_line(str(error)) or type(error).__name__}): check the "
                "address, and that it is running"
            ) from error
        with client:
            yield _introduced(client, where, device)


# The job carries the model's file. Dask advises against large tasks, and it is one for the whole run.
_CONFIG = {"distributed.admin.large-graph-warning-threshold": "1 TB"}
# A worker that was killed has this long to be there again: it imports torch anew.
_LOCAL_CONFIG = {
    "distributed.deploy.lost-worker-timeout": "5 minutes",
    # Nothing that Dask holds for us is large. The memory of a prediction cannot be written to a disk.
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    # What watches the workers is for the dashboard, and takes time from the processors that they compute on.
    "distributed.worker.profile.enabled": False,
    "distributed.admin.system-monitor.gil.enabled": False,
}


@contextmanager
def _scheduler(where: str) -> Iterator[Any]:
    """What a client connects to."""
    if not where.startswith(_LOCAL):
        yield where
        return
    import dask
    from distributed import Nanny, Scheduler
    from distributed.deploy.spec import SpecCluster
    from distributed.system import MEMORY_LIMIT

    count = _local_workers(where)
    # Nothing listens beyond this machine, and there is no dashboard.
    listen = {"host": _LOOPBACK, "protocol": "tcp://", "dashboard": False}
    with workers_folder() as folder, dask.config.set(_LOCAL_CONFIG):
        each = {
            **listen,
            "nthreads": _local_threads(count),
            "memory_limit": MEMORY_LIMIT // count,
            "local_directory": folder,
            "silence_logs": logging.CRITICAL,
            "preload": [dask_worker.__name__],
        }
        workers = {
            number: {"cls": Nanny, "options": {**each, "env": environment}}
            for number, environment in enumerate(_environments(count))
        }
        scheduler = {"cls": Scheduler, "options": {**listen, "port": 0}}
        cluster = SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL)
        try:
            yield cluster
        finally:
            # Asked to close, a worker would first finish the windows that it has in hand.
            for nanny in list(cluster.workers.values()):
                nanny.auto_restart = False
                if nanny.pid is not None:
                    with suppress(ProcessLookupError):
                        os.kill(nanny.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
            cluster.close()


@contextmanager
def workers_folder() -> Iterator[str]:
    """A temporary folder for what workers keep. Those of processes that were killed are removed first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        lock = left / _LOCK
        with suppress(OSError, RS4DError):  # it is in use, or another user's
            if lock.exists():
                with sole_use(lock, f"{left} is in use"):
                    shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_FOLDER) as folder, sole_use(Path(folder) / _LOCK, f"{folder} is in use"):
        yield folder


def _local_workers(where: str) -> int:
    text = where.removeprefix(_LOCAL)
    most = os.cpu_count() or 1
    if not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= most:
        raise OptionError(f"cluster {where!r}: give local:1 to local:{most}, processes on this machine")
    return int(text)


def _local_threads(workers: int) -> int:
    """The threads that a run without a cluster would take, shared out."""
    import torch

    return max(1, torch.get_num_threads() // workers)


def _environments(workers: int) -> list[dict[str, str]]:
    """For each worker: on a machine with several GPUs each sees its own."""
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if gpus < 2:
        return [{}] * workers
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
    return [{"CUDA_VISIBLE_DEVICES": visible[number % gpus]} for number in range(workers)]


def _introduced(client: "Client", where: str, device: str) -> Cluster:
    """Asks all workers who they are."""
    answers = client.run(dask_worker.introduce, device, on_error="return")
    if not answers:
        raise ClusterError(f"the cluster at {where} has no workers: start some, then run this again")
    for address, answer in sorted(answers.items()):
        if isinstance(answer, RS4DError):
            raise OptionError(f"worker {address}: {answer}") from answer
        if isinstance(answer, BaseException):
            raise ClusterError(
                f"worker {address} cannot run rs4d {rs4d_core.__version__} ({type(answer).__name__}: "
                f"{one_line(str(answer))}): install it there"
            ) from answer
        if answer["rs4d"] != rs4d_core.__version__:
            raise ClusterError(
                f"worker {address} (on {answer['host']}) has rs4d {answer['rs4d']}, and this is "
                f"{rs4d_core.__version__}: install the same version on both"
            )
    found = list(answers.values())
    return Cluster(
        client,
        where,
        device,
        tuple(answer["device"] for answer in found),
        tuple(answer["dtype"] for answer in found),
    )
