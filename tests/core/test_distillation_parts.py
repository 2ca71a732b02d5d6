"""What a distillation is made of: corruption, views, teachers, the cache of their maps."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rasterio.transform import from_origin
from transformers import SamConfig, SamModel, SamVisionConfig, SamVisionModel

from rs4d_core.distillation.corruption import Difficulty, TokenErrors, add_noise, choose_hidden, hide_tokens
from rs4d_core.distillation.map_cache import MapCache
from rs4d_core.distillation.recipe import DistillationRecipe, SamChoice, SegmenterChoice
from rs4d_core.distillation.teacher import open_teacher
from rs4d_core.distillation.views import ImageFile, View, find_images, read_view, split, views_of
from rs4d_core.errors import DatasetError, ModelFileError, RecipeError
from rs4d_core.models.checkpoint import load_model
from rs4d_core.runs.tables import read_settings

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "training" / "recipes"


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# Corruption


@given(percent=st.floats(0, 99), known=st.integers(1, 144), seed=st.integers(0, 2**31))
def test_exactly_the_stated_share_of_the_shown_tokens_is_hidden(percent, known, seed):
    shown = (torch.arange(144) < known).view(1, 12, 12)
    hidden = choose_hidden(shown, percent, None, generators(seed))
    assert int(hidden.sum()) == round(percent / 100 * known)
    assert not (hidden & ~shown).any()


def test_noise_has_the_stated_strength_and_hidden_tokens_are_the_mean():
    images = torch.zeros(2, 3, 64, 64)
    noisy = add_noise(images, 30, generators(1, 2))
    assert noisy.std() == pytest.approx(0.3, rel=0.03)
    assert noisy.mean() == pytest.approx(0, abs=0.01)
    hidden = torch.zeros(2, 4, 4, dtype=torch.bool)
    hidden[1, 2, 3] = True
    corrupted = hide_tokens(noisy, hidden)
    assert (corrupted[1, :, 32:48, 48:64] == 0).all()
    assert int((corrupted == 0).sum()) == 3 * 16 * 16
    assert torch.equal(corrupted[0], noisy[0])


def test_corruption_depends_on_the_seed_alone():
    images, shown = torch.zeros(2, 3, 64, 64), torch.ones(2, 4, 4, dtype=torch.bool)
    first = add_noise(images, 20, generators(1, 2)), choose_hidden(shown, 50, None, generators(1, 2))
    swapped = add_noise(images, 20, generators(2, 1)), choose_hidden(shown, 50, None, generators(2, 1))
    for one, other in zip(first, swapped, strict=True):
        assert torch.equal(one, other.flip(0))
        assert not torch.equal(one[0], one[1])


def test_masking_favours_tokens_that_are_reconstructed_well():
    shown = torch.ones(1, 8, 8, dtype=torch.bool)
    errors = torch.linspace(0.1, 2.0, 64).view(1, 8, 8)
    counts = sum(choose_hidden(shown, 20, errors, generators(seed))[0].float() for seed in range(400)).flatten()
    thirds = [float(part.sum()) for part in counts.tensor_split(3)]
    assert thirds[0] > 1.5 * thirds[1] > 2 * thirds[2] > 0
    unknown = torch.full((1, 8, 8), torch.nan)
    as_uniform = choose_hidden(shown, 20, unknown, generators(7))
    assert torch.equal(as_uniform, choose_hidden(shown, 20, None, generators(7)))


@given(losses=st.lists(st.floats(0.01, 10), min_size=11, max_size=80), full_at=st.floats(0, 0.9))
def test_the_level_falls_where_the_running_loss_rises_and_rises_where_it_falls(losses, full_at):
    difficulty = Difficulty()
    for loss in losses[:10]:
        assert difficulty.level(full_at) == 0
        difficulty.learn(loss)
    for loss in losses[10:]:
        level, running = difficulty.level(full_at), difficulty.running
        difficulty.learn(loss)
        assert 0 <= difficulty.level(full_at) <= 1
        assert (difficulty.level(full_at) - level) * (difficulty.running - running) <= 0


def test_the_level_is_full_where_the_running_loss_arrives_at_its_part_of_the_start():
    difficulty = Difficulty(start=0.8, running=0.8, steps=10)
    levels = []
    for _ in range(400):
        difficulty.learn(0.2)
        levels.append(difficulty.level(0.25))
    assert levels == sorted(levels)
    assert levels[0] < 0.05
    assert levels[-1] == pytest.approx(1, abs=0.01)
    assert Difficulty(start=0.8, running=0.5, steps=99).level(0.25) == pytest.approx(0.5)


def test_token_errors_run_and_start_unknown():
    errors = TokenErrors(views=3, tokens=32)
    assert errors.of([1], 32, 32).isnan().all()
    new = torch.zeros(1, 32, 32)
    new[0, :2, :2] = 1.0
    errors.learn([1], errors.coarse(new))
    errors.learn([1], errors.coarse(torch.zeros(1, 32, 32)))
    found = errors.of([1], 32, 32)[0]
    assert (found[:2, :2] == 0.5).all()
    assert found.sum() == 2
    assert errors.of([0, 2], 32, 32).isnan().all()


# Views


@given(width=st.integers(1, 700), height=st.integers(1, 700))
def test_the_views_of_an_image_cover_it(width, height):
    views = views_of(ImageFile(Path("a.png"), width, height), 128)
    if max(width, height) <= 192:
        assert [view.window for view in views] == [None]
        return
    covered = np.zeros((height, width), bool)
    for view in views:
        window = view.window
        assert window.width <= 128
        assert window.height <= 128
        covered[window.row : window.row + window.height, window.col : window.col + window.width] = True
    assert covered.all()
    assert len(views) == -(-width // 128) * -(-height // 128)


def write_raster(path: Path, pixels: np.ndarray, nodata: float | None) -> None:
    count, height, width = pixels.shape
    profile = {"width": width, "height": height, "count": count, "dtype": pixels.dtype, "nodata": nodata}
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32632", transform=from_origin(5e5, 5e6, 1, 1), **profile) as file:
        file.write(pixels)


def test_images_of_all_kinds_are_found_and_read(tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    rng = np.random.default_rng(0)
    raster = rng.integers(1000, 4000, (4, 200, 100), dtype=np.uint16)
    raster[:, :100] = 0
    write_raster(tmp_path / "deep" / "er" / "scene.tif", raster, nodata=0)
    Image.fromarray(rng.integers(0, 255, (32, 64), dtype=np.uint8)).save(tmp_path / "deep" / "grey.PNG")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    images, unreadable = find_images(tmp_path, ("deep", "."), bands=(4, 1, 2))
    assert [(image.path.name, image.width, image.height) for image in images] == [
        ("scene.tif", 100, 200),
        ("grey.PNG", 64, 32),
    ]
    assert list(unreadable) == [str(tmp_path / "broken.jpg")]

    scene, grey = images
    top, *_, bottom = views_of(scene, 64)
    with pytest.raises(DatasetError, match="nothing but nodata"):
        read_view(top, 64, (4, 1, 2))
    pixels = read_view(bottom, 64, (4, 1, 2))
    assert pixels.rgb.shape == (3, 64, 64)
    assert pixels.shown.all()
    assert pixels.rgb.min() == 0  # stretched to 8 bits
    assert pixels.rgb.max() == 255
    expected = raster[[3, 0, 1], -64:, -64:].astype(float)
    for found, values in zip(pixels.rgb, expected, strict=True):
        assert np.corrcoef(found.ravel(), values.ravel())[0, 1] > 0.99

    fitted = read_view(View(grey, None), 128, None)
    assert fitted.shown.tolist() == [[True] * 8] * 4 + [[False] * 8] * 4
    assert (fitted.rgb[:, 64:] == 0).all()


def test_a_split_of_images_loses_none_and_leaves_some():
    images = [ImageFile(Path(f"{number}.png"), 9, 9) for number in range(9)]
    training, held_back = split(images, 3, seed=1)
    assert len(held_back) == 3
    assert {*training, *held_back} == {*images}
    assert split(images, 3, seed=1) == (training, held_back)
    with pytest.raises(DatasetError, match="hold back fewer"):
        split(images, 9, seed=1)


# Teachers


@pytest.fixture(scope="module")
def sam_config() -> SamVisionConfig:
    """SAM's architecture, small: for images of 64 pixels."""
    return SamVisionConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=64,
        mlp_dim=64,
        window_size=3,
        global_attn_indexes=[1],
        output_channels=256,
        initializer_range=0.2,
    )


