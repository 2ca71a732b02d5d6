"""What of a raster layer the engine can read by itself."""

from __future__ import annotations

from dataclasses import dataclass

from qgis.core import QgsRasterLayer


@dataclass(frozen=True)
class SceneSource:
    """A raster that the engine can read.

    Attributes:
        path: a file, or a name that GDAL understands.
        temporary: it was made for a run, and goes with it.
        notes: what the user should know of it, one sentence each.
    """

    path: str
    temporary: bool
    notes: tuple[str, ...]


def local_file(layer: QgsRasterLayer) -> str | None:
    """The GDAL source that the engine can read in place: a file, a part of one, one in an archive. None for others."""
    if layer.providerType() != "gdal":
        return None
    return layer.source()
