"""Which arithmetic a run uses."""

import json
from pathlib import Path

import torch

from rs4d_core.device import fast_dtype
from rs4d_core.whole_file import write_whole


def resolve_precision(requested: str, device: str, record: Path) -> str:
    """ "32" or "bf16". What "auto" came to is kept in the file `record`, so that a resumed run, and every process of a
    run, computes alike."""
    if requested != "auto":
        return requested
    if not record.exists():
        chosen = "bf16" if fast_dtype(device) == torch.bfloat16 else "32"
        write_whole(record, json.dumps({"precision": chosen}).encode())
    return json.loads(record.read_text(encoding="utf-8"))["precision"]
