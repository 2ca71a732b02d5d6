"""The models that the engine holds ready."""

import os
import shutil
import weakref
from dataclasses import replace

import pytest

from rs4d_core.engine import models
from rs4d_core.engine.models import MOST_LOADED, ModelCache
from rs4d_core.errors import ModelFileError
from rs4d_core.models.checkpoint import load_model, save_model


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read for their checksum."""
    read, compute = [], models.file_sha256
    monkeypatch.setattr(models, "file_sha256", lambda path: read.append(path.name) or compute(path))
    return read


@pytest.fixture
def others(tmp_path, untrained_model):
    """Files of three models that differ in their names."""
    loaded = load_model(untrained_model, "cpu")
    paths = [tmp_path / f"{number}.safetensors" for number in range(3)]
    for number, path in enumerate(paths):
        save_model(path, loaded.segmenter, replace(loaded.card, name=f"model {number}"))
    return paths


def test_a_model_is_loaded_and_hashed_once(hashed, untrained_model):
    cache = ModelCache()
    first = cache.get(untrained_model, "auto")
    assert first.device_reason != "asked for"
    again = cache.get(untrained_model, "cpu")
    assert again.segmenter is first.segmenter
    assert again.device_reason == "asked for"
    assert hashed == [untrained_model.name]


def test_a_file_is_hashed_anew_only_when_it_has_changed(hashed, tmp_path, untrained_model, others):
    cache, path = ModelCache(), tmp_path / "model.safetensors"
    shutil.copy(untrained_model, path)
    first = cache.get(path, "cpu")
    os.utime(path, ns=(1, 1))
    assert cache.get(path, "cpu").segmenter is first.segmenter
    assert hashed == ["model.safetensors"] * 2
    os.replace(others[0], path)
    assert cache.get(path, "cpu").name == "model 0"
    assert len(hashed) == 3
    path.unlink()
    with pytest.raises(ModelFileError, match="no model file"):
        cache.get(path, "cpu")


def test_the_model_that_was_not_used_for_longest_goes(others):
    cache = ModelCache()
    held = [weakref.ref(cache.get(path, "cpu").segmenter) for path in others[:2]]
    cache.get(others[0], "cpu")
    cache.get(others[2], "cpu")
    assert MOST_LOADED == 2
    assert [reference() is not None for reference in held] == [True, False]


def test_the_same_model_under_two_names_is_one(tmp_path, untrained_model):
    cache = ModelCache()
    shutil.copy(untrained_model, tmp_path / "copy.safetensors")
    first = cache.get(untrained_model, "cpu")
    assert cache.get(tmp_path / "copy.safetensors", "cpu").segmenter is first.segmenter
