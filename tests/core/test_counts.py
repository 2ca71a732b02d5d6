"""The size and work of the encoders, against the method's table and against torch's FLOP counter."""

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch

from rs4d_core.evaluation.counts import count_all, count_encoder, encoder_macs, matrix_macs
from rs4d_core.models.config import preset
from rs4d_core.models.encoder import Encoder

REPOSITORY = Path(__file__).parents[2]
# The method's table: millions of parameters without the position embedding.
PUBLISHED_MILLIONS = {"small": 7.2, "base": 10.7, "large": 15.5, "huge": 17.7}


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_MILLIONS.items())
def test_parameters_are_those_of_the_method(name, millions):
    assert count_encoder(preset(name, ("ship",)).encoder).parameters == pytest.approx(millions * 1e6, rel=0.01)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_all_but_our_own_kernels_agree_with_the_flop_counter(name):
    config = preset(name, ("ship",)).encoder
    expected = encoder_macs(config, 256)
    del expected["scan"], expected["conv"], expected["dt_proj"]
    assert matrix_macs(Encoder(config), torch.zeros(1, 3, 256, 256)) == sum(expected.values())


def test_base_is_8_times_smaller_and_9_times_cheaper_than_sam():
    pytest.importorskip("transformers", reason="SAM ViT-B is counted with transformers (extra 'train')")
    figures = count_all()
    assert figures["sam_vit_b"]["macs_1024"] == pytest.approx(486e9, rel=0.01)
    assert figures["presets"]["base"]["macs_1024"] == pytest.approx(51e9, rel=0.01)
    assert figures["ratios"]["base"]["parameters"] >= 8.0
    assert figures["ratios"]["base"]["macs"] >= 9.0
    assert 3e6 <= figures["presets"]["tiny"]["total_parameters"] <= 6.2e6


def test_benchmark_prints_one_json_object(monkeypatch, capsys):
    pytest.importorskip("transformers", reason="SAM ViT-B is counted with transformers (extra 'train')")
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--only", "counts", "--json"])
    with pytest.raises(SystemExit) as exit_:
        runpy.run_path(str(REPOSITORY / "training" / "benchmark.py"), run_name="__main__")
    assert exit_.value.code == 0
    figures = json.loads(capsys.readouterr().out)
    for name in ("tiny", "small", "base", "large", "huge"):
        assert set(figures["presets"][name]) >= {"parameters", "macs_1024", "total_parameters"}
        assert set(figures["ratios"][name]) >= {"parameters", "macs"}
    assert set(figures["sam_vit_b"]) >= {"parameters", "macs_1024"}
