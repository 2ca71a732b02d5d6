"""An engine that is killed in the middle of a run, and the next one that goes on."""

import pytest
from engine_process import Engine

from rs4d_core.datasets.synthetic import generate_scene, write_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    path = tmp_path_factory.mktemp("scene") / "scene.tif"
    write_scene(generate_scene(3, 512, 384, 0.5), path)
    return path


def segmented(engine: Engine, request: dict, until: int | None = None) -> tuple[dict | None, list, str]:
    """The result, the instances told and the run; and no result after some windows, where that is all to wait for."""
    told, run = [], ""
    engine.send("segment", request)
    while True:
        message = engine.next()
        params = message.get("params", {})
        if message.get("method") == "instances":
            told += [tuple(feature.values()) for feature in params["features"]]
            run = params["run"]
        elif message.get("method") == "progress":
            if until is not None and params.get("windows_done", 0) >= until:
                return None, told, run
        else:
            return message["result"], told, run


def test_a_run_of_a_killed_engine_goes_on_in_the_next_one(scene, untrained_model, tmp_path):
    request = {"scene": str(scene), "model": str(untrained_model), "window_px": 64, "overlap_px": 16, "score": 0.05}
    with Engine() as engine:
        _, wanted, _ = segmented(engine, request)
        assert len(wanted) > 5
        request["journal"] = str(tmp_path / "qgis")
        _, _, run = segmented(engine, request, until=8)
    with Engine() as engine:
        result, told, again = segmented(engine, request)
    assert again == run == result["run"]
    assert told == wanted
    assert any("goes on with run" in note for note in result["notes"])
    assert list(tmp_path.iterdir()) == []
