"""An overview picture of a result: the scene with coloured outlines, and a strip below with legend and scale bar."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import shapely
from affine import Affine
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pyproj import CRS

from rs4d_core.errors import OptionError
from rs4d_core.scenes.layers.vector_layer import read_vector_layer
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.writers.records import Feature
from rs4d_core.scenes.writers.replacement import Replacement, check_replaceable, output_errors

if TYPE_CHECKING:
    from rs4d_core.scenes.reading.scene import Scene

UNKNOWN_COLOR = "#c8c8c8"
STRIP_COLOR = (27, 31, 36)
NODATA_COLOR = (45, 50, 57)
TEXT_COLOR = (232, 236, 240)
COUNT_COLOR = (150, 160, 170)

# Outlines are drawn this many times larger and reduced: PIL draws without smoothing.
OVERSAMPLING = 3
FILL_OPACITY = 56
CASING_OPACITY = 120
# Objects smaller than this, pixels of the picture, get thinner outlines.
SMALL_PX = 14.0

# A picture darker than this at its brightest is lightened for the eye, though not beyond recognition.
BRIGHTEST = 235.0
MOST_LIGHTENED = 2.5

MARGIN = 16
NARROWEST = 360


@dataclass(frozen=True)
class _Shape:
    class_name: str
    geometry: shapely.geometry.base.BaseGeometry


def check_picture_path(path: Path) -> None:
    """See, before a long run, that a picture can be written there. Raises OptionError or OutputError."""
    if path.suffix.lower() != ".png":
        raise OptionError(f"{path}: pictures are written as PNG: give a name that ends in .png")
    check_replaceable(path)


def write_picture(
    scene: "Scene",
    features: Iterable[Feature] | Path,
    path: Path,
    colors: Mapping[str, str],
    longest_side: int = 1600,
) -> None:
    """Draw the instances on the extent that `scene` was opened with, and write the picture as PNG.

    Args:
        scene: open.
        features: in the scene's CRS; or a result layer in any CRS, of which what a review has rejected is left out.
        path: ends in .png. An existing file is replaced when the new one is whole.
        colors: "#rrggbb" for each class.
        longest_side: of the scene's part of the picture, pixels.

    Raises:
        OptionError: `path` does not end in .png.
        LayerError: the layer cannot be read.
        SceneError: the scene is damaged.
        OutputError: the picture cannot be written.
    """
    check_picture_path(path)
    image, valid, transform = scene.thumbnail(longest_side)
    pixels = np.where(valid, _lightened(image, valid), np.array(NODATA_COLOR)[:, None, None])
    picture = Image.fromarray(pixels.transpose(1, 2, 0).round().astype(np.uint8))
    shapes = _in_picture(features, scene, transform, picture.size)
    picture = Image.alpha_composite(picture.convert("RGBA"), _outlines(shapes, colors, picture.size)).convert("RGB")
    across_m, _ = Ground(scene.crs_wkt).pixel_size_m(transform, picture.width / 2, picture.height / 2)
    strip = _strip(Counter(shape.class_name for shape in shapes), colors, max(picture.width, NARROWEST), across_m)
    whole = Image.new("RGB", (strip.width, picture.height + strip.height), STRIP_COLOR)
    whole.paste(picture, ((strip.width - picture.width) // 2, 0))
    whole.paste(strip, (0, picture.height))
    replacement = Replacement(path)
    try:
        with output_errors(replacement.path):
            part = replacement.part(".png")
            # Photographs hardly shrink further; level 9 takes ten times as long.
            whole.save(part, compress_level=3)
            replacement.take_place(part)
    finally:
        replacement.clear()


def _lightened(image: np.ndarray, valid: np.ndarray) -> np.ndarray:
    if not valid.any():
        return image
    brightest = float(np.percentile(image[:, valid], 99.5))
    return np.clip(image * np.clip(BRIGHTEST / max(brightest, 1.0), 1.0, MOST_LIGHTENED), 0.0, 255.0)


def _in_picture(
    features: Iterable[Feature] | Path, scene: "Scene", transform: Affine, size: tuple[int, int]
) -> list[_Shape]:
    """What lies in the picture, in its pixels; large ones first, so that small ones are drawn on top."""
    if isinstance(features, Path):
        names, geometries = _layer(features, scene.crs_wkt)
    else:
        features = list(features)
        names = [feature.class_name for feature in features]
        geometries = np.array([feature.geometry for feature in features], dtype=object)
    to_pixels = ~transform
    placed = shapely.transform(geometries, lambda x, y: to_pixels @ (x, y), interleaved=False)
    seen = shapely.intersects(placed, shapely.box(0, 0, *size))
    shapes = [_Shape(name, geometry) for name, geometry, here in zip(names, placed, seen, strict=True) if here]
    return sorted(shapes, key=lambda shape: -shape.geometry.area)


def _layer(path: Path, crs_wkt: str | None) -> tuple[list[str], np.ndarray]:
    frame = read_vector_layer(path).frame
    if "status" in frame:
        frame = frame[frame["status"] != "rejected"]
    if crs_wkt is not None and frame.crs is not None:
        frame = frame.to_crs(CRS.from_wkt(crs_wkt))
    names = frame["class"].astype(str).tolist() if "class" in frame else [""] * len(frame)
    return names, frame.geometry.to_numpy()


def _outlines(shapes: list[_Shape], colors: Mapping[str, str], size: tuple[int, int]) -> Image.Image:
    """A transparent picture of `size` with the shapes: a faint fill, and a line with a dark rim on any background."""
    overlay = Image.new("RGBA", (size[0] * OVERSAMPLING, size[1] * OVERSAMPLING))
    draw = ImageDraw.Draw(overlay)
    sizes = [math.sqrt(shape.geometry.area) for shape in shapes]
    line = 1.3 if sizes and float(np.median(sizes)) < SMALL_PX else 2.2
    rings = []
    for shape in shapes:
        color = _color(colors, shape.class_name)
        for polygon in shapely.get_parts(shape.geometry):
            draw.polygon(_points(polygon.exterior), fill=(*color, FILL_OPACITY))
            for hole in polygon.interiors:
                draw.polygon(_points(hole), fill=(0, 0, 0, 0))
            rings += [(ring, color) for ring in (polygon.exterior, *polygon.interiors)]
    for width, opacity in ((line + 1.4, CASING_OPACITY), (line, 255)):
        for ring, color in rings:
            points = _points(ring)
            ink = (*color, 255) if opacity == 255 else (0, 0, 0, opacity)
            # The second point again, so that the closing corner is joined like the others.
            draw.line([*points, points[1]], fill=ink, width=round(width * OVERSAMPLING), joint="curve")
    return overlay.resize(size, Image.Resampling.BOX)


def _points(ring: shapely.LinearRing) -> list[tuple[float, float]]:
    return [tuple(point) for point in (np.asarray(ring.coords)[:, :2] * OVERSAMPLING).tolist()]


def _strip(counts: Counter[str], colors: Mapping[str, str], width: int, pixel_m: float) -> Image.Image:
    """Legend and scale bar, `width` pixels wide and as high as it takes."""
    text_px = 20 if width > 900 else 16
    font = ImageFont.load_default(text_px)
    row_px = round(text_px * 1.9)
    bar = _scale_bar(pixel_m, width)
    room = width - 2 * MARGIN
    places, x, row = [], 0.0, 0
    if bar and font.getlength(bar[1]) + bar[0] > room / 2:
        bar = None
    # The bar stands at the end of the first row.
    first_room = room - (bar[0] + font.getlength(bar[1]) + 3 * MARGIN if bar else 0)
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        label, number = name.replace("_", " "), f"{count:,}".replace(",", " ")
        length = text_px * 1.5 + font.getlength(f"{label}  {number}")
        if x and x + length > (first_room if row == 0 else room):
            x, row = 0.0, row + 1
        places.append((x, row, name, label, number))
        x += length + 1.6 * text_px
    strip = Image.new("RGB", (width, (row + 1) * row_px + MARGIN), STRIP_COLOR)
    draw = ImageDraw.Draw(strip)
    middle = MARGIN / 2 + row_px / 2
    if not counts:
        draw.text((MARGIN, middle), "nothing found", fill=COUNT_COLOR, font=font, anchor="lm")
    for x, row, name, label, number in places:
        left, centre = MARGIN + x, middle + row * row_px
        half = text_px * 0.42
        draw.rounded_rectangle((left, centre - half, left + 2 * half, centre + half), 3, fill=_color(colors, name))
        left += text_px * 1.5
        draw.text((left, centre), label, fill=TEXT_COLOR, font=font, anchor="lm")
        draw.text((left + font.getlength(f"{label}  "), centre), number, fill=COUNT_COLOR, font=font, anchor="lm")
    if bar:
        length, label = bar
        right = width - MARGIN
        draw.text((right, middle), label, fill=TEXT_COLOR, font=font, anchor="rm")
        right -= font.getlength(label) + text_px / 2
        draw.line((right - length, middle, right, middle), fill=TEXT_COLOR, width=2)
        for end in (right - length, right):
            draw.line((end, middle - 5, end, middle + 6), fill=TEXT_COLOR, width=2)
    return strip


def _scale_bar(pixel_m: float, width: int) -> tuple[float, str] | None:
    """Length in pixels, about a seventh of the width, and its label; None where the ground is unknown."""
    if not (math.isfinite(pixel_m) and pixel_m > 0):
        return None
    most = pixel_m * width / 6
    power = 10.0 ** math.floor(math.log10(most))
    metres = max(step * power for step in (1, 2, 5) if step * power <= most)
    label = f"{metres / 1000:g} km" if metres >= 1000 else f"{metres:g} m"
    return metres / pixel_m, label


def _color(colors: Mapping[str, str], name: str) -> tuple[int, int, int]:
    return ImageColor.getrgb(colors.get(name, UNKNOWN_COLOR))[:3]
