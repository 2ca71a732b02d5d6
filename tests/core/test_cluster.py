"""A scene over a real Dask cluster of two processes of this machine, and what becomes of a run when parts of it die."""

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import rasterio

from rs4d_core import cli
from rs4d_core.datasets.synthetic import generate_scene, write_scene
from rs4d_core.errors import ClusterError, OptionError
from rs4d_core.models.checkpoint import load_model
from rs4d_core.scenes.cluster import cluster_windows as cluster_module
from rs4d_core.scenes.cluster.cluster_windows import cluster_windows
from rs4d_core.scenes.cluster.dask_cluster import open_cluster, workers_folder
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.prediction.local_windows import LocalWindows

RS4D = Path(sys.executable).with_name("rs4d")
DASK = Path(sys.executable).with_name("dask")
# Of the untrained model: 6 x 5 windows, in stretches of 4.
SIZE, WINDOWS = (600, 500), 30
STRETCH_PX = 4 * 128**2
OPTIONS = SegmentOptions(regularize=True)
# Of the command: 170 windows, which take a while.
LONG = ("--window", "384", "--overlap", "370")


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("distributed") / "scene.tif"
    write_scene(generate_scene(5, *SIZE, 0.5), path)
    return path


@pytest.fixture(scope="module")
def model(untrained_model):
    return load_model(untrained_model, "cpu")


@pytest.fixture(scope="module")
def cluster():
    with open_cluster("local:2", "cpu") as cluster:
        yield cluster


@pytest.fixture
def source(cluster, untrained_model, monkeypatch):
    make_small(monkeypatch)
    return cluster_windows(cluster, untrained_model, OPTIONS)


def make_small(monkeypatch) -> None:
    """Many short stretches, few of them on their way: most of a run is still to come when its first window is told."""
    monkeypatch.setattr(cluster_module, "STRETCH_PX", STRETCH_PX)
    monkeypatch.setattr(cluster_module, "AHEAD", 1)
    monkeypatch.setattr(cluster_module, "FETCHED", 1)


def segment(scene, model, source=LocalWindows, on_progress=None, cancelled=lambda: False):
    """What a run says in the end, and all features exactly as they were told, in their order."""
    told = []
    result = segment_scene(scene, None, model, OPTIONS, on_progress, told.extend, cancelled, source=source)
    return result, [(feature.class_name, feature.score, feature.geometry.wkb) for feature in told]


@pytest.fixture(scope="module")
def alone(scene, model):
    """The features that one process finds."""
    result, features = segment(scene, model)
    assert result.windows == WINDOWS
    assert len(features) > 20
    return features


def kill(cluster, count: int) -> list[int]:
    """SIGKILL for some of its worker processes, which Dask starts anew."""
    pids = [nanny.pid for nanny in cluster.client.cluster.workers.values() if nanny.pid is not None][:count]
    for pid in pids:
        with suppress(ProcessLookupError):  # dead already, which its nanny has not noticed yet
            os.kill(pid, signal.SIGKILL)
    return pids


def test_a_cluster_finds_what_one_process_finds(scene, model, alone, source):
    steps = []
    result, features = segment(scene, model, source, steps.append)
    assert features == alone
    assert [step.windows_done for step in steps] == list(range(1, WINDOWS + 1))
    assert steps[-1].seconds_left == 0
    assert result.model_seconds > 0


def test_workers_do_not_need_the_model_file(scene, model, alone, cluster, untrained_model, tmp_path):
    copy = tmp_path / "model.safetensors"
    copy.write_bytes(untrained_model.read_bytes())
    source = cluster_windows(cluster, copy, OPTIONS)
    copy.unlink()
    assert segment(scene, model, source)[1] == alone


def test_a_worker_that_dies_costs_nothing_but_time(scene, model, alone, cluster, source):
    killed = []

    def kill_one(step):
        if step.windows_done == 5:
            killed.extend(kill(cluster, 1))

    result, features = segment(scene, model, source, kill_one)
    assert len(killed) == 1
    assert not result.interrupted
    assert features == alone


def test_windows_that_end_every_worker_are_named(scene, model, cluster, source):
    def allow(failures, dask_scheduler):
        before, dask_scheduler.allowed_failures = dask_scheduler.allowed_failures, failures
        return before

    said = r"1 worker ended over (windows \d+ to \d+|taking the model in), .* more memory"
    before = cluster.client.run_on_scheduler(allow, 0)
    try:
        with pytest.raises(ClusterError, match=said):
            segment(scene, model, source, lambda step: kill(cluster, 2))
    finally:
        cluster.client.run_on_scheduler(allow, before)


def test_a_cancelled_run_ends_and_leaves_the_cluster_ready(scene, model, alone, source):
    done = []
    result, features = segment(scene, model, source, done.append, cancelled=lambda: len(done) >= 6)
    assert result.interrupted
    assert 6 <= result.windows < WINDOWS
    assert features
    assert segment(scene, model, source)[1] == alone


def test_a_scene_that_only_the_client_can_open_is_said_to_be_missing(scene, model, source):
    said = r"worker tcp://127.0.0.1:\d+ \(on .*\) cannot read the scene: .*vsimem"
    memory = rasterio.MemoryFile(scene.read_bytes(), filename="scene.tif")
    with memory as file, pytest.raises(ClusterError, match=said):
        segment(file.name, model, source)


