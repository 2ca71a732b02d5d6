"""What a run would have to do, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from qgis.core import QgsRasterLayer

from rs4d_qgis.dock import window_times
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.words import count, duration
from rs4d_qgis.layers.estimate import grid_side, reading_resolution_m, resolution_sentence, windows
from rs4d_qgis.layers.source import ground_resolution_m, pixel_size_m
from rs4d_qgis.translation import tr


@dataclass(frozen=True)
class Forecast:
    """The grid that the model would see.

    Attributes:
        reading: one sentence on the layer's resolution and the model's.
        read_at_m: metres a pixel; None where the ground is unknown.
        windows: how many; 0 where the layer and the place do not meet.
        megapixels: of all windows together.
    """

    reading: str
    read_at_m: float | None
    windows: int
    megapixels: float

    def line(self, model_sha256: str, device: str) -> str:
        """Windows and time, for the user."""
        what = count(self.windows, tr("window"), tr("windows"))
        seconds = window_times.estimate_s(model_sha256, device, self.megapixels)
        if seconds is None:
            return tr("{}. How long that takes here is known after the first run.").format(what)
        return tr("{}, about {}").format(what, duration(seconds))


def forecast(settings: RunSettings, card: dict, layer: QgsRasterLayer) -> Forecast:
    """For a run with these settings on this layer, by a model with this card."""
    place = settings.zone.within(layer)
    expected_m = tuple(card["resolution_m"])
    own_m = ground_resolution_m(layer, None if place.isEmpty() else place)
    reading, _ = resolution_sentence(own_m, expected_m, settings.resolution_m)
    if place.isEmpty():
        return Forecast(reading, None, 0, 0.0)
    if own_m is None:
        read_at_m, width, height = _without_own_resolution(settings, expected_m, layer, place)
    else:
        read_at_m = reading_resolution_m(own_m, expected_m, settings.resolution_m)
        width = grid_side(place.width() / layer.rasterUnitsPerPixelX(), own_m, read_at_m)
        height = grid_side(place.height() / layer.rasterUnitsPerPixelY(), own_m, read_at_m)
    window_px, overlap_px = card["window_px"], card["overlap_px"]
    number = windows(width, height, window_px, overlap_px)
    each = min(window_px, width) * min(window_px, height)
    return Forecast(reading, read_at_m, number, number * each / 1e6)


def _without_own_resolution(settings, expected_m, layer, place) -> tuple[float | None, int, int]:
    """Resolution, width and height of the grid for a web service, or for a raster that lies nowhere on the ground."""
    size = pixel_size_m(layer.crs(), place.center(), place.width(), place.height()) if layer.crs().isValid() else None
    if size is None:
        across, down = layer.rasterUnitsPerPixelX(), layer.rasterUnitsPerPixelY()
        return None, max(1, round(place.width() / across)), max(1, round(place.height() / down))
    read_at_m = settings.resolution_m or expected_m[0]
    return read_at_m, grid_side(size[0], 1.0, read_at_m), grid_side(size[1], 1.0, read_at_m)
