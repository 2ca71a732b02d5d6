"""The plugin's client against the real engine."""

import itertools
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from qgis.PyQt.QtCore import QEventLoop, QTimer

from rs4d_qgis.engine.client import EngineClient
from rs4d_qgis.engine.errors import Cancelled, EngineDied, EngineNotFound, RequestFailed
from rs4d_qgis.engine.locate import EngineLocation
from rs4d_qgis.engine.tasks import EngineTask

ENGINE_PYTHON = str(Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python")


@pytest.fixture(scope="module")
def engine(qgis_app):
    client = EngineClient(lambda: EngineLocation(ENGINE_PYTHON, "setting"))
    yield client
    client.close()


@pytest.fixture
def long_run(utm_scene, untrained_model) -> dict:
    """A run of hundreds of windows."""
    return {"scene": str(utm_scene), "model": str(untrained_model), "resolution_m": 0.05}


def running(pid: int) -> bool:
    state = subprocess.run(["ps", "-o", "state=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return state.strip() not in ("", "Z")


def first_window_done(heard: list) -> bool:
    return any(method == "progress" and params.get("windows_done") for method, params in heard)


def test_requests_in_a_row_go_to_one_engine(engine, utm_scene, untrained_model):
    hello = engine.request("hello", {})
    assert hello["protocol"] == 1
    assert hello["executable"] == ENGINE_PYTHON
    pid = engine._process.pid
    heard = []
    params = {"scene": str(utm_scene), "model": str(untrained_model)}
    first = engine.request("segment", params, lambda method, told: heard.append((method, told)))
    fractions = [told["fraction"] for method, told in heard if method == "progress"]
    features = [feature for method, told in heard if method == "instances" for feature in told["features"]]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert len(features) == first["instances"] > 0
    assert engine.request("segment", params)["by_class"] == first["by_class"]
    assert engine._process.pid == pid


def test_a_refusal_tells_the_reason_and_the_engine_goes_on(engine):
    with pytest.raises(RequestFailed, match=r"/nowhere\.tif does not exist") as refusal:
        engine.request("segment", {"scene": "/nowhere.tif"})
    assert (refusal.value.code, refusal.value.kind) == (2, "SceneError")
    assert engine.request("hello", {})["protocol"] == 1


def test_a_cancel_is_answered_within_two_seconds_with_what_was_found(engine, long_run, soon_s):
    heard, asked = [], []

    def cancelled():
        if first_window_done(heard):
            asked.append(time.monotonic())
        return bool(asked)

    result = engine.request("segment", long_run, lambda *told: heard.append(told), cancelled)
    assert time.monotonic() - asked[0] < soon_s
    assert result["interrupted"]
    assert 0 < result["windows"] < result["windows_total"]
    assert engine.request("hello", {})["protocol"] == 1


def test_what_a_listener_raises_ends_the_run(engine, long_run):
    def break_down(method, params):
        raise KeyError(method)

    with pytest.raises(KeyError):
        engine.request("segment", long_run, break_down)
    # The engine works one request after the other: this one would wait for a run that went on.
    start = time.monotonic()
    with pytest.raises(RequestFailed):
        engine.request("segment", {"scene": "/nowhere.tif"})
    assert time.monotonic() - start < 4


def test_threads_get_their_own_answers(engine, utm_scene, untrained_model):
    answers = {}

    def ask(resolution_m):
        params = {"scene": str(utm_scene), "model": str(untrained_model), "resolution_m": resolution_m}
        answers[resolution_m] = engine.request("segment", params)["record"]["parameters"]["resolution_m"]

    threads = [threading.Thread(target=ask, args=(resolution_m,)) for resolution_m in (0.5, 0.6, 0.7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == pytest.approx({resolution_m: resolution_m for resolution_m in (0.5, 0.6, 0.7)}, rel=1e-3)


def test_an_engine_that_is_killed_says_so_and_the_next_request_has_a_new_one(engine, long_run):
    def kill(method, params):
        os.kill(engine._process.pid, signal.SIGKILL)

    engine.request("hello", {})
    killed = engine._process.pid
    with pytest.raises(EngineDied, match=r"SIGKILL, most likely out of memory.*It said last: .*listening") as death:
        engine.request("segment", long_run, kill)
    assert death.value.log
    assert not engine.running()
    assert engine.request("hello", {})["protocol"] == 1
    assert engine._process.pid != killed


def test_closing_in_the_middle_of_a_run_is_quick_and_leaves_no_process(engine, long_run, soon_s):
    heard, ends = [], []

    def run():
        try:
            result = engine.request("segment", long_run, lambda *told: heard.append(told))
            ends.append(result["interrupted"])  # the engine had the time to say how far it came
        except Cancelled:
            ends.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    while not first_window_done(heard):
        time.sleep(0.02)
    pid = engine._process.pid
    assert engine.busy()
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < soon_s
    thread.join(1)
    assert ends == [True]
    assert not running(pid)
    assert not engine.running()


def test_another_interpreter_is_taken_once_the_engine_is_idle(engine):
    engine.request("hello", {})
    pid = engine._process.pid
    engine.request("hello", {})
    assert engine._process.pid == pid
    engine.look_again()
    engine.request("hello", {})
    assert engine._process.pid != pid
    assert not running(pid)


def test_a_python_without_engine_is_told_apart(qgis_app):
    client = EngineClient(lambda: EngineLocation("/usr/bin/python3", "setting"))
    with pytest.raises(EngineNotFound, match=r"/usr/bin/python3 is a Python without the engine .*Check engine"):
        client.request("hello", {})
    assert not client.running()


def test_the_user_interface_goes_on_while_the_engine_starts_and_works(qgis_app, utm_scene, untrained_model):
    client = EngineClient(lambda: EngineLocation(ENGINE_PYTHON, "setting"))
    params = {"scene": str(utm_scene), "model": str(untrained_model)}
    task = EngineTask("test", lambda task: client.request("segment", params, cancelled=task.isCanceled))
    loop, ticks, results = QEventLoop(), [], []
    timer = QTimer()
    timer.timeout.connect(lambda: ticks.append(time.monotonic()))
    task.succeeded.connect(results.append)
    task.succeeded.connect(loop.quit)
    task.failed.connect(loop.quit)
    timer.start(10)
    start = time.monotonic()
    task.start()
    loop.exec()
    seconds = time.monotonic() - start
    client.close()
    assert results[0]["instances"] > 0
    assert len(ticks) > 20 * seconds
    assert max(after - before for before, after in itertools.pairwise(ticks)) < 0.5


def test_a_failed_task_says_why_on_the_main_thread(qgis_app):
    client = EngineClient(lambda: EngineLocation("/nowhere/python", "setting"))
    task = EngineTask("test", lambda task: client.request("hello", {}))
    loop, told = QEventLoop(), []
    task.failed.connect(lambda message: told.append((message, threading.current_thread())))
    task.failed.connect(loop.quit)
    task.start()
    loop.exec()
    ((message, thread),) = told
    assert message.startswith("/nowhere/python cannot be started")
    assert thread is threading.main_thread()
