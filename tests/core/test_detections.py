"""The detections of windows as bytes, and as a source gives them."""

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from perfect import ColorPredictor, cover, paint, write_raster
from shapely import MultiPolygon, box

from rs4d_core.scenes.prediction.local_windows import LocalWindows
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.detections import WindowDetections
from rs4d_core.scenes.windows.plan import plan
from rs4d_core.scenes.windows.polygonize import Detection

places = st.floats(-1e7, 1e7)
detections = st.builds(
    lambda x, y, points, score, label, fragment: Detection(
        MultiPolygon([box(x, y, x + 1, y + 1) - shapely.Point(x + 0.5, y + 0.5).buffer(0.3, quad_segs=points)]),
        score,
        label,
        fragment,
    ),
    places,
    places,
    st.integers(1, 9),
    st.floats(0, 1),
    st.integers(0, 1000),
    st.booleans(),
)
windows = st.builds(
    WindowDetections,
    st.integers(0, 2**40),
    st.lists(detections, max_size=5),
    st.lists(st.tuples(places, places, places, places), max_size=3).map(tuple),
)


def bits(window: WindowDetections) -> list:
    return [(shapely.to_wkb(d.geometry), d.score, d.label, d.fragment) for d in window.detections]


@given(windows)
def test_bytes_hold_all_of_it_exactly(window):
    again = WindowDetections.from_bytes(window.to_bytes())
    assert (again.index, again.not_read, bits(again)) == (window.index, window.not_read, bits(window))
    assert all(isinstance(found.geometry, MultiPolygon) for found in again.detections)


@settings(max_examples=50)
@given(windows.filter(lambda window: window.detections or window.not_read), st.data())
def test_bytes_cut_short_are_refused(window, data):
    content = window.to_bytes()
    with pytest.raises(ValueError, match="no detections of a window"):
        WindowDetections.from_bytes(content[: data.draw(st.integers(0, len(content) - 1))])


class ByBatch(ColorPredictor):
    """Like a real model, gives other bits to a window that has other company."""

    def predict(self, images, least_scores):
        found = super().predict(images, least_scores)
        company = float(images.mean()) / 255
        for instances in found:
            instances.scores.mul_(0.5 + 0.5 * company)
        return found


def test_a_window_shows_the_same_whichever_others_are_asked_for(tmp_path):
    rng = np.random.default_rng(3)
    shapes = [box(x, y, x + 12, y + 9) for x, y in rng.uniform(0, 180, (40, 2))]
    picture = paint([cover(shape, k % 3, 200, 200) for k, shape in enumerate(shapes)], 200, 200)
    path = write_raster(tmp_path / "scene.tif", picture, "EPSG:32636", Affine(0.5, 0, 450_000, 0, -0.5, 40_000))
    predictor = ByBatch()
    with Scene.open(path) as scene:
        tiles = plan(scene.width, scene.height, 64, 16)

        def source():
            return LocalWindows(scene, tiles, predictor, np.full(3, 0.1), lambda: False)

        whole = {window.index: bits(window) for window in source().run(range(len(tiles)))}
        assert list(whole) == list(range(len(tiles)))
        for some in ([5], [2, 3, 4, 11], range(7, len(tiles))):
            found = list(source().run(some))
            assert [window.index for window in found] == list(some)
            assert all(bits(window) == whole[window.index] for window in found)
    assert sum(map(len, whole.values())) > 40
