"""A raster layer on its way to the engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qgis.core import QgsFeedback, QgsRasterLayer, QgsRectangle

from rs4d_qgis.layers.render import Rendering, copy_from_memory
from rs4d_qgis.layers.source import SceneSource, is_in_memory, is_web_picture, scene_source
from rs4d_qgis.translation import tr


class PreparedScene:
    """What a layer was when a run began. Made on the main thread; from then on the layer itself is left alone.

    Args:
        folder: for the files of the run, which go with it.

    Attributes:
        name: of the layer.
        origin: what to call the scene by in records: its file, or the address of a service.
        crs: of the layer.
        is_fetched: whether pixels have to be written to a file first.
        is_picture: whether these are asked for at a resolution, as the layer has none of its own.

    Raises:
        RenderError: the layer cannot be handed over as QGIS shows it.
    """

    def __init__(self, layer: QgsRasterLayer, folder: Path) -> None:
        self.name = layer.name()
        self.crs = layer.crs()
        self._folder = folder
        self._source = scene_source(layer, folder)
        self._memory = layer.source() if is_in_memory(layer) else None
        self._rendering = Rendering(layer) if self._source is None and self._memory is None else None
        self.is_fetched = self._source is None
        self.is_picture = self._rendering is not None and self._rendering.is_picture
        self.origin = layer.source() if self._source is None or self._source.temporary else self._source.path
        self._terms = _terms(layer) if is_web_picture(layer) or layer.providerType() == "wcs" else None

    def source(
        self,
        extent: QgsRectangle | None,
        expected_m: tuple[float, float],
        wanted_m: float | None,
        feedback: QgsFeedback,
        announce: Callable[[str], None],
        tell: Callable[[float], None],
    ) -> SceneSource:
        """The layer as the engine can read it. May take long; may be called on any thread.

        Args:
            extent: the part that is needed, in the layer's CRS; None for all of it.
            expected_m, wanted_m: metres a pixel that the model was made for, and that the user wants.
            announce: told what is about to be fetched, before it is.
            tell: told the fraction of it that is done.

        Raises:
            RenderError: the layer cannot be fetched; RenderCancelled: `feedback` says so.
        """
        if self._source is not None:
            return self._source
        path = self._folder / "scene.tif"
        if self._memory is not None:
            copy_from_memory(self._memory, path, feedback, tell)
            return SceneSource(str(path), True)
        grid = self._rendering.plan(extent, expected_m, wanted_m)
        resolution = tr(" of {:.3g} m").format(grid.resolution_m) if grid.resolution_m else ""
        announce(tr("Fetching layer “{}”: {:,} x {:,} pixels{}").format(self.name, grid.width, grid.height, resolution))
        notes = self._rendering.write(grid, path, feedback, tell)
        return SceneSource(str(path), True, (*notes, *([self._terms] if self._terms else [])))


def _terms(layer: QgsRasterLayer) -> str:
    stated = "; ".join(layer.metadata().rights()) or layer.attribution()
    note = tr("layer “{}” comes from a service: see that its terms allow objects to be derived from it")
    return note.format(layer.name()) + (f" ({stated})" if stated else "")
