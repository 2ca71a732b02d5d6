"""The devices of a run, through Lightning Fabric."""

import json
import logging
from pathlib import Path

import torch
from lightning_fabric import Fabric

from rs4d_core.device import choose_device, fast_dtype
from rs4d_core.runs.settings import Optimization, Running
from rs4d_core.whole_file import write_whole

_FABRIC_PRECISION = {"32": "32-true", "bf16": "bf16-mixed"}


def open_fabric(running: Running, settings: Optimization, folder: Path, unused_parameters: bool) -> tuple[Fabric, str]:
    """The launched devices of the run in `folder`, and the precision they compute in: "32" or "bf16".

    Args:
        unused_parameters: whether a batch may leave parameters without a gradient.

    Raises:
        OptionError: there is no such device.
    """
    # It names the precision, and draws a box where it starts processes: the run's own log says what there is to know.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if running.threads is not None:
        torch.set_num_threads(running.threads)
    device = choose_device(running.accelerator).name
    precision = resolve_precision(settings.precision, device, folder / "precision.json")
    ddp = "ddp_find_unused_parameters_true" if unused_parameters else "ddp"
    fabric = Fabric(
        accelerator=device.split(":")[0],
        devices=running.devices,
        strategy=ddp if running.devices > 1 else "auto",
        precision=_FABRIC_PRECISION[precision],
    )
    fabric.launch()
    return fabric, precision


def resolve_precision(requested: str, device: str, record: Path) -> str:
    """ "32" or "bf16". What "auto" came to is kept in the file `record`, so that a resumed run, and every process of a
    run, computes alike."""
    if requested != "auto":
        return requested
    if not record.exists():
        chosen = "bf16" if fast_dtype(device) == torch.bfloat16 else "32"
        write_whole(record, json.dumps({"precision": chosen}).encode())
    return json.loads(record.read_text(encoding="utf-8"))["precision"]
