"""The panel in a real QGIS desktop, used with the mouse, with the real engine."""

import re
import time
from pathlib import Path

import pytest
from PIL import Image

SCENARIOS = Path(__file__).resolve().parent / "dock_scenarios.py"
# Between two looks of the driver, which itself takes pictures and clicks: what a user would feel as a stutter.
LONGEST_PAUSE_MS = 1000


@pytest.fixture
def play(desk, segmented_scene):
    """A scenario with the generated scene, reported."""

    def run(scenario, **more):
        return desk(SCENARIOS, scenario, SCENE=str(segmented_scene.scene), **more)

    return run


def pixels_of(colors, picture):
    """How many pixels of a picture have one of these colours, which nothing in a scene has."""
    wanted = {tuple(bytes.fromhex(color[1:])) for color in colors}
    with Image.open(picture) as image:
        counts = image.convert("RGB").getcolors(image.width * image.height)
    return sum(count for count, color in counts if color in wanted)


def contains(outer, inner, by=0.0):
    west, south, east, north = outer
    return west - by <= inner[0] and south - by <= inner[1] and inner[2] <= east + by and inner[3] <= north + by


def test_draw_an_extent_run_and_see_polygons_then_reopen_the_run(play, tmp_path):
    told = play("draw_and_run")
    assert re.fullmatch(
        r"This layer has 0\.5 m a pixel, the model expects [\d.]+ to [\d.]+ m: it will be read as it is\.",
        told["reading"],
    )
    assert "known after the first run" in told["before"]
    assert told["after"].startswith("1 window, about ")
    assert told["tool_is_back"]
    assert not told["run_button_while_busy"]
    result = told["result"]
    assert result["count"] > 0
    assert f"{result['count']} instance" in told["said"]
    assert contains(told["drawn"], result["extent"], by=1.0)
    assert Path(result["file"]).parent == tmp_path / "home" / "Documents" / "RS4D"
    assert str(Path(result["file"]).parent) in told["said"]
    assert result["group"].startswith("harbour ")
    assert result["above"]
    assert result["renderer"] == "categorizedSymbol"
    assert any("rs4d-tiny" in line for line in result["history"])
    assert told["live"] == 0
    assert told["reviewed"] == [True, result["count"]]
    assert told["panels_lie_together"]
    assert told["slowest_ms"] < LONGEST_PAUSE_MS
    outlines = [pixels_of(told["colors"], tmp_path / f"{name}.png") for name in ("before", "after")]
    assert outlines[0] < 10 < outlines[1]

    again = play("past_run_again")
    assert f"harbour: {result['count']} found" in again["menu"][0]
    assert again["drawn"] == told["drawn"]
    assert again["layer"] == "harbour"
    assert again["results"] == [[result["count"], result["group"]]]
    assert contains(again["view"], told["drawn"], by=1.0)


def test_cancel_answers_within_two_seconds_and_keeps_what_was_found(play):
    told = play("live_then_cancel")
    assert told["while_running"]["live"] > 0
    assert "windows" in told["while_running"]["said"]
    assert told["said_at_once"] == "Cancelling. What was found is kept."
    assert told["cancel_s"] < 2.0
    assert told["result"]["count"] >= told["while_running"]["live"]
    assert told["said"].startswith(f"Cancelled. The {told['result']['count']} instances found until then are kept.")
    assert told["live"] == 0
    assert told["slowest_ms"] < LONGEST_PAUSE_MS


def test_where_a_result_is_stays_clear_when_its_project_is_closed(play, tmp_path):
    told = play("project_closed")
    (result,) = (tmp_path / "home" / "Documents" / "RS4D").glob("*.gpkg")
    assert told["said"].startswith("Cancelled. The ")
    assert told["said"].endswith(f" Saved as {result}.")
    assert told["said_then"] == ""


def test_a_dead_engine_is_told_what_was_found_is_kept_and_the_next_run_works(play):
    told = play("engine_killed")
    assert "ended unexpectedly" in told["said"]
    assert any("ended unexpectedly" in text for text in told["bar"])
    assert told["kept"][0] >= told["found"]
    assert told["live"] == 0
    assert "found" in told["next"]
    assert told["results"] == 2


def test_without_an_engine_the_panel_says_what_to_do(play):
    told = play("no_engine", engine="/nowhere/python")
    assert told["panel_s"] < 1.0
    assert "does not exist" in told["engine"]
    assert told["setup"]
    assert not told["run"]
    assert told["messages"] == []
    assert "Traceback" not in told["stderr"]


def test_finding_nothing_leads_on(play):
    told = play("nothing_found")
    assert told["said"] == "Nothing was found."
    assert told["ways"] == ["Accept scores from 0.50", "Read at 0.15 m", "Search the whole layer"]
    assert (told["layers"], told["groups"]) == (1, 0)
    assert told["zone"]["crs_text"] == "EPSG:4326"
    assert told["extent_now"] == "whole"


@pytest.mark.parametrize("scenario", ["quit_while_running", "quit_rudely"])
def test_closing_qgis_in_a_run_neither_hangs_nor_crashes_nor_leaves_an_engine(play, tmp_path, scenario):
    told = play(scenario)
    # With the time that QGIS and the virtual screen take to end by themselves.
    assert time.time() - told["quit_at"] < 15.0
    assert not Path(f"/proc/{told['engine_pid']}").exists()
    assert "Traceback" not in told["stderr"]
    (result,) = (tmp_path / "home" / "Documents" / "RS4D").glob("*.gpkg")
    assert result.stat().st_size > 0
