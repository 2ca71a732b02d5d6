"""From flat colours to an aerial photograph: texture, light, haze, optics, sensor."""

import numpy as np
from PIL import Image, ImageFilter

from rs4d_core.datasets.synthetic.noise import fractal_noise, smooth_noise


def base_ground(rng: np.random.Generator, width: int, height: int, resolution_m: float) -> np.ndarray:
    """`(height, width, 4)` uint8: soil and grass in patches, with their roughness."""
    blend = fractal_noise(rng, width, height, (12 / resolution_m, 60 / resolution_m))
    blend = 1 / (1 + np.exp(-2 * blend - rng.normal(0, 1)))[..., None]
    grass = np.array([100, 112, 70]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
    soil = np.array([150, 134, 106]) + rng.normal(0, 14) + rng.normal(0, 6, 3)
    color = (blend * grass + (1 - blend) * soil).clip(0, 255)
    return np.concatenate([color, np.full((height, width, 1), 75.0)], axis=2).astype(np.uint8)


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
    color = drawn[..., :3].astype(np.float32)
    roughness = drawn[..., 3].astype(np.float32) / 255
    fine = rng.standard_normal((height, width), np.float32)
    fine += 0.8 * smooth_noise(rng, width, height, max(1.5, 1.2 / resolution_m))
    coarse = fractal_noise(rng, width, height, (max(2.0, 3 / resolution_m), 15 / resolution_m))
    light = 1 + roughness * (0.13 * fine + 0.22 * coarse)
    light *= 1 + rng.uniform(0, 0.05) * smooth_noise(rng, width, height, 70 / resolution_m)
    color *= light[..., None]
    # The scene's own light, white balance and haze.
    color *= rng.uniform(0.75, 1.2) * (1 + rng.normal(0, 0.05, 3).astype(np.float32))
    haze = rng.uniform(0, 0.18)
    color = color * (1 - haze) + haze * np.array([150, 165, 180], np.float32)
    gray = color.mean(axis=2, keepdims=True)
    color = gray + rng.uniform(0.6, 1.25) * (color - gray)
    mean = float(color.mean())
    color = mean + rng.uniform(0.85, 1.25) * (color - mean)
    np.clip(color, 0, 255, out=color)
    image = Image.fromarray(color.astype(np.uint8))
    blur = rng.uniform(0, 0.75)
    if blur > 0.25:
        image = image.filter(ImageFilter.GaussianBlur(blur))
    noise = rng.normal(0, rng.uniform(0.5, 5), (height, width, 1)).astype(np.float32)
    return np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8)
