"""A program: prints how far the Triton kernels are from the loop in float64, as JSON `{case: {name: relative error}}`.

A process of its own because Triton decides when it is first imported whether it compiles or interprets.
"""

import json

import torch
from torch.nn import functional as F

from rs4d_core.ops import bidirectional_scan_triton as kernels
from rs4d_core.ops.selective_scan import selective_scan

NAMES = ("u", "projected", "dt_weight", "dt_bias", "A", "D", "z")
PARAMETERS = NAMES[2:6]
RANK = 3
# Batch, length, channels, states. In chunks of 8, blocks of 4 channels and walks of 4 chunks: less than a chunk; chunks
# and blocks that are not full, of two images; more chunks than one walk takes.
CASES = {
    "short": ((1, 5, 5, 2), torch.float32),
    "ragged": ((2, 21, 6, 2), torch.float32),
    "long": ((1, 43, 3, 2), torch.float32),
    "half": ((1, 21, 4, 2), torch.bfloat16),
}


def arguments(batch, length, channels, states):
    generator = torch.Generator().manual_seed(length)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    return [
        normal(2 * batch, length, channels),
        normal(2 * batch, length, RANK + 2 * states),
        normal(channels, RANK) / 2,
        normal(channels) - 2,
        -torch.exp(normal(channels, states)),
        normal(channels),
        normal(batch, length, channels),
    ]


def by_the_loop(u, projected, dt_weight, dt_bias, A, D, z):
    """What `bidirectional_scan` says, step after step in float64."""
    dt, B, C = projected.split([RANK, A.shape[1], A.shape[1]], dim=-1)
    scanned = selective_scan(u, F.softplus(dt @ dt_weight.T + dt_bias), A, B, C, D, implementation="reference")
    return 0.5 * (scanned[: len(z)] + scanned[len(z) :].flip(1)) * F.silu(z)


def with_gradients(function, tensors):
    y = function(*tensors)
    weights = torch.rand(y.shape, generator=torch.Generator().manual_seed(1))
    return [y, *torch.autograd.grad(y, tensors, weights.to(y))]


def errors(shape, dtype, device):
    tensors = [
        tensor.to(device, torch.float32 if name in PARAMETERS else dtype).requires_grad_()
        for name, tensor in zip(NAMES, arguments(*shape), strict=True)
    ]
    found = with_gradients(kernels.bidirectional_scan_triton, tensors)
    wanted = with_gradients(by_the_loop, [tensor.detach().double().cpu().requires_grad_() for tensor in tensors])
    named = zip(("y", *NAMES), found, wanted, strict=True)
    return {name: float((one.double().cpu() - other).abs().max() / other.abs().max()) for name, one, other in named}


if __name__ == "__main__":
    if not torch.cuda.is_available():
        # The interpreter walks through every number: few of them are to make many chunks, blocks and walks.
        kernels.CHUNK, kernels.CHANNELS, kernels._WALK = 8, 4, 4
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(json.dumps({name: errors(*case, device) for name, case in CASES.items()}))
