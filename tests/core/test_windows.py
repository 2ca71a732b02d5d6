"""Every pixel is in a window, and every seam in two."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rs4d_core.errors import OptionError
from rs4d_core.scenes.windows.plan import Window, plan


@settings(deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    window_px=st.sampled_from([32, 64, 128]),
    overlap_px=st.integers(16, 28),
)
def test_trusted_boxes_cover_the_scene_and_windows_stay_in_it(width, height, window_px, overlap_px):
    windows = list(plan(width, height, window_px, overlap_px))
    assert len(windows) == len(set(windows))
    assert windows == sorted(windows, key=lambda window: (window.row, window.col))
    assert {(w.width, w.height) for w in windows} == {(min(window_px, width), min(window_px, height))}
    seen = np.zeros((2 * height, 2 * width), dtype=bool)  # in half pixels, which is what trusted boxes end on
    for window in windows:
        x0, y0, x1, y1 = (int(2 * side) for side in window.trusted_box(width, height))
        assert min(x0, y0) >= 0
        assert x1 <= 2 * width
        assert y1 <= 2 * height
        seen[y0:y1, x0:x1] = True
    assert seen.all()
    for side in ("col", "row"):
        starts = sorted({getattr(window, side) for window in windows})
        assert all(after <= before + window_px - overlap_px for before, after in itertools.pairwise(starts))


def test_a_scene_smaller_than_a_window_is_one_window():
    assert list(plan(20, 45, 64, 16)) == [Window(0, 0, 20, 45)]


def test_windows_are_made_when_asked_for():
    windows = plan(1_000_000, 1_000_000, 128, 32)
    assert len(windows) == len(windows.columns) * len(windows.rows) > 100_000_000
    assert windows[-1] == windows[len(windows) - 1] == Window(999_872, 999_872, 128, 128)
    assert windows[len(windows.columns)] == Window(0, 96, 128, 128)
    assert windows[1:3] == [Window(96, 0, 128, 128), Window(192, 0, 128, 128)]
    with pytest.raises(IndexError):
        windows[len(windows)]


@pytest.mark.parametrize(
    ("window_px", "overlap_px", "words"),
    [
        (64, 64, "not smaller"),
        (64, 100, "not smaller"),
        (64, 8, "16 px"),
        (64, -1, "16 px"),
        (100, 20, "multiple of 32"),
        (0, 20, "multiple of 32"),
    ],
)
def test_windows_that_cannot_work_are_refused(window_px, overlap_px, words):
    with pytest.raises(OptionError, match=words):
        plan(1000, 1000, window_px, overlap_px)
