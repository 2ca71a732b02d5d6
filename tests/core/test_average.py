"""Averaging the weights of two model files."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_model import small_config, write_untrained_model

from rs4d_core.models.checkpoint import load_model, save_model
from rs4d_core.models.segmenter import Segmenter

AVERAGE = Path(__file__).parents[2] / "training" / "average.py"


@pytest.fixture
def pair(tmp_path):
    """Two model files that differ in weights, data, figures and in how many proposals they make."""
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    write_untrained_model(first)
    model = load_model(first, "cpu")
    own, other = ({"name": name, "licence": "none stated"} for name in ("own", "other"))
    save_model(first, model.segmenter, dataclasses.replace(model.card, training_data=(own, other)))
    config = model.card.config
    rpn = dataclasses.replace(config.rpn, class_proposals=3)
    config = dataclasses.replace(config, rpn=rpn, mask_scores=True, second_look=True)
    card = dataclasses.replace(
        model.card, name="second", config=config, training_data=(own,), metrics={"own": {"images": 1}}
    )
    torch.manual_seed(1)
    save_model(second, Segmenter(config), card)
    return first, second


def _average(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, AVERAGE, *map(str, arguments)], capture_output=True, text=True, check=False)


def test_an_average_lies_between_the_two_and_claims_no_figures(pair, tmp_path):
    output = tmp_path / "average.safetensors"
    done = _average(*pair, "--share", 0.25, "-o", output)
    assert done.returncode == 0, done.stderr
    first, second, average = (load_model(path, "cpu") for path in (*pair, output))
    others, found = second.segmenter.state_dict(), average.segmenter.state_dict()
    for name, weight in first.segmenter.state_dict().items():
        if weight.is_floating_point():
            torch.testing.assert_close(found[name], torch.lerp(weight, others[name], 0.25), rtol=1e-3, atol=1e-4)
    assert average.card.name == "second"
    assert average.card.config == second.card.config
    assert [entry["name"] for entry in average.card.training_data] == ["own", "other"]
    assert average.card.metrics == {}, "what was measured on another model"


def test_models_that_cannot_come_from_one_another_are_refused(pair, tmp_path):
    output, wider = tmp_path / "average.safetensors", tmp_path / "wider.safetensors"
    config = small_config(dim=48)
    save_model(wider, Segmenter(config), dataclasses.replace(load_model(pair[0], "cpu").card, config=config))
    refused = _average(pair[0], wider, "-o", output)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "differ in architecture or classes" in refused.stderr
    assert not output.exists()
