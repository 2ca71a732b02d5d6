"""What the panel knows and says, without a widget: states of a run, what is remembered, where files go, ways out."""

import tempfile
from dataclasses import replace

import pytest
from qgis.core import QgsSettings

from rs4d_qgis import settings as remembered
from rs4d_qgis.dock import past_runs, window_times
from rs4d_qgis.dock.past_runs import PastRun
from rs4d_qgis.dock.result_place import choose_place, is_synced
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.run_state import Phase, RunState
from rs4d_qgis.dock.ways_out import ways_out
from rs4d_qgis.dock.zone import DRAWN, VISIBLE, WHOLE, Zone
from rs4d_qgis.words import duration

CARD = {
    "config": {"classes": ["ship", "building"]},
    "default_scores": [0.4, 0.6],
    "resolution_m": [0.3, 0.7],
}
ZONE = Zone(VISIBLE, (10.0, 20.0, 30.0, 40.0), "EPSG:32631")
RUN = RunSettings("id", "harbour", "/data/harbour.tif", "gdal", ZONE)
WHOLE_ZONE = Zone(WHOLE, (0.0, 0.0, 100.0, 100.0), "EPSG:32631")


@pytest.fixture(autouse=True)
def nothing_remembered(qgis_app):
    QgsSettings().remove("rs4d/last")
    yield
    QgsSettings().remove("rs4d/last")


def windows(done: int, of: int, seconds_left: float = 30.0) -> dict:
    return {"fraction": done / of, "message": "", "windows_done": done, "windows": of, "seconds_left": seconds_left}


def test_a_run_tells_how_far_it_is():
    state = RunState().started()
    assert (state.busy, state.line()) == (True, "Starting")
    state = state.progressed({"fraction": 0.0, "message": "loading the model", "seconds_left": None})
    assert state.line() == "loading the model"
    state = state.progressed(windows(3, 12, 200.0)).more_found(14)
    assert state.line() == "3 of 12 windows, 14 found, about 3 min left"
    state = state.progressed(windows(12, 12, 0.0)).ended(True, 20, "/out/result.gpkg")
    assert (state.phase, state.busy, state.line()) == (Phase.DONE, False, "20 instances found.")


def test_the_bar_never_goes_back():
    state = RunState().started().progressed(windows(6, 12)).progressed({"fraction": 0.1, "message": "writing"})
    assert state.fraction == 0.5


def test_after_cancel_nothing_that_the_engine_says_matters_and_no_failure_is_told():
    state = RunState().started().progressed(windows(3, 12)).more_found(14).cancel_asked()
    assert state.progressed(windows(4, 12)) == state
    ended = state.ended(False, 14, "/out/result.gpkg", "some error on the way out")
    assert ended.phase is Phase.CANCELLED
    assert ended.line() == "Cancelled. The 14 instances found until then are kept."
    assert state.ended(False, 0, None).line() == "Cancelled. Nothing was found until then."


def test_a_failure_says_why_and_what_is_kept_but_not_twice():
    state = RunState().started().more_found(1)
    assert state.ended(False, 1, "/out/a.gpkg", "The engine died.").line() == (
        "The engine died. The 1 instance found until then are kept."
    )
    told_already = "The engine died (1 polygons are in /out/a.gpkg)"
    assert state.ended(False, 1, "/out/a.gpkg", told_already).line() == told_already


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.2, "1 s"), (59, "59 s"), (100, "2 min"), (3600, "1 h"), (4900, "1 h 22 min"), (3e5, "3 days")],
)
def test_durations_are_told_as_people_do(seconds, told):
    assert duration(seconds) == told


def test_the_time_of_a_window_is_learned_for_each_model_and_device():
    assert window_times.estimate_s("a" * 64, "cpu", 1.0) is None
    window_times.learn("a" * 64, "cpu", megapixels=2.0, seconds=10.0)
    assert window_times.estimate_s("a" * 64, "cpu", 4.0) == pytest.approx(20.0)
    window_times.learn("a" * 64, "cpu", megapixels=1.0, seconds=15.0)
    assert window_times.estimate_s("a" * 64, "cpu", 1.0) == pytest.approx(10.0)
    assert window_times.estimate_s("a" * 64, "cuda", 1.0) is None
    assert window_times.estimate_s("b" * 64, "cpu", 1.0) is None


