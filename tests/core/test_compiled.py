"""How kernels are compiled and shared out."""

import importlib
import sys
import threading

import numba
import pytest
import torch

from rs4d_core.ops import compiled as compiling
from rs4d_core.ops.compiled import compiled, run_spans


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_a_kernel_compiles_where_no_cache_can_be_written():
    # numba finds no place for a cache of a function that comes from no file, as in a folder it may not write to.
    names = {}
    exec("def double(x):\n    return 2 * x", names)
    assert compiled()(names["double"])(21) == 42


def test_a_kernel_is_rebuilt_when_a_file_changes_from_which_it_imports(tmp_path, monkeypatch):
    def share(factor):
        text = f"from rs4d_core.ops.compiled import compiled\n\n\n@compiled()\ndef factor():\n    return {factor}\n"
        (tmp_path / "scan_steps.py").write_text(text)

    def load():
        """The kernel as a new process gets it."""
        for name in ("scan_steps", "kernel_that_imports"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        compiling._shared_stamp.cache_clear()
        return importlib.import_module("kernel_that_imports").scaled

    for name in compiling._SHARED:
        (tmp_path / name).touch()
    share(2)
    (tmp_path / "kernel_that_imports.py").write_text(
        "from rs4d_core.ops.compiled import compiled\nfrom scan_steps import factor\n\n\n"
        "@compiled()\ndef scaled(x):\n    return factor() * x\n"
    )
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiled.py"))
    monkeypatch.syspath_prepend(tmp_path)
    try:
        assert load()(21) == 42
        again = load()
        assert again(21) == 42
        assert sum(again.stats.cache_hits.values()) == 1
        share(30)
        assert load()(21) == 630
    finally:
        for name in ("scan_steps", "kernel_that_imports"):
            sys.modules.pop(name, None)
        compiling._shared_stamp.cache_clear()


def test_a_kernel_compiles_with_a_numba_that_keeps_its_stamp_elsewhere(monkeypatch):
    monkeypatch.setattr(compiling, "njit", lambda cache, **options: numba.njit(**options))

    @compiled()
    def double(x):
        return 2 * x

    assert double(21) == 42


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize("tasks", [0, 1, 2, 3, 11, 100])
def test_every_task_runs_once(tasks):
    done, lock = [], threading.Lock()

    def kernel(start, stop):
        with lock:
            done.extend(range(start, stop))

    run_spans(kernel, tasks)
    assert sorted(done) == list(range(tasks))


@pytest.mark.usefixtures("three_threads")
def test_an_error_in_a_kernel_reaches_the_caller():
    def kernel(start, stop):
        if start <= 7 < stop:
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        run_spans(kernel, 20)
