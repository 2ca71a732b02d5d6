"""The mask decoder is SAM's: transformers' weights load by name and give the same masks."""

import pytest
import torch

from rs4d_core.models.mask_decoder import FourierPositions, MaskDecoder


@pytest.fixture(scope="module")
def sam():
    return pytest.importorskip(
        "transformers.models.sam.modeling_sam", reason="parity is checked against transformers' SAM (extra 'train')"
    )


def test_decoder_equals_transformers(sam):
    torch.manual_seed(0)
    theirs = sam.SamMaskDecoder(sam.SamMaskDecoderConfig(attn_implementation="eager")).eval()
    ours = MaskDecoder().eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    image, positions = torch.randn(1, 256, 6, 9), torch.randn(1, 256, 6, 9)
    dense, prompts = torch.randn(1, 256, 1, 1), torch.randn(3, 5, 256)
    with torch.no_grad():
        masks, quality = ours(image + dense, positions, prompts)
        one, three = (theirs(image, positions, prompts[None], dense, multimask_output=many) for many in (False, True))
    assert masks.shape == (3, 4, 24, 36)
    torch.testing.assert_close(masks, torch.cat([one[0], three[0]], dim=2)[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(quality, torch.cat([one[1], three[1]], dim=2)[0], rtol=1e-5, atol=1e-5)


def test_positions_equal_transformers(sam):
    config = sam.SamVisionConfig(hidden_size=2, num_pos_feats=16)  # scale = hidden_size // 2 = 1
    theirs = sam.SamPositionalEmbedding(config)
    ours = FourierPositions(32)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    height, width = 3, 5
    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    points = torch.stack([columns / width, rows / height], dim=-1)
    expected = theirs(points).permute(2, 0, 1)[None]
    torch.testing.assert_close(ours(height, width), expected.detach(), rtol=1e-5, atol=1e-5)
