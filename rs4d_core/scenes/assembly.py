"""From what the windows of a scene show to the features of its layer: seams, final outlines, place on the ground."""

import numpy as np
import shapely

from rs4d_core.scenes.polygons.areal import multipolygons, without_specks
from rs4d_core.scenes.polygons.regularize import CURVED_CLASSES, regularize
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.seams.between_windows import MergedInstance, Outline, SeamMerger
from rs4d_core.scenes.windows.detections import WindowDetections
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.writers import Feature

# Outlines follow the mask to within this, in pixels of the model's grid: a third of a pixel is below what a mask knows,
# and takes away most of the points.
SIMPLIFY_PX = 0.3
# Stray cells of a mask, and holes in it, below this share of an instance's area are noise.
SPECK_SHARE = 0.01


class Assembly:
    """Takes the windows of a scene in the order of the plan, wherever they come from.

    What comes out depends on nothing but the detections, to the bit.

    Args:
        classes: names, in the order of the labels.
        straight: give right angles to outlines that nearly have them.
    """

    def __init__(self, scene: Scene, windows: list[Window], classes: tuple[str, ...], straight: bool) -> None:
        self._scene = scene
        self._classes = classes
        self._merger = SeamMerger(windows, scene.width, scene.height, _outline(straight, classes))

    def add(self, window: WindowDetections) -> list[Feature]:
        """Takes the next window; returns the features that are now final."""
        return self._features(self._merger.add(window.index, window.detections))

    def finish(self) -> list[Feature]:
        """The features that are left: after the last window, or where the run was broken off."""
        return self._features(self._merger.finish())

    def _features(self, merged: list[MergedInstance]) -> list[Feature]:
        geometries = np.array([instance.geometry for instance in merged], dtype=object)
        a, b, c, d, e, f = self._scene.transform[:6]
        to_ground = np.array([[a, d], [b, e]])
        placed = multipolygons(shapely.transform(geometries, lambda points: points @ to_ground + (c, f)))
        return [
            Feature(geometry, self._classes[instance.label], instance.score, self._scene.area_m2(geometry))
            for geometry, instance in zip(placed, merged, strict=True)
        ]


def _outline(straight: bool, classes: tuple[str, ...]) -> Outline:
    """What gives merged geometries their final shape, still in pixels of the model's grid."""
    straightened = np.array([straight and name not in CURVED_CLASSES for name in classes])

    def outline(geometries: np.ndarray, labels: np.ndarray) -> np.ndarray:
        shaped = np.array([without_specks(geometry, SPECK_SHARE) for geometry in geometries], dtype=object)
        for index in np.flatnonzero(straightened[labels]):
            shaped[index] = regularize(shaped[index])
        # Simplification starts at a ring's first point: put it where it does not depend on the windows.
        return shapely.simplify(shapely.normalize(shaped), SIMPLIFY_PX)

    return outline
