"""How kernels are compiled and shared out."""

import threading

import pytest
import torch

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
