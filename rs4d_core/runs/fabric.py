"""The devices of a run, through Lightning Fabric."""

import json
import logging
import os
import threading
import time
from datetime import timedelta
from pathlib import Path

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.utilities.rank_zero import rank_zero_only

from rs4d_core.device import choose_device, fast_dtype
from rs4d_core.errors import OptionError
from rs4d_core.runs.settings import Optimization, Running
from rs4d_core.whole_file import write_whole

_FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}
_LONGEST_WAIT = timedelta(days=7)
"""For each other. All wait while the first process measures, and torch's own half an hour is soon over then."""


def open_fabric(running: Running, settings: Optimization, folder: Path, unused_parameters: bool) -> tuple[Fabric, str]:
    """The launched devices of the run in `folder`, and the precision they compute in: "32" or "bf16".

    Args:
        unused_parameters: whether a batch may leave parameters without a gradient.

    Raises:
        OptionError: there is no such device, or there are not so many; or the processes differ in their precision.
    """
    # It names the precision, and draws a box where it starts processes: the run's own log says what there is to know.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    device = choose_device(running.accelerator).name
    if device != "cpu" and running.devices > torch.cuda.device_count():
        raise OptionError(f"running.devices is {running.devices}, but CUDA GPUs found: {torch.cuda.device_count()}")
    precision = resolve_precision(settings.precision, device, folder / "precision.json")
    fabric = Fabric(
        accelerator=device.split(":")[0],
        devices=running.devices,
        strategy=DDPStrategy(find_unused_parameters=unused_parameters, timeout=_LONGEST_WAIT)
        if running.devices > 1
        else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    if running.threads is not None:
        torch.set_num_threads(running.threads)  # here, as launching sets them too
    if fabric.broadcast(precision) != precision:
        raise OptionError('the processes found different precisions: set optimization.precision to "32" or "bf16"')
    if fabric.local_rank:
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    return fabric, precision


def _end_with(parent: int) -> None:
    """End this process soon after its parent: what it waits for from the others might not come for `_LONGEST_WAIT`."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def resolve_precision(requested: str, device: str, record: Path) -> str:
    """ "32" or "bf16". What "auto" came to is kept by the first process in the file `record`, so that a resumed run and
    every process that it starts compute alike."""
    if requested != "auto":
        return requested
    try:
        return json.loads(record.read_text(encoding="utf-8"))["precision"]
    except FileNotFoundError:
        chosen = "bf16" if fast_dtype(device) == torch.bfloat16 else "32"
        if not rank_zero_only.rank:
            write_whole(record, json.dumps({"precision": chosen}).encode())
        return chosen
