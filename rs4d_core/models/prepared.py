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
        self._state: tuple[Any, ...] | None = None
        self._made: tuple[Tensor, ...] = ()
        # As long as this holds the old weights' memory, no other weights can come to lie there.
        self._weights: list[Tensor] = []

    def of(self, weights: Sequence[Tensor], make: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """`make(*weights)`: the same weights and `make` at every call."""
        device = weights[0].device.type
        cast = self._for_product and torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if cast else None
        if torch.is_grad_enabled() or any(weight.is_inference() for weight in weights):
            return _cast(make(*weights), dtype)
        state = (dtype, *((weight.data_ptr(), weight._version, weight.device) for weight in weights))
        if state != self._state:
            self._made = _cast(make(*weights), dtype)
            self._weights = [weight.detach() for weight in weights]
            self._state = state
        return self._made

    def __reduce__(self) -> tuple[type["Prepared"], tuple[bool]]:
        # The weights of a copied module lie elsewhere.
        return Prepared, (self._for_product,)


def _cast(tensors: tuple[Tensor, ...], dtype: torch.dtype | None) -> tuple[Tensor, ...]:
    return tensors if dtype is None else tuple(tensor.to(dtype) for tensor in tensors)
