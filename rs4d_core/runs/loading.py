"""Batches of numbered views: what makes up a step depends on its number, and not on where or how a run started."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from rs4d_core.runs.settings import Optimization


def load_numbered(
    views: Dataset, settings: Optimization, first_step: int, workers: int, rank: int = 0, ranks: int = 1
) -> Iterator[list[Any]]:
    """Lists of views from step `first_step` to the end of the run. View `i` of step `s` has the number `s * batch + i`.

    Of several processes, each gets its part of every batch: which views make up a step does not depend on their number.

    Args:
        views: gives a view for its number. With workers, views go through a pipe: arrays rather than tensors, which
            would go through shared memory, of which containers often have less than a batch of images needs.
        workers: processes that load; 0 loads in this one.
    """
    share = settings.batch // ranks
    firsts = (step * settings.batch + rank * share for step in range(first_step, settings.steps))
    loader = DataLoader(
        views,
        batch_sampler=[range(first, first + share) for first in firsts],
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=_prepare_worker,
        # Forking a process whose OpenMP threads run can hang it.
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=2 if workers else None,
    )
    before = multiprocessing.active_children()
    batches = iter(loader)
    started = [process for process in multiprocessing.active_children() if process not in before]
    try:
        yield from batches
    finally:
        # At once, and for certain: an error that is still looked at holds on to the iterator, and what Python ends its
        # processes with at its own end they ignore.
        if started:
            batches._shutdown_workers()
        for process in started:
            process.kill()


def _prepare_worker(_: int) -> None:
    warnings.simplefilter("ignore")  # as in the training process: see `runs.command.exit_status`
    torch.set_num_threads(1)
    # Ctrl-C reaches every process of a terminal, and a service's end every process of the service; but the training
    # process still needs its workers then. It ends them itself.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # A training process that is killed cannot end them. Torch's own watch then waits for views to be written that
    # nobody reads any more.
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
