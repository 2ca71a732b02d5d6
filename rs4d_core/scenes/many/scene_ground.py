"""What a scene shows of the ground, in a frame that scenes of any CRS and pixel size share."""

from collections import OrderedDict
from collections.abc import Callable

import numpy as np
import rasterio.features
import shapely
from affine import Affine
from pyproj import Transformer
from shapely import MultiPolygon

from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window
from rs4d_core.scenes.windows.polygonize import BORDER_PX, BORDER_SHARE, POINTS_PER_PX

# Corners along a side of a scene's outline, which is curved in another CRS.
CORNERS = 64
# Rasters that are open at a time, of any number.
MOST_OPEN = 32


class Frame:
    """Pixels of the model's grid over one scene, going on in all directions.

    Args:
        scene: the one whose grid it is; its CRS is that of the layer.
    """

    def __init__(self, scene: Scene) -> None:
        self.crs_wkt = scene.crs_wkt
        self._to_layer = scene.transform

    def take(self, in_layer: np.ndarray) -> np.ndarray:
        """Geometries of the layer's CRS as valid multipolygons in the frame, their corners rounded."""
        placed = _moved(in_layer, lambda x, y: ~self._to_layer @ (x, y))
        rounded = shapely.transform(placed, lambda points: np.round(points * POINTS_PER_PX) / POINTS_PER_PX)
        return multipolygons(rounded)

    def give(self, geometries: np.ndarray) -> np.ndarray:
        """Geometries of the frame in the layer's CRS."""
        return multipolygons(_moved(geometries, lambda x, y: self._to_layer @ (x, y)))

    def between(self, transform: Affine, to_layer: Callable) -> Callable:
        """From a grid with this transform into its CRS, by way of the layer's CRS (`to_layer`), to the frame."""
        return lambda x, y: ~self._to_layer @ to_layer(*(transform @ (x, y)))

    def into(self, transform: Affine, from_layer: Callable) -> Callable:
        """The way back of `between`."""
        return lambda x, y: ~transform @ from_layer(*(self._to_layer @ (x, y)))


class OpenScenes:
    """Scenes that are opened when they are looked at. So many are open at a time, as files may be only so many."""

    def __init__(self) -> None:
        self._open: OrderedDict[int, Scene] = OrderedDict()

    def get(self, number: int, opener: Callable[[], Scene]) -> Scene:
        """The scene of this number, opened by `opener` if it is not open."""
        if number not in self._open:
            if len(self._open) >= MOST_OPEN:
                self._open.popitem(last=False)[1].close()
            self._open[number] = opener()
        self._open.move_to_end(number)
        return self._open[number]

    def __enter__(self) -> "OpenScenes":
        return self

    def __exit__(self, *_exception: object) -> None:
        while self._open:
            self._open.popitem()[1].close()


class SceneGround:
    """Where one scene has data.

    Args:
        scene: as it is now; it is not held.
        reopen: gives it, open, when its pixels are asked about.
        frame: that all scenes of the layer share.

    Attributes:
        outline: of the whole scene, with or without data, in the frame.
    """

    def __init__(self, scene: Scene, reopen: Callable[[], Scene], frame: Frame) -> None:
        self._reopen = reopen
        self._size = (scene.width, scene.height)
        self._to_layer: Callable = lambda x, y: (x, y)
        self._from_layer: Callable = lambda x, y: (x, y)
        if scene.crs_wkt != frame.crs_wkt:
            self._to_layer = Transformer.from_crs(scene.crs_wkt, frame.crs_wkt, always_xy=True).transform
            self._from_layer = Transformer.from_crs(frame.crs_wkt, scene.crs_wkt, always_xy=True).transform
        self._to_frame = frame.between(scene.transform, self._to_layer)
        self._from_frame = frame.into(scene.transform, self._from_layer)
        whole = shapely.box(0, 0, scene.width, scene.height).segmentize(max(scene.width, scene.height) / CORNERS)
        self.outline = multipolygons(_moved(np.array([whole], dtype=object), self._to_frame))[0]

    def in_layer(self, geometries: np.ndarray) -> np.ndarray:
        """Geometries `(N,)` of the scene's CRS, valid in the layer's."""
        return multipolygons(_moved(geometries, self._to_layer))

    def part_seen(self, geometry: MultiPolygon) -> MultiPolygon:
        """What of a geometry in the frame lies where the scene has data."""
        own = _moved(np.array([geometry], dtype=object), self._from_frame)[0]
        seen = self._valid_around(own.bounds, 1)
        if seen.is_empty:
            return MultiPolygon()
        if seen.equals(shapely.box(*seen.bounds)) and seen.buffer(1e-9).contains(own):
            return geometry
        in_frame = _moved(np.array([seen], dtype=object), self._to_frame)
        return multipolygons(shapely.intersection(multipolygons(in_frame), geometry))[0]

    def ends_in(self, geometry: MultiPolygon) -> bool:
        """Whether a geometry in the frame reaches the end of the data, so that it may go on beyond it.

        Generous, as `polygonize` is about the borders of windows.
        """
        own = _moved(np.array([geometry], dtype=object), self._from_frame)[0]
        x0, y0, x1, y1 = own.bounds
        margin = max(BORDER_PX, BORDER_SHARE * max(x1 - x0, y1 - y0))
        around = shapely.box(x0 - margin, y0 - margin, x1 + margin, y1 + margin)
        return not self._valid_around(around.bounds, 1).contains(own.buffer(margin).intersection(around))

    def _valid_around(self, bounds: tuple[float, float, float, float], margin: int) -> MultiPolygon:
        """The pixels with data in a part of the scene's grid, as polygons in its pixels."""
        low = np.maximum(np.floor(bounds[:2]).astype(int) - margin, 0)
        high = np.minimum(np.ceil(bounds[2:]).astype(int) + margin, self._size)
        if (high <= low).any():
            return MultiPolygon()
        width, height = (high - low).tolist()
        _, valid, _ = self._reopen().read_readable(Window(int(low[0]), int(low[1]), width, height))
        if valid.all():
            return MultiPolygon([shapely.box(*low, *high)])
        corner = Affine.translation(*low.tolist())
        shapes = rasterio.features.shapes(valid.astype(np.uint8), valid, transform=corner)
        return multipolygons(np.array([shapely.union_all([shapely.geometry.shape(shape) for shape, _ in shapes])]))[0]


def _moved(geometries: np.ndarray, move: Callable) -> np.ndarray:
    """Geometries with their corners where `move` puts them, a function of arrays x and y."""
    return shapely.transform(
        geometries, lambda points: np.stack(move(*np.ascontiguousarray(points.T)), axis=1) if len(points) else points
    )
