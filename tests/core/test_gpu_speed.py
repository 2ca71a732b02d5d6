"""The GPU's figures, made on the CPU in small."""

import pytest
import torch

from rs4d_core.evaluation import gpu_speed


def test_windows_are_timed_against_sam_and_the_floors(monkeypatch):
    monkeypatch.setattr(gpu_speed, "_SECONDS_A_FIGURE", 0.01)
    figures = gpu_speed.window_seconds("cpu", 64, ("tiny",), bytes_a_second=1e9, macs_a_second=1e9)
    tiny = figures["presets"]["tiny"]
    assert tiny["ratio"] == figures["sam_vit_b_seconds"] / tiny["encoder_seconds"]
    assert tiny["model_seconds"] > tiny["encoder_seconds"] > 0
    assert tiny["floor_share"] == max(tiny["floor_seconds"].values()) / tiny["encoder_seconds"]


@pytest.mark.parametrize(("dtype", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_a_mixer_is_right_on_the_fast_device(dtype, most):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert gpu_speed.mixer_error(device, dtype) < most
