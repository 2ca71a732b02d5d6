"""What is done to the student's view of an image. The teacher always sees the clean one.

The method is published as a pair of percentages, noise and mask, without definitions; these are ours.

Noise of p percent: Gaussian noise with a standard deviation of p / 100 is added to the normalised image, whose own is
about 1. 20 percent are some 12 of 255 grey levels.

Mask of p percent: the pixels of p percent of the image's tokens, patches of 16 x 16, become 0 in the normalised image,
its mean. With the paper's stem, one convolution over a patch without a bias, a hidden token is then exactly its
position embedding. Only tokens that show something count and are hidden: no padding, no ground without data.

Adaptive: both percentages are multiplied by a level from 0 to 1 (`Difficulty`) that rises as the running loss falls.

Learned masking: which tokens are hidden is drawn without replacement with weights exp(-e / mean e), where e is the
token's running error (`TokenErrors`) and the mean is over the image: the better reconstructed, the likelier hidden.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rs4d_core.models.encoder import PATCH

_START_STEPS = 10
_LOSS_DECAY = 0.98
_ERROR_DECAY = 0.5
_ERROR_GRID = 16


@dataclass
class Difficulty:
    """How far the adaptive schedule has come, by the running loss. The state is what it has seen.

    Attributes:
        start: mean loss of the first 10 steps.
        running: exponential mean of the losses since then, over some 50 steps.
        steps: losses seen.
    """

    start: float = 0.0
    running: float = 0.0
    steps: int = 0

    def learn(self, loss: float) -> None:
        """Take in a step's loss."""
        self.steps += 1
        if self.steps <= _START_STEPS:
            self.start += (loss - self.start) / self.steps
            self.running = self.start
        else:
            self.running = _LOSS_DECAY * self.running + (1 - _LOSS_DECAY) * loss

    def level(self, full_at: float) -> float:
        """0 at the start, 1 once the running loss is `full_at` of its start or less, linear between."""
        if self.steps < _START_STEPS or self.start <= 0:
            return 0.0
        return min(max((1 - self.running / self.start) / (1 - full_at), 0.0), 1.0)


def add_noise(images: Tensor, percent: float, generators: list[torch.Generator]) -> Tensor:
    """Normalised images `(B, 3, H, W)` with noise, each from its own generator."""
    if not percent:
        return images
    noise = [torch.randn(images.shape[1:], generator=own, device=images.device) for own in generators]
    return images + percent / 100 * torch.stack(noise)


def choose_hidden(shown: Tensor, percent: float, errors: Tensor | None, generators: list[torch.Generator]) -> Tensor:
    """Which tokens are hidden: `(B, h, w)` bool, exactly the rounded share of each image's shown tokens.

    Args:
        shown: `(B, h, w)` bool, the tokens that count.
        errors: running errors of the tokens, `(B, h, w)`, NaN where none is known yet; None hides uniformly.
    """
    hidden = torch.zeros_like(shown)
    for index, generator in enumerate(generators):
        own = shown[index]
        count = round(percent / 100 * int(own.sum()))
        if not count:
            continue
        # The largest sums of log-weight and Gumbel noise are a draw without replacement by these weights.
        uniform = torch.rand(own.shape, generator=generator, device=shown.device)
        keys = -torch.log(-torch.log(uniform.clamp(1e-9, 1 - 1e-7)))
        if errors is not None and not bool(errors[index].isnan().any()):
            mean = errors[index][own].mean()
            keys = keys - errors[index] / mean.clamp(min=1e-12)
        chosen = keys.masked_fill(~own, -torch.inf).flatten().topk(count).indices
        hidden[index].view(-1)[chosen] = True
    return hidden


def hide_tokens(images: Tensor, hidden: Tensor) -> Tensor:
    """Normalised images `(B, 3, H, W)` with 0 in the patches of the hidden tokens `(B, H/16, W/16)`."""
    pixels = hidden.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
    return images.masked_fill(pixels[:, None], 0.0)


class TokenErrors:
    """The running error of every view's tokens, half from its last visit and half from those before.

    Kept on a grid of at most 16 x 16 cells a view, in float16: 512 bytes. Views of up to 256 pixels have a cell a
    token, those of 1024 pixels one for 4 x 4 tokens.

    Attributes:
        grid: `(views, g, g)` float16 on the CPU; NaN for views not seen yet.
    """

    def __init__(self, views: int, tokens: int, grid: Tensor | None = None) -> None:
        """For `views` views of `tokens` x `tokens`; `grid` of a checkpoint."""
        side = min(tokens, _ERROR_GRID)
        self.grid = torch.full((views, side, side), torch.nan, dtype=torch.float16) if grid is None else grid

    def of(self, views: list[int], height: int, width: int) -> Tensor:
        """The errors of the tokens of some views: `(B, height, width)` float32, on the CPU."""
        return F.interpolate(self.grid[views].float()[:, None], (height, width), mode="nearest")[:, 0]

    def coarse(self, errors: Tensor) -> Tensor:
        """Errors of tokens `(B, h, w)` on the grid `(B, g, g)`."""
        return F.adaptive_avg_pool2d(errors.float()[:, None], tuple(self.grid.shape[1:]))[:, 0]

    def learn(self, views: list[int], coarse: Tensor) -> None:
        """Take in the errors of some views, one after the other, on the grid `(B, g, g)`."""
        for view, new in zip(views, coarse.cpu(), strict=True):
            old = self.grid[view].float()
            mixed = torch.where(old.isnan(), new, _ERROR_DECAY * old + (1 - _ERROR_DECAY) * new)
            self.grid[view] = mixed.to(torch.float16)
