"""The parts of a scene that a run could not read: told to the user, and marked on the map."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import shapely

from rs4d_core.errors import SceneError
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.detections import Box
from rs4d_core.wording import counted


class NotRead:
    """Takes the boxes that the windows could not read, in pixels of the model's grid. Each is counted once."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._boxes: set[Box] = set()

    def add(self, boxes: Iterable[Box]) -> None:
        """Those that reach into a window."""
        self._boxes.update(boxes)

    def check(self) -> None:
        """Raises SceneError where all of the scene is missing."""
        if self._boxes and self._share() > 1 - 1e-9:
            raise SceneError(
                f"{self._scene.path} opens, but none of its pixels can be read: the file is damaged: copy or download "
                "it again"
            )

    def polygons(self) -> list[shapely.Polygon]:
        """What is missing, in the scene's CRS, neighbouring boxes as one."""
        a, b, c, d, e, f = self._scene.transform[:6]
        to_ground = np.array([[a, d], [b, e]])
        return [
            shapely.transform(polygon, lambda points: points @ to_ground + (c, f))
            for polygon in shapely.get_parts(self._union())
        ]

    def notes(self, output: Path | None) -> list[str]:
        """One sentence, where anything is missing."""
        if not self._boxes:
            return []
        if output is not None and output.suffix.lower() == ".gpkg":
            where = "the layer not_read shows where"
        else:
            left, bottom, right, top = shapely.total_bounds(self.polygons())
            where = f"they lie in {left:.10g} {bottom:.10g} to {right:.10g} {top:.10g}"
        were = "was" if len(self._boxes) == 1 else "were"
        return [
            f"{counted(len(self._boxes), 'block')} of the scene, {100 * self._share():.2g} % of it, could not be read "
            f"and {were} left out; {where}; the file is damaged: copy or download it again"
        ]

    def _union(self) -> shapely.Geometry:
        boxes = np.array(sorted(self._boxes)).reshape(-1, 4)
        return shapely.union_all(shapely.box(*boxes.T))

    def _share(self) -> float:
        return shapely.area(self._union()) / (self._scene.width * self._scene.height)