def test_another_scene_under_the_same_name_is_noticed(scene, model, alone, source, tmp_path):
    path = tmp_path / "scene.tif"
    path.write_bytes(scene.read_bytes())

    def replaced(*arguments):
        made = source(*arguments)
        path.unlink()
        write_scene(generate_scene(5, 700, 500, 0.5), path)
        return made

    with pytest.raises(ClusterError, match="sees another scene under"):
        segment(path, model, replaced)


def test_a_model_that_changes_between_reading_and_sending_is_noticed(scene, model, source):
    with pytest.raises(ClusterError, match="the model did not reach worker"):
        segment(scene, replace(model, sha256="0" * 64), source)


def test_the_size_of_windows_is_not_left_to_the_memory_of_the_client(cluster, untrained_model):
    with pytest.raises(OptionError, match="give a number of pixels"):
        cluster_windows(cluster, untrained_model, SegmentOptions(window_px="auto"))


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("local:0", "give local:1 to local:"),
        ("local:two", "give local:1 to local:"),
        ("local:" + "9" * 5000, "cluster 'local:999"),
        ("node7:8786", "give tcp://HOST:PORT of a Dask scheduler, or local:N"),
        ("tcp://127.0.0.1:9", "no Dask scheduler answers at tcp://127.0.0.1:9"),
        ("tls://127.0.0.1:9", "asks for certificates"),
        ("carrier-pigeon://127.0.0.1:9", "no Dask scheduler answers at carrier-pigeon://127.0.0.1:9"),
    ],
)
def test_a_wrong_address_is_one_line(scene, untrained_model, tmp_path, capfd, monkeypatch, where, said):
    monkeypatch.setattr("rs4d_core.scenes.cluster.dask_cluster.CONNECT_S", 1)
    out = tmp_path / "out.geojson"
    command = ["segment", str(scene), "-o", str(out), "--model", str(untrained_model), "--cluster", where]
    assert cli.main(command) == cli.BAD_INPUT
    told = capfd.readouterr()
    assert said in told.err
    assert told.err.count("\n") == 1
    assert not out.exists()


def test_without_dask_it_is_said_what_to_install(scene, untrained_model, tmp_path, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    command = ["segment", str(scene), "-o", str(tmp_path / "out.geojson"), "--model", str(untrained_model)]
    assert cli.main([*command, "--cluster", "local:1"]) == cli.BAD_INPUT
    assert "[cluster]" in capfd.readouterr().err


def test_workers_do_not_outlive_a_client_that_is_interrupted_or_killed(scene, untrained_model, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    command = [RS4D, "segment", scene, "-o", tmp_path / "out.gpkg", "--model", untrained_model, "--cluster", "local:1"]
    for number in (signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen([*command, *LONG], stderr=subprocess.PIPE, text=True) as client:
            before = [line := client.stderr.readline()]
            while line and " of 170 windows" not in line:
                before.append(line := client.stderr.readline())
            children = psutil.Process(client.pid).children(recursive=True)
            listening = [
                connection.laddr.ip
                for process in [psutil.Process(client.pid), *children]
                for connection in process.net_connections()
                if connection.status == psutil.CONN_LISTEN
            ]
            client.send_signal(number)
            said = client.stderr.read()
        assert listening
        assert set(listening) == {"127.0.0.1"}
        assert psutil.wait_procs(children, timeout=30)[1] == []
        left = list(tmp_path.glob("rs4d-cluster-*"))
        if number == signal.SIGINT:
            assert client.returncode == 130
            assert "finished window" in said
            assert left == []
    assert "goes on with run" in before[0]
    assert len(left) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with workers_folder() as folder:
        assert list(tmp_path.glob("rs4d-cluster-*")) == [Path(folder)]
        with workers_folder():
            assert Path(folder).exists()


def test_a_cluster_that_somebody_else_runs(scene, model, alone, untrained_model, tmp_path, monkeypatch):
    """And that goes away in the middle of the second run."""
    make_small(monkeypatch)
    file = str(tmp_path / "scheduler.json")
    common = ["--scheduler-file", file, "--no-dashboard", "--host", "127.0.0.1"]
    scheduler = subprocess.Popen([DASK, "scheduler", *common, "--port", "0"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    worker = subprocess.Popen(
        [DASK, "worker", *common, "--nworkers", "1", "--nthreads", "2", "--local-directory", tmp_path],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
    )
    try:
        address = wait_for_workers(file)
        with open_cluster(address, "cpu") as cluster:
            source = cluster_windows(cluster, untrained_model, OPTIONS)
            assert segment(scene, model, source)[1] == alone
            with pytest.raises(ClusterError, match=f"the Dask scheduler at {address} has gone"):
                segment(scene, model, source, on_progress=lambda step: scheduler.kill())
    finally:
        for process in (worker, scheduler):
            process.kill()
            process.wait()


def wait_for_workers(scheduler_file: str) -> str:
    """The address of a scheduler, once it has a worker."""
    from distributed import Client

    with Client(scheduler_file=scheduler_file, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=60)
        return client.scheduler.address
