"""The encoder without gradients, in buffers that its blocks share, against the same encoder with gradients."""

import pytest
import torch

from rs4d_core.models import cpu_blocks
from rs4d_core.models.config import EncoderConfig
from rs4d_core.models.encoder import Encoder

# Of a real piece's 4096 steps nothing else would come to light, and they would take sixteen times as long.
PIECE = 256


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(EncoderConfig(dim=32, inner_dim=64, depth=5, state_dim=8, dt_rank=12, stem_channels=(8, 8, 8)))


def error(one, other):
    return ((one - other).abs().max() / other.abs().max()).item()


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("shape", [(1, 96, 160), (3, 96, 160), (3, 96, 320), (2, 16, 16 * PIECE + 48)])
def test_it_finds_what_the_path_with_gradients_finds(encoder, precision, tolerance, shape, monkeypatch):
    """Also of three sequences of which two make a piece, and of one of several pieces, the last of them of 3 steps."""
    monkeypatch.setattr(cpu_blocks, "PIECE", PIECE)
    images = torch.randn(shape[0], 3, *shape[1:])
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        wanted = encoder(images)
        with torch.no_grad():
            found = encoder(images)
    for one, other in zip((*found.blocks, found.last), (*wanted.blocks, wanted.last), strict=True):
        assert one.dtype == other.dtype == torch.float32
        assert error(one, other) < tolerance


def test_only_what_was_asked_for_is_kept_and_stays_as_it_was(encoder):
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        every, some = encoder(images), encoder(images, depths=(1, 2, 4))
    assert [block is not None for block in some.blocks] == [False, True, True, False, True]
    for one, other in zip(some.blocks, every.blocks, strict=True):
        assert one is None or torch.equal(one, other)
    assert torch.equal(some.last, every.last)


def test_two_images_in_a_row_do_not_share_their_results(encoder):
    images = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        first = encoder(images[0])
        before = [block.clone() for block in (*first.blocks, first.last)]
        encoder(images[1])
    assert all(map(torch.equal, (*first.blocks, first.last), before))
