"""The bidirectional Mamba-1 mixer."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rs4d_core.ops.bidirectional_scan import bidirectional_scan
from rs4d_core.ops.causal_conv import bidirectional_conv_silu

CONV_KERNEL = 4


class BidirectionalMixer(nn.Module):
    """Mamba-1 (arXiv 2312.00752) on a sequence and on its reverse, with the same weights, averaged.

    `in_proj`, the gate and `out_proj` act on each token alone, and `out_proj` is linear, so they commute with reversing
    the sequence and with the mean:

        mean(mixer(x), flip(mixer(flip(x)))) = out_proj(0.5 * (s_f + flip(s_b)) * silu(z))

    with `u, z = in_proj(x)`, `s_f = scan(conv(u))` and `s_b = scan(conv(flip(u)))`. Only convolution, `x_proj`,
    `dt_proj` and scan run twice, which is where the method's ninefold saving comes from. Parameter names and shapes are
    those of transformers' `MambaMixer`.
    """

    def __init__(self, dim: int, inner_dim: int, state_dim: int, dt_rank: int) -> None:
        super().__init__()
        self.inner_dim = inner_dim
        self.state_dim = state_dim
        self.dt_rank = dt_rank
        self.in_proj = nn.Linear(dim, 2 * inner_dim, bias=False)
        self.conv1d = nn.Conv1d(inner_dim, inner_dim, CONV_KERNEL, groups=inner_dim)
        self.x_proj = nn.Linear(inner_dim, dt_rank + 2 * state_dim, bias=False)
        self.dt_proj = nn.Linear(dt_rank, inner_dim)
        self.A_log = nn.Parameter(torch.arange(1, state_dim + 1).float().log().repeat(inner_dim, 1))
        self.D = nn.Parameter(torch.ones(inner_dim))
        self.out_proj = nn.Linear(inner_dim, dim, bias=False)
        self._init_step_size()

    def _init_step_size(self, smallest: float = 1e-3, largest: float = 0.1) -> None:
        """Biases such that the initial step sizes are spread log-uniformly, as Mamba's are."""
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        steps = torch.empty_like(self.dt_proj.bias).uniform_(math.log(smallest), math.log(largest)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(steps + torch.log(-torch.expm1(-steps)))  # the inverse of softplus

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens `(B, L, d)` into `(B, L, d)`."""
        to_u, to_z = self.in_proj.weight.chunk(2)
        u, z = F.linear(x, to_u), F.linear(x, to_z)
        # Both directions are one batch of twice the size.
        u = bidirectional_conv_silu(u, self.conv1d.weight.squeeze(1), self.conv1d.bias)
        projected = self.x_proj(u)
        return self.out_proj(
            bidirectional_scan(u, projected, self.dt_proj.weight, self.dt_proj.bias, self.rates(), self.D, z)
        )

    def rates(self) -> Tensor:
        """The matrix A of the scan, `(D, N)`, negative."""
        return -torch.exp(self.A_log)
