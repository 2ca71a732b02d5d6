"""What a GPU computes, against what the CPU does."""

import pytest
import torch
from small_runs import write_finetuning

from rs4d_core.datasets.transforms import load_evaluation_image
from rs4d_core.finetuning.data import fresh_scenes, load_batches, open_data
from rs4d_core.finetuning.loop import train
from rs4d_core.finetuning.recipe import Recipe
from rs4d_core.models.boxes import iou
from rs4d_core.models.card import default_model_path
from rs4d_core.models.checkpoint import load_model
from rs4d_core.models.segmenter import Segmenter
from rs4d_core.ops.roi_align import pyramid_roi_align
from rs4d_core.runs.tables import read_settings

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

DEFAULT_MODEL = default_model_path()


@pytest.fixture(scope="module")
def default_model() -> Segmenter:
    return load_model(DEFAULT_MODEL, "cpu").segmenter


def test_regions_have_the_same_features_and_gradients():
    generator = torch.Generator().manual_seed(0)
    levels = [torch.randn(3, 96, side, side, generator=generator) for side in (32, 16)]
    corners = torch.rand(50, 2, generator=generator) * 100
    boxes_xyxy = torch.cat([corners, corners + 1 + torch.rand(50, 2, generator=generator) * 60], 1)
    level_of = torch.randint(2, (50,), generator=generator)
    images = torch.randint(3, (50,), generator=generator)
    results = []
    for device in ("cpu", "cuda"):
        leaves = [level.to(device).requires_grad_() for level in levels]
        regions = (values.to(device) for values in (level_of, boxes_xyxy, images))
        pooled = pyramid_roi_align(leaves, *regions, output_size=7, strides=[4, 8])
        results.append([values.cpu() for values in (pooled, *torch.autograd.grad(pooled.square().sum(), leaves))])
    for found, wanted in zip(*reversed(results), strict=True):
        assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_the_default_model_finds_what_it_finds_on_a_cpu(default_model):
    (scene,) = fresh_scenes(1, 0, 512, (0.3, 0.3), default_model.config.classes)
    image = load_evaluation_image(scene)[None].float()
    wanted = default_model.predict(image)[0]
    found = load_model(DEFAULT_MODEL, "cuda:0").segmenter.predict(image.to("cuda"))[0]
    sure = wanted.scores > 0.5
    assert int(sure.sum()) >= 5
    # Products of matrices are rounded otherwise: what is sure stays so, at nearly the same place.
    overlaps = iou(wanted.boxes_xyxy[sure], found.boxes_xyxy)
    best, which = overlaps.max(1)
    assert (best > 0.9).float().mean() >= 0.9
    assert (found.labels[which] == wanted.labels[sure])[best > 0.9].all()


def test_batches_come_to_it_as_they_are(tmp_path):
    write_finetuning(tmp_path)
    recipe = read_settings(Recipe, tmp_path / "squares.toml", [])
    data = open_data(recipe, tmp_path)
    (images, targets), (wanted_images, wanted) = (
        next(load_batches(data, recipe, 0, torch.device(device))) for device in ("cuda", "cpu")
    )
    assert images.is_cuda
    assert torch.equal(images.cpu(), wanted_images)
    assert any(target.masks.any() for target in wanted)
    for target, expected in zip(targets, wanted, strict=True):
        assert torch.equal(target.masks.cpu(), expected.masks)


def test_a_run_ends_with_a_model_for_every_device(tmp_path):
    write_finetuning(tmp_path)
    recipe = read_settings(Recipe, tmp_path / "squares.toml", ["running.accelerator=cuda"])
    result = train(recipe, tmp_path, tmp_path / "run")
    assert result.step == recipe.optimization.steps
    model = load_model(result.final, "cpu").segmenter
    assert all(parameter.isfinite().all() for parameter in model.parameters())
