"""The engine as a process: what it answers, what it survives, and that it ends."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import geopandas as gpd
import pyogrio
import pytest
import rasterio
import shapely
import torch
from engine_process import COMMAND, Engine, is_alive, resident_mib
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from small_model import CLASSES

import rs4d_core
from rs4d_core.cli import main
from rs4d_core.datasets.synthetic import write_large_scene
from rs4d_core.engine.protocol import LONGEST_LINE
from rs4d_core.engine.server import MOST_WAITING
from rs4d_core.models.card import read_card
from rs4d_core.models.checkpoint import file_sha256, load_model, save_model

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and signals of POSIX")


@pytest.fixture(scope="module")
def engine():
    """One engine for all tests that leave it as it was."""
    with Engine() as engine:
        yield engine
        assert engine.process.poll() is None, engine.log


@pytest.fixture(scope="module")
def large_scene(tmp_path_factory):
    """484 windows of the untrained model: some 20 seconds."""
    path = tmp_path_factory.mktemp("large") / "large.tif"
    write_large_scene(path, 2048, 2048, seed=1)
    return path


def told(messages, method="instances"):
    return [message["params"] for message in messages if message.get("method") == method]


def code_of(answer):
    return answer["error"]["code"]


def test_hello_tells_who_is_there(engine, untrained_model, tmp_path):
    (tmp_path / "broken.safetensors").write_text("rubbish")
    folders = [str(untrained_model.parent), str(tmp_path), str(tmp_path / "missing")]
    result = engine.ask("hello", {"model_folders": folders})["result"]
    assert (result["version"], result["protocol"]) == (rs4d_core.__version__, 1)
    assert result["executable"] == sys.executable
    assert result["device"]["name"]
    assert result["device"]["reason"]
    assert (result["device"]["gpu"] is None) == (result["device"]["name"] == "cpu")
    models = {model["path"]: model for model in result["models"]}
    assert result["default_model"] in models
    found = models[str(untrained_model)]
    assert (found["name"], found["sha256"]) == ("untrained", file_sha256(untrained_model))
    assert found["card"]["classes"] == list(CLASSES)
    assert found["card"]["default_scores"] == [0.0, 0.0]
    assert "broken" in models[str(tmp_path / "broken.safetensors")]["error"]
    assert "cannot be read" in models[str(tmp_path / "missing")]["error"]


OPTIONS = {"bands": [3, 2, 1], "score": 0.001, "window_px": 96, "overlap_px": 32, "regularize": True, "device": "cpu"}
ARGUMENTS = [
    "--bands",
    "3,2,1",
    "--score",
    "0.001",
    "--window",
    "96",
    "--overlap",
    "32",
    "--regularize",
    "--device",
    "cpu",
]


def test_the_server_finds_what_the_command_finds_to_the_bit(engine, tmp_path, small_scene, untrained_model, capsys):
    by_command, by_server = tmp_path / "command.gpkg", tmp_path / "server.gpkg"
    assert main(["segment", str(small_scene), "-o", str(by_command), "--model", str(untrained_model), *ARGUMENTS]) == 0
    expected = gpd.read_file(by_command, layer="instances")
    assert len(expected) > 5
    request = {"scene": str(small_scene), "model": str(untrained_model), **OPTIONS}
    for output in (None, str(by_server)):
        answer, before = engine.until(engine.send("segment", {**request, "output": output}))
        features = [feature for message in told(before) for feature in message["features"]]
        assert [feature["wkb"] for feature in features] == shapely.to_wkb(
            expected.geometry.to_numpy(), hex=True
        ).tolist()
        assert [feature["class"] for feature in features] == expected["class"].tolist()
        assert [feature["score"] for feature in features] == expected["score"].tolist()
        assert [feature["area_m2"] for feature in features] == expected["area_m2"].tolist()
        result = answer["result"]
        assert (result["output"], result["instances"], result["interrupted"]) == (output, len(expected), False)
        assert result["by_class"] == {name: int((expected["class"] == name).sum()) for name in CLASSES}
        assert result["windows"] == result["windows_total"] > 1
    written = gpd.read_file(by_server, layer="instances")
    assert shapely.to_wkb(written.geometry.to_numpy()).tolist() == shapely.to_wkb(expected.geometry.to_numpy()).tolist()
    assert written.crs == expected.crs


def test_a_run_tells_its_place_and_record_before_its_first_window(engine, tmp_path, small_scene, untrained_model):
    output = tmp_path / "result.gpkg"
    request = {"scene": str(small_scene), "model": str(untrained_model), "output": str(output)}
    answer, before = engine.until(engine.send("segment", request))
    first = next(k for k, message in enumerate(before) if message["method"] == "instances")
    assert not any("windows_done" in message["params"] for message in before[:first])
    opening, result = before[first]["params"], answer["result"]
    assert opening["features"] == []
    assert gpd.GeoSeries([], crs=opening["crs_wkt"]).crs == gpd.read_file(output, layer="instances").crs
    assert {message["run"] for message in told(before)} == {result["run"]}
    assert opening["crs_wkt"] == result["crs_wkt"]
    assert opening["record"] == result["record"]
    (written,) = pyogrio.read_dataframe(output, layer="runs").to_dict("records")
    assert result["record"] == {
        **{name: written[name] for name in ("run", "time", "model", "model_sha256", "scene", "device")},
        "parameters": json.loads(written["parameters"]),
    }
    fractions = [message["fraction"] for message in told(before, "progress")]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    last = told(before, "progress")[-1]
    assert (last["windows_done"], last["windows"]) == (result["windows"], result["windows_total"])


def test_only_an_area_is_looked_at(engine, small_scene, untrained_model):
    with rasterio.open(small_scene) as scene:
        left, top, crs = scene.bounds.left, scene.bounds.top, scene.crs
    corner = shapely.Polygon([(left, top), (left + 60, top), (left, top - 60)])
    degrees = Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    drawn = shapely.transform(corner, degrees.transform, interleaved=False)
    area = {"wkb": shapely.to_wkb(drawn, hex=True), "crs_wkt": "EPSG:4326"}
    request = {"scene": str(small_scene), "model": str(untrained_model), "area": area}
    answer, before = engine.until(engine.send("segment", request))
    found = shapely.from_wkb([feature["wkb"] for message in told(before) for feature in message["features"]])
    assert len(found) == answer["result"]["instances"] > 0
    assert corner.buffer(0.5).contains(shapely.union_all(found))
    refused = engine.ask("segment", {**request, "area": {"wkb": "00", "crs_wkt": None}})
    assert (code_of(refused), refused["error"]["data"]) == (2, {"kind": "OptionError"})


def test_layers_are_evaluated_exported_and_worked_over(engine, tmp_path, small_scene, untrained_model):
    layer = tmp_path / "layer.gpkg"
    request = {"scene": str(small_scene), "model": str(untrained_model), "output": str(layer)}
    found = engine.ask("segment", request)["result"]["instances"]
    metrics = engine.ask("evaluate", {"predicted": str(layer), "reference": str(layer), "iou": 0.7})["result"]
    assert (metrics["f1"], metrics["iou"]) == (1, 0.7)
    exported = engine.ask("export", {"layer": str(layer), "output": str(tmp_path / "out.geojson")})["result"]
    assert exported["instances"] == found == len(gpd.read_file(tmp_path / "out.geojson"))
    request = {"layer": str(layer), "output": str(tmp_path / "ships.gpkg"), "classes": ["ship", "tree"], "merge": True}
    worked_over = engine.ask("postprocess", request)["result"]
    assert worked_over["by_class"].keys() == {"ship"}
    assert any("nothing of class tree in it; it has " in note for note in worked_over["notes"])
    assert len(gpd.read_file(tmp_path / "ships.gpkg", layer="instances")) == worked_over["instances"] < found


def test_what_the_user_did_wrong_is_told_in_one_line(engine, tmp_path, small_scene):
    answer = engine.ask("segment", {"scene": str(tmp_path / "missing.tif")})
    assert (code_of(answer), answer["error"]["data"]["kind"]) == (2, "SceneError")
    assert "missing.tif does not exist" in answer["error"]["message"]
    answer = engine.ask("segment", {"scene": str(small_scene), "model": "nowhere.safetensors"})
    assert answer["error"]["data"]["kind"] == "ModelFileError"
    answer = engine.ask("segment", {"scene": str(small_scene), "device": "abacus"})
    assert answer["error"]["data"]["kind"] == "OptionError"
    answer = engine.ask("export", {"layer": str(small_scene), "output": str(tmp_path / "out.geojson")})
    assert answer["error"]["data"]["kind"] == "LayerError"
    assert list(tmp_path.iterdir()) == []


def test_bad_messages_are_answered_and_survived(engine):
    for line, code in (
        (b"rubbish\n", -32700),
        (b"\xff\n", -32700),
        (b"[]\n", -32600),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "dance"}\n', -32601),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "segment"}\n', -32602),
        (b'{"jsonrpc": "2.0", "id": "x", "method": "hello", "params": {"model_folders": 5}}\n', -32602),
    ):
        engine.write(line)
        assert code_of(engine.next()) == code
    engine.write(b"\n  \n")
    for params in ({}, {"id": 999}, {"id": None}, {"id": [1]}, {"id": True}, {"id": 1.5}):
        engine.notify("cancel", params)
    engine.notify("dance", {"a": 1})
    answer, before = engine.until(engine.send("hello"))
    assert "result" in answer
    assert before == []


def test_a_line_without_end_costs_no_memory(engine):
    held = resident_mib(engine.process.pid)
    block = b"x" * (1 << 20)
    for _ in range(3 * (LONGEST_LINE >> 20)):
        engine.write(block)
    engine.write(b"\n")
    answer = engine.next()
    assert (code_of(answer), answer["id"]) == (-32600, None)
    assert "result" in engine.ask("hello")
    assert resident_mib(engine.process.pid) < held + 2.5 * (LONGEST_LINE >> 20)


MESSAGES = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]),
        "id": st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2),
        "method": st.sampled_from(["hello", "segment", "evaluate", "export", "postprocess", "cancel", "none", "", 3]),
        "params": st.none()
        | st.dictionaries(
            st.sampled_from(
                ["scene", "layer", "output", "predicted", "reference", "id", "score", "area", "bbox", "model"]
            ),
            st.none()
            | st.booleans()
            | st.integers()
            | st.floats()
            | st.text(max_size=8)
            | st.lists(st.integers(), max_size=4),
            max_size=4,
        )
        | st.lists(st.integers(), max_size=2),
    },
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(MESSAGES.map(lambda message: json.dumps(message).encode()) | st.binary(max_size=40), max_size=8))
def test_whatever_comes_is_answered_or_passed_over(engine, lines):
    lines = [line.replace(b"\n", b" ") for line in lines]
    engine.write(b"".join(line + b"\n" for line in lines))
    # `hello` may overtake what is worked on, but a request that is refused waits its turn among the others.
    barrier = engine.send("evaluate", {"predicted": "nowhere.gpkg", "reference": "nowhere.gpkg"})
    answer, before = engine.until(barrier)
    assert code_of(answer) == 2
    hello, more = engine.until(engine.send("hello"))
    assert "result" in hello
    answered = [message for message in before + more if "method" not in message]
    assert len(answered) <= len(lines)
    wanted = sum(_is_request(line) for line in lines)
    assert len(answered) >= wanted


def _is_request(line):
    try:
        message = json.loads(line)
    except ValueError:
        return bool(line.strip())
    return not isinstance(message, dict) or "id" in message


def test_requests_wait_in_line_but_hello_does_not(engine, large_scene, small_scene, untrained_model, soon_s):
    running = engine.send("segment", {"scene": str(large_scene), "model": str(untrained_model)})
    waiting = engine.send("segment", {"scene": str(small_scene), "model": str(untrained_model)})
    given_up = engine.send("segment", {"scene": str(small_scene), "model": str(untrained_model)})
    engine.started(running)
    begun = time.monotonic()
    hello, before = engine.until(engine.send("hello"))
    assert "result" in hello
    assert time.monotonic() - begun < soon_s
    assert all("method" in message for message in before)
    engine.notify("cancel", {"id": given_up})
    answer, before = engine.until(given_up)
    assert (code_of(answer), answer["error"]["message"]) == (3, "cancelled")
    assert {message["params"]["id"] for message in before} <= {running}
    params = {"predicted": "nowhere.gpkg", "reference": "nowhere.gpkg"}
    engine.write(json.dumps({"jsonrpc": "2.0", "id": running, "method": "evaluate", "params": params}).encode() + b"\n")
    assert code_of(engine.until(running)[0]) == -32600
    engine.notify("cancel", {"id": running})
    engine.notify("cancel", {"id": running})
    begun = time.monotonic()
    interrupted, before = engine.until(running)
    assert time.monotonic() - begun < soon_s
    assert interrupted["result"]["interrupted"]
    assert 0 < interrupted["result"]["windows"] < interrupted["result"]["windows_total"]
    result, before = engine.until(waiting)
    assert not result["result"]["interrupted"]
    assert {message["params"]["id"] for message in before} == {waiting}


def test_too_many_requests_are_refused(engine, large_scene, untrained_model):
    running = engine.send("segment", {"scene": str(large_scene), "model": str(untrained_model)})
    waiting = [engine.send("evaluate", {"predicted": "nowhere", "reference": "nowhere"}) for _ in range(MOST_WAITING)]
    one_more = engine.send("evaluate", {"predicted": "nowhere", "reference": "nowhere"})
    assert code_of(engine.until(one_more)[0]) == -32000
    engine.notify("cancel", {"id": running})
    engine.until(running)
    assert [code_of(engine.until(request)[0]) for request in waiting] == [2] * MOST_WAITING


def test_a_cancelled_run_keeps_and_tells_what_it_found(engine, tmp_path, large_scene, untrained_model, soon_s):
    output = tmp_path / "result.gpkg"
    request = {"scene": str(large_scene), "model": str(untrained_model), "output": str(output)}
    running = engine.send("segment", request)
    seen = []
    while len([p for p in told(seen, "progress") if p.get("windows_done", 0) >= 40]) < 1:
        seen.append(engine.next())
    begun = time.monotonic()
    engine.notify("cancel", {"id": running})
    answer, before = engine.until(running)
    assert time.monotonic() - begun < soon_s
    layer = gpd.read_file(output, layer="instances")
    features = [feature for message in told(seen + before) for feature in message["features"]]
    assert len(layer) == answer["result"]["instances"] == len(features) > 0
    assert shapely.to_wkb(layer.geometry.to_numpy(), hex=True).tolist() == [feature["wkb"] for feature in features]


def test_a_model_file_that_was_replaced_is_noticed(engine, tmp_path, small_scene, untrained_model):
    path = tmp_path / "model.safetensors"
    path.write_bytes(untrained_model.read_bytes())
    request = {"scene": str(small_scene), "model": str(path), "score": 1.0}
    first = engine.ask("segment", request)["result"]["record"]
    assert first["model_sha256"] == file_sha256(path)
    loaded = load_model(path, "cpu").segmenter
    with torch.no_grad():
        loaded.box_head.fc_cls.bias += 1
    save_model(path, loaded, read_card(path))
    second = engine.ask("segment", request)["result"]["record"]
    assert second["model_sha256"] == file_sha256(path) != first["model_sha256"]
    path.write_text("rubbish")
    assert engine.ask("segment", request)["error"]["data"]["kind"] == "ModelFileError"
    path.unlink()
    assert engine.ask("segment", request)["error"]["data"]["kind"] == "ModelFileError"


# From here on, engines that end.


def test_shutdown_is_answered_last_and_ends_the_process(large_scene, untrained_model, soon_s):
    with Engine() as engine:
        running = engine.send("segment", {"scene": str(large_scene), "model": str(untrained_model)})
        engine.started(running)
        begun = time.monotonic()
        answer, before = engine.until(engine.send("shutdown"))
        assert answer["result"] == {}
        (interrupted,) = (message for message in before if message.get("id") == running)
        assert interrupted["result"]["interrupted"]
        engine.ends_within(soon_s)
        assert time.monotonic() - begun < soon_s
        assert engine.process.returncode == 0


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_when_stdin_closes(large_scene, untrained_model, busy, soon_s):
    with Engine() as engine:
        if busy:
            engine.started(engine.send("segment", {"scene": str(large_scene), "model": str(untrained_model)}))
        else:
            engine.ask("hello")
        engine.process.stdin.close()
        engine.ends_within(soon_s)
        assert engine.process.returncode == 0


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_on_sigterm(large_scene, untrained_model, tmp_path, busy, soon_s):
    with Engine() as engine:
        output = tmp_path / "result.gpkg"
        if busy:
            request = {"scene": str(large_scene), "model": str(untrained_model), "output": str(output)}
            engine.started(engine.send("segment", request))
        else:
            engine.ask("hello")
        engine.process.send_signal(signal.SIGTERM)
        engine.ends_within(soon_s)
        assert engine.process.returncode == 130
    if busy:
        assert len(gpd.read_file(output, layer="instances")) > 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [".result.gpkg.unfinished", "result.gpkg"]


def test_it_ends_when_its_client_is_killed(large_scene, untrained_model, soon_s):
    """The client holds the only other ends of the pipes: the engine must not live on as an orphan."""
    client = (
        "import json, subprocess, sys\n"
        "engine = subprocess.Popen(sys.argv[3:], stdin=subprocess.PIPE, stdout=subprocess.PIPE)\n"
        "params = {'scene': sys.argv[1], 'model': sys.argv[2]}\n"
        "message = {'jsonrpc': '2.0', 'id': 1, 'method': 'segment', 'params': params}\n"
        "engine.stdin.write(json.dumps(message).encode() + b'\\n')\n"
        "engine.stdin.flush()\n"
        "while b'windows_done' not in engine.stdout.readline():\n"
        "    pass\n"
        "print(engine.pid, flush=True)\n"
        "engine.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", client, large_scene, untrained_model, *COMMAND],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            pid = int(running.stdout.readline())
            assert is_alive(pid)
        finally:
            running.kill()
        deadline = time.monotonic() + soon_s
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not is_alive(pid)


def test_it_ends_when_nobody_reads_its_answers_any_more(soon_s):
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        try:
            process.stdout.close()
            process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "hello"}\n')
            process.stdin.flush()
            assert process.wait(10 * soon_s) == 0
        finally:
            process.kill()


def test_a_client_that_does_not_read_costs_no_memory_and_can_still_end_it(large_scene, untrained_model, soon_s):
    process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        try:
            params = {"scene": str(large_scene), "model": str(untrained_model), "device": "cpu"}
            message = {"jsonrpc": "2.0", "id": 1, "method": "segment", "params": params}
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()
            while b"windows_done" not in process.stdout.readline():
                pass
            os.set_blocking(process.stdin.fileno(), False)
            held, sent = resident_mib(process.pid), 0
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline:  # bad messages, each of which wants an answer
                sent += os.write(process.stdin.fileno(), b"rubbish\n" * 500) if _writable(process.stdin) else 0
                time.sleep(0.002)
            assert sent > 100_000
            assert resident_mib(process.pid) < held + 120
            process.stdout.close()
            process.wait(soon_s)
        finally:
            process.kill()


def _writable(pipe):
    return bool(select.select([], [pipe], [], 0)[1])


def test_what_libraries_print_is_no_message():
    script = (
        "import os, sys\n"
        "from rs4d_core.engine import server\n"
        "stdin, stdout = server._take_over_stdio()\n"
        "print('a library prints', flush=True)\n"
        "os.system('echo a program prints; cat')\n"
        "os.write(stdout, b'a message: ' + stdin.readline())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], input=b"hello\n", capture_output=True, check=True)
    assert done.stdout == b"a message: hello\n"
    assert b"a library prints" in done.stderr
    assert b"a program prints" in done.stderr


def engine_with(methods: str) -> list[str]:
    """The command of an engine in which methods have been replaced by a script."""
    return [
        sys.executable,
        "-c",
        f"import sys, time\nfrom pathlib import Path\nfrom rs4d_core.engine import methods\n{methods}\n"
        "from rs4d_core.cli import command\nsys.argv = ['rs4d', 'serve']\ncommand()\n",
    ]


def test_its_own_faults_are_answered_and_survived():
    broken = "def broken(job, models): raise KeyError('a bug')\nmethods.METHODS['evaluate'] = broken"
    with Engine(engine_with(broken)) as engine:
        answer = engine.ask("evaluate", {"predicted": "a", "reference": "b"})
        assert answer["error"] == {"code": 1, "message": "internal error, please report it: KeyError: 'a bug'"}
        assert engine.ask("hello")["result"]["protocol"] == 1
        engine.process.stdin.close()
        engine.ends_within(5)
        assert any("Traceback" in line for line in engine.log)


STUCK = """
def stuck(job, models):
    from rs4d_core.scenes.writers.replacement import Replacement
    Replacement(Path(job.params["output"])).part(".gpkg").write_text("half of it")
    job.tell("progress", {})
    time.sleep(60)
    return {}
methods.METHODS["export"] = stuck
"""


def test_work_that_cannot_be_stopped_is_given_up(tmp_path, soon_s):
    with Engine(engine_with(STUCK)) as engine:
        request = engine.send("export", {"layer": "a", "output": str(tmp_path / "out.gpkg")})
        engine.next()
        begun = time.monotonic()
        engine.notify("cancel", {"id": request})
        assert code_of(engine.until(request)[0]) == 3
        assert time.monotonic() - begun < soon_s
        assert len(list(tmp_path.iterdir())) == 2
        engine.process.stdin.close()
        engine.ends_within(soon_s)
    assert list(tmp_path.iterdir()) == []
