"""What a module's weights are turned into before they are used."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class Prepared:
    """Keeps what was made of some weights while they stay the same: from one predicted image to the next.

    Rounding weights to bfloat16 and laying them out for a product takes as long as the product of a small window. It
    is done anew where gradients are wanted, where the weights have changed or moved, and for another precision.

    Args:
        for_product: they are wanted in the dtype that autocast gives to products; else in their own.
    """

    def __init__(self, for_product: bool = True) -> None:
        self._for_product = for_product
        # State, weights and what was made of them, set as one: several threads may predict at once. As long as the old
        # weights' memory is held, no other weights can come to lie there.
        self._kept: tuple[tuple[Any, ...], list[Tensor], tuple[Tensor, ...]] | None = None

    def of(self, weights: Sequence[Tensor], make: Callable[..., tuple[Tensor, ...]], *how: Any) -> tuple[Tensor, ...]:
        """`make(*weights, *how)`: the same weights and `make` at every call; for another `how` it is made anew."""
        device = weights[0].device.type
        cast = self._for_product and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else None
        if torch.is_grad_enabled() or any(weight.is_inference() for weight in weights):
            return _cast(make(*weights, *how), dtype)
        state = (dtype, how, *((weight.data_ptr(), weight._version, weight.device) for weight in weights))
        kept = self._kept
        if kept is None or kept[0] != state:
            made = _cast(make(*weights, *how), dtype)
            self._kept = kept = (state, [weight.detach() for weight in weights], made)
        return kept[2]

    def __reduce__(self) -> tuple[type["Prepared"], tuple[bool]]:
        # The weights of a copied module lie elsewhere.
        return Prepared, (self._for_product,)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype | None) -> tuple[Tensor, ...]:
    return tensors if dtype is None else tuple(tensor.to(dtype) for tensor in tensors)
