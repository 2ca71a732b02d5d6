"""Corrections at the desk, in the real desktop and with the real engine."""

import shutil
from pathlib import Path

import pytest
from qgis_desktop import play

SCENARIOS = Path(__file__).with_name("edit_scenarios.py")


@pytest.fixture(scope="module")
def corrected(segmented_scene, tmp_path_factory):
    """What an analyst's corrections came to."""
    folder = tmp_path_factory.mktemp("edits")
    layer = shutil.copy(segmented_scene.layer, folder / "result.gpkg")
    scene, truth = str(segmented_scene.scene), str(segmented_scene.truth)
    return play(folder, SCENARIOS, "corrects", SCENE=scene, LAYER=str(layer), TRUTH=truth)


def test_each_correction_is_one_step_and_all_can_be_taken_back(corrected):
    assert corrected["split"][:2] == [1, 1]
    assert "Split into 2" in corrected["split"][2]
    assert corrected["merge"] == [2, 0]
    assert corrected["hole"] == [3, True, ""]
    assert corrected["fill"] == [4, False]
    assert corrected["revert"] == [5, True]
    steps, told, changed = corrected["angles"]
    assert changed or "Right angles do not fit" in told
    assert steps == (6 if changed else 5)
    assert corrected["undone"]


def test_a_box_around_a_missed_object_outlines_it(corrected):
    assert corrected["box"][0] == 1
    assert "A new building" in corrected["box"][1]
    assert corrected["iou"] > 0.8
    assert corrected["new"] == ["building", "accepted", True, True]
    assert corrected["box again"] == [1, 0, "The building has another outline"]


def test_qgis_takes_nothing_away_that_the_analyst_did_not_mean(segmented_scene, tmp_path):
    layer = shutil.copy(segmented_scene.layer, tmp_path / "result.gpkg")
    told = play(tmp_path, SCENARIOS, "deletes_nothing", SCENE=str(segmented_scene.scene), LAYER=str(layer))
    assert told["untouched"]
    assert told["deleted_by_qgis"] == 1
    assert told["decisions_kept"] == [True, True]
    assert told["found"] == 0
    assert (told["written"], told["look"], told["in_project"]) == (True, True, False)
    assert told["list"] == "Choose a layer of polygons"
    assert "RuntimeError" not in told["stderr"]


def test_qgis_s_vertex_tool_is_a_key_away(corrected):
    assert corrected["vertices"] == [True, True]
