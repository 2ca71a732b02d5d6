"""Draw figures given in metres, anti-aliased, together with how rough each surface is."""

import numpy as np
from PIL import Image, ImageDraw

Color = tuple[float, float, float]


class Canvas:
    """A picture of `height x width` pixels, drawn `SUPERSAMPLING` times finer and reduced at the end.

    The fourth band holds the roughness of the surface (0 smooth .. 255 forest), which decides later how much texture it
    gets. Pillow's CMYK mode serves as a plain four-band store: with RGBA, Pillow would weigh colours by the fourth band
    when it reduces.
    """

    SUPERSAMPLING = 3

    def __init__(self, width: int, height: int, resolution_m: float, ground: np.ndarray) -> None:
        """`ground`: `(height, width, 4)` uint8, what is seen where nothing is drawn."""
        fine = (width * self.SUPERSAMPLING, height * self.SUPERSAMPLING)
        self._image = Image.fromarray(ground, "CMYK").resize(fine, Image.Resampling.NEAREST)
        self._draw = ImageDraw.Draw(self._image)
        self._scale = self.SUPERSAMPLING / resolution_m
        self._shadow = Image.new("L", fine, 0)
        self._shadow_draw = ImageDraw.Draw(self._shadow)

    def _pixels(self, points: np.ndarray) -> list[float]:
        return (np.asarray(points) * self._scale).ravel().tolist()

    def polygon(self, points: np.ndarray, color: Color, roughness: float = 10) -> None:
        """Fill a figure."""
        self._draw.polygon(self._pixels(points), fill=_ink(color, roughness))

    def line(self, points: np.ndarray, color: Color, width_m: float, roughness: float = 10) -> None:
        """Draw a line; it is at least one fine pixel wide."""
        width = max(1, round(width_m * self._scale))
        self._draw.line(
            self._pixels(points), fill=_ink(color, roughness), width=width, joint="curve" if width > 2 else None
        )

    def disc(self, centre: np.ndarray, radius: float, color: Color, roughness: float = 10) -> None:
        """Fill a circle."""
        x, y = np.asarray(centre) * self._scale
        r = max(0.5, radius * self._scale - 0.5)  # Pillow fills half a pixel more on every side
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=_ink(color, roughness))

    def shadow(self, outline: np.ndarray, reach: np.ndarray) -> None:
        """Add the shadow of a prism over `outline`, whose top's shadow is shifted by `reach` metres."""
        top = outline + reach
        # Where the plan is convex, the walls' shadow lies between its two points farthest aside of the light.
        aside = outline @ np.array([-reach[1], reach[0]])
        left, right = int(aside.argmax()), int(aside.argmin())
        self._shadow_draw.polygon(self._pixels(top), fill=255)
        walls = np.array([outline[left], top[left], top[right], outline[right]])
        self._shadow_draw.polygon(self._pixels(walls), fill=255)

    def shadow_inside(self, hole: np.ndarray, reach: np.ndarray) -> None:
        """Let light into a courtyard, but for the shadow of its walls. Elsewhere, that shadow lies under the roof."""
        self._shadow_draw.polygon(self._pixels(hole), fill=0)
        following = np.roll(hole, -1, axis=0)
        for quad in np.stack([hole, following, following + reach, hole + reach], axis=1):
            self._shadow_draw.polygon(self._pixels(quad), fill=255)

    def cast_shadows(self, depth: float) -> None:
        """Darken what is drawn so far where shadows fall, a little less in blue; `depth` is 0..1."""
        dark = self._image.point(
            [int(v * factor) for factor in (1 - depth, 1 - depth * 0.97, 1 - depth * 0.88) for v in range(256)]
            + [int(v * 0.7) for v in range(256)]
        )
        self._image.paste(dark, mask=self._shadow)

    def pixels(self) -> np.ndarray:
        """`(height, width, 4)` uint8: red, green, blue, roughness."""
        return np.asarray(self._image.reduce(self.SUPERSAMPLING))


def _ink(color: Color, roughness: float) -> tuple[int, int, int, int]:
    r, g, b = (min(255, max(0, round(float(c)))) for c in color)
    return r, g, b, min(255, max(0, round(roughness)))


def lit(color: Color, factor: float) -> Color:
    """`color` under more or less light."""
    return color[0] * factor, color[1] * factor, color[2] * factor
