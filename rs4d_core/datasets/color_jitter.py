"""Random changes of colour and light, as one colour matrix and one curve: cheap enough for a training loop."""

import numpy as np
from PIL import Image

# Luma of ITU-R BT.601, what Pillow uses for "L".
_LUMA = np.array([0.299, 0.587, 0.114])
_GRAY_SHARE = 0.08
_FALSE_COLOR_SHARE = 0.08


def jitter_color(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """`image` under another light.

    Brightness, contrast, saturation, the balance of the channels and gamma vary with `strength`. A small share of
    images turns gray, as from panchromatic and radar scenes, and another gets its channels permuted, as in infrared
    composites.

    Args:
        image: RGB.
        strength: 0 leaves the image as it is; 1 varies brightness and contrast by about a third.
        rng: where the draws come from.
    """
    if strength == 0:
        return image
    brightness, contrast = rng.uniform(-45, 45) * strength, 1 + rng.uniform(-0.35, 0.35) * strength
    saturation = 1 + rng.uniform(-0.5, 0.5) * strength
    gains = 1 + rng.uniform(-0.12, 0.12, 3) * strength
    gamma = 2.0 ** (rng.uniform(-0.4, 0.4) * strength)
    kind = rng.random()
    if kind < _GRAY_SHARE * strength:
        mix = np.tile(_LUMA, (3, 1))
    else:
        mix = saturation * np.eye(3) + (1 - saturation) * np.tile(_LUMA, (3, 1))
        if kind < (_GRAY_SHARE + _FALSE_COLOR_SHARE) * strength:
            mix = mix[rng.permutation(3)]
    matrix = contrast * gains[:, None] * mix
    offset = 128 * (1 - contrast) + brightness
    rows = np.column_stack([matrix, np.full(3, offset)])
    curve = np.rint(255 * (np.arange(256) / 255) ** gamma).astype(int).tolist()
    return image.convert("RGB", tuple(rows.ravel().tolist())).point(curve * 3)
