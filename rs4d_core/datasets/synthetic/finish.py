"""From flat colours to an aerial photograph: texture, light, haze, optics, sensor."""

import numpy as np
from PIL import Image, ImageFilter

from rs4d_core.datasets.synthetic.noise import fractal_noise, smooth_noise


def base_ground(rng: np.random.Generator, width: int, height: int, resolution_m: float) -> np.ndarray:
    """`(height, width, 4)` uint8: soil and grass in patches, with their roughness."""
    blend = fractal_noise(rng, width, height, (12 / resolution_m, 60 / resolution_m))
    blend = 1 / (1 + np.exp(-2 * blend - np.float32(rng.normal(0, 1))))
    grass = np.array([100, 112, 70]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
    soil = np.array([150, 134, 106]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
    ground = np.empty((height, width, 4), np.uint8)
    for band in range(3):
        ground[..., band] = (soil[band] + blend * np.float32(grass[band] - soil[band])).clip(0, 255)
    ground[..., 3] = 75
    return ground


def photograph(rng: np.random.Generator, drawn: np.ndarray, resolution_m: float) -> np.ndarray:
    """The picture that a camera takes of what was drawn.

    Args:
        rng: decides texture, light and camera.
        drawn: `(H, W, 4)` uint8, colours and roughness.
        resolution_m: metres a pixel; textures keep their size on the ground.

    Returns:
        `(H, W, 3)` uint8.
    """
    height, width = drawn.shape[:2]
    roughness = drawn[..., 3] * np.float32(1 / 255)
    grain = rng.standard_normal((height, width), np.float32)
    fine = grain + 0.9 * smooth_noise(rng, width, height, max(1.5, 1.2 / resolution_m))
    coarse = fractal_noise(rng, width, height, (max(2.0, 3 / resolution_m), 15 / resolution_m))
    shade = roughness * (0.14 * fine + rng.uniform(0.15, 0.3) * coarse)
    shade += 1 + rng.uniform(0, 0.05) * smooth_noise(rng, width, height, 70 / resolution_m)
    # Vegetation and soil vary in hue, not only in light.
    hue = roughness * smooth_noise(rng, width, height, 8 / resolution_m)
    matrix, offset = _camera(rng)
    color = np.stack(
        [drawn[..., 0] * (shade + 0.08 * hue), drawn[..., 1] * shade, drawn[..., 2] * (shade - 0.06 * hue)]
    )
    color = (matrix @ color.reshape(3, -1) + offset[:, None]).reshape(3, height, width)
    image = Image.fromarray(color.clip(0, 255).astype(np.uint8).transpose(1, 2, 0).copy())
    blur = rng.uniform(0, 0.75)
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    # The sensor's noise; rolled, the grain has nothing to do with the ground's texture.
    noise = np.roll(grain, (height // 2, width // 3), axis=(0, 1)) * np.float32(rng.uniform(0.5, 5))
    return (np.asarray(image) + noise[..., None]).clip(0, 255).astype(np.uint8)


def _camera(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A colour matrix `(3, 3)` and offset `(3,)`, float32: exposure, white balance, haze, saturation, contrast."""
    matrix = np.diag(rng.uniform(0.75, 1.2) * (1 + rng.normal(0, 0.05, 3)))
    haze = rng.uniform(0, 0.18)
    saturation, contrast = rng.uniform(0.55, 1.2), rng.uniform(0.9, 1.3)
    mix = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    offset = mix @ (haze * np.array([150.0, 165.0, 180.0])) + 110 * (1 - contrast)
    return (mix @ matrix * (1 - haze)).astype(np.float32), offset.astype(np.float32)
