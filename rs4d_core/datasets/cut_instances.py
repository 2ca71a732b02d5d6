"""Which rest of an instance, cut by the edge of an image, can still be told for what it is."""

# Less than this many pixels cannot be learned from.
_LEAST_PIXELS = 32
# Nor can a small rest of a cut instance. A rest above the second figure shows enough of a roof or a field to be told,
# and must be: windows of a scene cut large objects, and their fragments are joined later.
_LEAST_SHARE = 0.2
_ENOUGH_PIXELS = 400


def shows_enough(pixels: float, whole: float) -> bool:
    """Whether an instance of `whole` pixels can be told from the `pixels` of it that an image shows. Where it cannot,
    the place is one to ignore, neither instance nor background."""
    return pixels >= _LEAST_PIXELS and (pixels >= _LEAST_SHARE * whole or pixels >= _ENOUGH_PIXELS)
