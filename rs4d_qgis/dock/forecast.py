"""What a run would have to do, told before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from qgis.core import QgsRasterLayer, QgsRectangle

from rs4d_qgis.dock import window_times
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.zone import POLYGONS
from rs4d_qgis.layers.errors import RenderError
from rs4d_qgis.layers.estimate import grid_side, reading_resolution_m, resolution_sentence, windows
from rs4d_qgis.layers.render import Rendering
from rs4d_qgis.layers.source import ground_resolution_m, is_web_picture
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, duration


@dataclass(frozen=True)
class Forecast:
    """The grid that the model would see.

    Attributes:
        reading: one sentence on the layer's resolution and the model's.
        refusal: why there can be no run, one sentence; empty where there can.
        read_at_m: metres a pixel; None where the ground is unknown.
        windows: how many.
        megapixels: of all windows together.
        at_most: some of the windows may turn out to lie outside of the polygons.
    """

    reading: str
    refusal: str = ""
    read_at_m: float | None = None
    windows: int = 0
    megapixels: float = 0.0
    at_most: bool = False

    def line(self, model_sha256: str, device: str) -> str:
        """Windows and time, for the user."""
        what = count(self.windows, tr("window"), tr("windows"))
        if self.at_most:
            what = tr("At most {}").format(what)
        seconds = window_times.estimate_s(model_sha256, device, self.megapixels)
        if seconds is None:
            return tr("{}. How long that takes here is known after the first run.").format(what)
        return tr("{}, about {}").format(what, duration(seconds))


def forecast(settings: RunSettings, card: dict, layer: QgsRasterLayer) -> Forecast:
    """For a run with these settings on this layer, by a model with this card."""
    place = settings.zone.within(layer)
    expected_m = tuple(card["resolution_m"])
    own_m = ground_resolution_m(layer, None if place.isEmpty() else place)
    reading = resolution_sentence(own_m, expected_m, settings.resolution_m, is_web_picture(layer))
    if place.isEmpty():
        nowhere = tr("The layer has nothing there: choose another extent, or zoom to the layer")
        return Forecast(reading, nowhere)
    try:
        read_at_m, width, height = _grid(settings, expected_m, layer, place, own_m)
    except RenderError as refused:
        return Forecast(reading, str(refused))
    window_px, overlap_px = card["window_px"], card["overlap_px"]
    number = windows(width, height, window_px, overlap_px)
    each = min(window_px, width) * min(window_px, height)
    return Forecast(reading, "", read_at_m, number, number * each / 1e6, settings.zone.kind == POLYGONS)


def _grid(
    settings: RunSettings,
    expected_m: tuple[float, float],
    layer: QgsRasterLayer,
    place: QgsRectangle,
    own_m: float | None,
) -> tuple[float | None, int, int]:
    """Resolution, width and height of the grid that the model would see.

    Raises:
        RenderError: the layer would have to be fetched, and cannot be for this place.
    """
    across, down = layer.rasterUnitsPerPixelX(), layer.rasterUnitsPerPixelY()
    if is_web_picture(layer):
        # Asks the service nothing.
        fetched = Rendering(layer).plan(place, expected_m, settings.resolution_m)
        own_m, across, down = fetched.resolution_m, fetched.across, fetched.down
    if own_m is None:
        return None, max(1, round(place.width() / across)), max(1, round(place.height() / down))
    read_at_m = reading_resolution_m(own_m, expected_m, settings.resolution_m)
    width, height = place.width() / across, place.height() / down
    return read_at_m, grid_side(width, own_m, read_at_m), grid_side(height, own_m, read_at_m)