def test_past_runs_come_back_as_they_were_the_latest_first():
    for number in range(past_runs.MOST + 5):
        settings = replace(RUN, classes=("ship",), score=0.5, layer_name=f"scene {number}")
        past_runs.remember(PastRun("2026-01-02T03:04:05", "model", number, True, f"/out/{number}.gpkg", settings))
    runs = past_runs.past_runs()
    assert [run.found for run in runs] == list(range(past_runs.MOST + 4, 4, -1))
    assert runs[0].settings == replace(RUN, classes=("ship",), score=0.5, layer_name="scene 24")


def test_what_another_version_remembered_is_passed_over():
    past_runs.remember(PastRun("2026-01-02T03:04:05", "model", 1, True, None, RUN))
    kept = remembered.last("past_runs")
    remembered.set_last("past_runs", [{"settings": {"zone": "everywhere"}}, "text", *kept, {**kept[0], "new": 1}])
    assert [run.found for run in past_runs.past_runs()] == [1]


def test_the_visible_map_is_kept_as_the_place_that_it_was():
    assert ZONE.fixed() == Zone(DRAWN, ZONE.bounds, ZONE.crs_text)
    assert WHOLE_ZONE.fixed() == WHOLE_ZONE


def test_the_ways_out_of_finding_nothing_change_one_thing_each():
    ways = ways_out(replace(RUN, classes=("building",)), CARD, 0.3, WHOLE_ZONE, {"/models/own.safetensors": "own"})
    changed = [
        {name for name in RunSettings.__dataclass_fields__ if getattr(way.settings, name) != getattr(RUN, name)}
        for way in ways
    ]
    assert changed == [{"classes", "score"}, set(), {"classes", "resolution_m"}, {"model"}, {"classes", "zone"}]
    assert ways[0].settings.score == 0.3  # half of the model's own for buildings
    assert ways[2].settings.resolution_m == 0.7  # the end of the model's range that is farther off


def test_no_way_out_is_offered_that_leads_back_to_the_same():
    tried = replace(RUN, score=0.05, zone=WHOLE_ZONE)
    assert ways_out(tried, {**CARD, "resolution_m": [0.5, 0.5]}, 0.5, WHOLE_ZONE, {}) == []


def test_a_result_lies_beside_its_project(tmp_path):
    place = choose_place(str(tmp_path), "/nowhere", "Harbour: left/right")
    assert (place.path, place.aloud) == (tmp_path / "Harbour_left_right-instances.gpkg", "")
    place.path.touch()
    assert choose_place(str(tmp_path), "/nowhere", "Harbour: left/right").path.name.endswith("-instances-2.gpkg")


def test_a_result_goes_elsewhere_and_says_so_where_the_project_is_not_saved(tmp_path):
    place = choose_place("", str(tmp_path), "scene")
    assert place.path.parent == tmp_path / "RS4D"
    assert place.aloud == f"The project has not been saved: the result is in {tmp_path / 'RS4D'}"


def test_a_result_does_not_go_where_it_cannot_be_written(tmp_path):
    # A file where a folder is asked for: nobody can write there, not even root.
    blocked = tmp_path / "blocked"
    blocked.touch()
    place = choose_place(str(blocked), str(tmp_path), "scene")
    assert place.path.parent == tmp_path / "RS4D"
    assert place.aloud.startswith("The project's folder cannot be written")


@pytest.mark.parametrize("name", ["OneDrive", "OneDrive - Company", "Dropbox", "Google Drive", "Nextcloud"])
def test_a_result_does_not_go_where_a_cloud_client_copies_it(tmp_path, name):
    project = tmp_path / name / "maps"
    project.mkdir(parents=True)
    place = choose_place(str(project), str(tmp_path / name), "scene")
    assert "synchronised" in place.aloud
    assert not is_synced(place.path.parent)


def test_a_synchronised_folder_is_known_by_what_the_client_leaves_there(tmp_path):
    (tmp_path / "maps" / "deep").mkdir(parents=True)
    assert not is_synced(tmp_path / "maps" / "deep")
    (tmp_path / "maps" / ".stfolder").mkdir()
    assert is_synced(tmp_path / "maps" / "deep")


def test_the_last_resort_is_the_folder_for_temporary_files(tmp_path, monkeypatch):
    blocked = tmp_path / "blocked"
    blocked.touch()
    monkeypatch.setenv("HOME", str(blocked))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert choose_place("", str(blocked), "scene").path.parent == tmp_path / "RS4D"