def test_a_sam_teacher_gives_what_transformers_gives(sam_config, tmp_path):
    torch.manual_seed(0)
    model = SamModel(SamConfig(vision_config=sam_config)).eval()
    torch.nn.init.normal_(model.vision_encoder.pos_embed, std=0.5)
    model.save_pretrained(tmp_path)
    teacher = open_teacher(SamChoice(str(tmp_path)), 64, "cpu", "32")
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    pixels = (images - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.no_grad():
        expected = model.vision_encoder(pixels).last_hidden_state
    found = teacher.maps(images)
    assert found.shape == (2, 256, 4, 4)
    assert torch.allclose(found, expected, atol=1e-5)
    fast = open_teacher(SamChoice(str(tmp_path)), 64, "cpu", "bf16")
    assert (fast.maps(images) - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert fast.identity != teacher.identity


def test_opening_a_sam_teacher_prints_nothing_and_leaves_transformers_talking(sam_config, tmp_path):
    SamModel(SamConfig(vision_config=sam_config)).save_pretrained(tmp_path)
    program = (
        "import sys, transformers\n"
        "from rs4d_core.distillation.recipe import SamChoice\n"
        "from rs4d_core.distillation.teacher import open_teacher\n"
        "before = transformers.utils.logging.get_verbosity()\n"
        "open_teacher(SamChoice(sys.argv[1]), 64, 'cpu', '32')\n"
        "assert transformers.utils.logging.get_verbosity() == before\n"
        "assert transformers.utils.logging.is_progress_bar_enabled()\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_sam_teacher_has_64_x_64_tokens_at_1024_pixels_and_fits_other_sizes(sam_config, tmp_path):
    torch.manual_seed(0)
    sam_config.image_size = 1024
    SamVisionModel(sam_config).save_pretrained(tmp_path)
    sam_config.image_size = 64
    for size, tokens in ((1024, 64), (160, 10)):
        teacher = open_teacher(SamChoice(str(tmp_path)), size, "cpu", "32")
        assert teacher.maps(torch.zeros(1, 3, size, size)).shape == (1, 256, tokens, tokens)


def test_a_folder_that_is_no_sam_model_is_one_clear_line(sam_config, tmp_path):
    with pytest.raises(ModelFileError) as caught:
        open_teacher(SamChoice(str(tmp_path)), 64, "cpu", "32")
    assert "\n" not in str(caught.value)
    with pytest.raises(ModelFileError, match=r'there is no folder ".*nowhere" with a SAM model'):
        open_teacher(SamChoice(str(tmp_path / "nowhere")), 64, "cpu", "32")
    with pytest.raises(ModelFileError, match="no model file"):
        open_teacher(SegmenterChoice(str(tmp_path / "no.safetensors")), 64, "cpu", "32")


def test_a_teacher_of_our_own_gives_the_map_that_its_heads_read(untrained_model):
    teacher = open_teacher(SegmenterChoice(str(untrained_model)), 64, "cpu", "32")
    segmenter = load_model(untrained_model, "cpu").segmenter
    images = torch.randint(0, 256, (2, 3, 64, 64)).float()
    with torch.inference_mode():
        encoded = segmenter.encoder(segmenter.normalise(images))
        expected = segmenter.neck.feature_aggregator(encoded.blocks)
    assert torch.equal(teacher.maps(images), expected)
    assert teacher.dim == expected.shape[1]
    last = open_teacher(SegmenterChoice(str(untrained_model), map="last"), 64, "cpu", "32")
    assert torch.equal(last.maps(images), encoded.last)
    assert last.identity != teacher.identity


# The cache


def test_maps_are_found_again_by_other_processes_and_never_for_another_teacher(tmp_path):
    maps = torch.randn(3, 8, 2, 2).half()
    cache = MapCache(tmp_path, "one teacher")
    other = MapCache(tmp_path, "one teacher")
    assert cache.get("a") is None
    assert other.get("a") is None
    for key, entry in zip("abc", maps, strict=True):
        cache.put(key, entry)
    assert torch.equal(cache.get("b"), maps[1])
    cache.flush()
    assert all(torch.equal(other.get(key), entry) for key, entry in zip("abc", maps, strict=True))
    assert MapCache(tmp_path, "another teacher").get("a") is None


@pytest.mark.parametrize("damage", ["flipped bit", "cut short"])
def test_a_damaged_shard_is_removed_and_not_believed(tmp_path, damage):
    cache = MapCache(tmp_path, "teacher")
    cache.put("a", torch.ones(8, 2, 2).half())
    cache.flush()
    (shard,) = tmp_path.rglob("*.safetensors")
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content if damage == "flipped bit" else content[:-9])
    again = MapCache(tmp_path, "teacher")
    assert again.get("a") is None
    assert again.damaged == [shard.name]
    assert not shard.exists()
    again.put("a", torch.ones(8, 2, 2).half())
    again.flush()
    assert MapCache(tmp_path, "teacher").get("a") is not None


# Recipes


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("teacher.kind=clip", "teacher needs kind = one of sam, segmenter"),
        ("teacher.sourse=x", 'did you mean "source"?'),
        ("corruption.mask=100", "corruption.mask is 100"),
        ("corruption.schedule=linear", "take one of adaptive, constant"),
        ("images.bands=[1,2]", "give three bands"),
        ("student.preset=giant", "take one of tiny"),
        ("running.devices=3", "must be a multiple of running.devices"),
    ],
)
def test_a_wrong_setting_of_a_distillation_is_named(override, message):
    with pytest.raises(RecipeError) as caught:
        read_settings(DistillationRecipe, RECIPES / "distill-tiny.toml", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
