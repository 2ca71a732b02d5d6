"""Public checkpoints, built by their layout, compute the same as our converted segmenter; others give one line."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from public_model import CHANNELS, Detector, Encoder, small_sam
from small_model import small_config
from torch import nn
from training_script import run_script

from rs4d_core.errors import ModelFileError, OptionError
from rs4d_core.models.card import read_card
from rs4d_core.models.checkpoint import load_model, load_weights_that_fit
from rs4d_core.models.config import NeckConfig, preset
from rs4d_core.models.convert import Converted, convert
from rs4d_core.models.encoder import Encoder as SegmenterEncoder
from rs4d_core.models.encoder_card import read_encoder_card
from rs4d_core.models.encoder_file import load_encoder_weights
from rs4d_core.models.foreign_weights import read_foreign_weights
from rs4d_core.models.prompt_head import PromptHead
from rs4d_core.models.regions import Regions, region_features
from rs4d_core.models.segmenter import Segmenter

CLASSES = ("ship", "harbor")
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
REGIONS = Regions(torch.tensor([[3.0, 5.0, 60.0, 40.0], [20.0, 10.0, 90.0, 64.0]]), torch.tensor([0, 0]))


@pytest.fixture(scope="module", autouse=True)
def _needs_transformers():
    pytest.importorskip("transformers", reason="SAM's decoder is made by transformers (extra 'train')")


@pytest.fixture(scope="module")
def sam() -> nn.Module:
    torch.manual_seed(1)
    return small_sam()


def ours(converted: Converted) -> Segmenter:
    segmenter = Segmenter(converted.config).eval()
    segmenter.load_state_dict(converted.weights)
    return segmenter


def public(sam: nn.Module | None = None, **settings) -> Detector:
    torch.manual_seed(2)
    return Detector(len(CLASSES), sam, **settings)


def mmengine_file(detector: nn.Module, path: Path) -> Path:
    """As mmengine writes it: weights beside what only the framework can read."""
    torch.save({"meta": {"epoch": 800, "cfg": Beside("model = dict()")}, "state_dict": detector.state_dict()}, path)
    return path


class Beside:
    """A class of a framework that reads its own checkpoints only."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.history = np.arange(4.0), np.float32(0.5)


def test_a_bare_encoder_gives_the_maps_of_two_full_passes(tmp_path):
    torch.manual_seed(0)
    theirs = Encoder()
    path = tmp_path / "model_parameterskk.pth"
    torch.save({f"module.{name}": tensor for name, tensor in theirs.state_dict().items()}, path)
    converted = convert(read_foreign_weights(path), path)
    assert {name.partition(".")[0] for name in converted.weights} == {"encoder"}
    encoder = Segmenter(converted.config).eval().encoder
    encoder.load_state_dict({name.removeprefix("encoder."): tensor for name, tensor in converted.weights.items()})
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        encoded = encoder(images)
        blocks, last = theirs.double()(images.double())
    for mine, other in zip([*encoded.blocks, encoded.last], [*blocks, last], strict=True):
        torch.testing.assert_close(mine.double(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("head", ["box", "prompt"])
@pytest.mark.parametrize(("bias", "norm_name"), [(False, "ln"), (True, "norm_layer")])
def test_a_detector_gives_the_outputs_of_its_plain_form(tmp_path, sam, head, bias, norm_name):
    theirs = public(sam if head == "prompt" else None, bias=bias, norm_name=norm_name)
    path = mmengine_file(theirs, tmp_path / "epoch_800.pth")
    converted = convert(read_foreign_weights(path), path, CLASSES)
    model = ours(converted)
    images = torch.randn(1, 3, 64, 96)
    theirs.double()
    with torch.no_grad():
        encoded = model.encoder(images)
        levels = model.neck(encoded)
        blocks, last = theirs.backbone(images.double())
        their_levels = theirs.neck(blocks)
        for level, other in zip(levels, their_levels, strict=True):
            torch.testing.assert_close(level.double(), other, **CLOSE)

        logits, deltas = model.rpn(levels)
        for level, logit, delta in zip(their_levels, logits, deltas, strict=True):
            objectness, their_deltas = theirs.rpn_head(level)
            torch.testing.assert_close(logit.amax(2).double(), objectness, **CLOSE)
            torch.testing.assert_close(delta.double(), their_deltas, **CLOSE)

        small, large = (region_features(levels, REGIONS, size).double() for size in (7, 14))
        classes, boxes = model.box_head(levels, REGIONS)
        their_classes, their_boxes = theirs.roi_head.bbox_head(small)
        torch.testing.assert_close(classes.double(), their_classes, **CLOSE)
        torch.testing.assert_close(boxes.flatten(1).double(), their_boxes, **CLOSE)

        labels = torch.tensor([1, 0])
        if head == "box":
            masks = model.mask_head(levels, REGIONS, labels)
            their_masks = theirs.roi_head.mask_head(large)[torch.arange(2), labels]
        else:
            masks = model.mask_head(encoded, levels, REGIONS)
            positions = model.mask_head.shared_image_embedding(*last.shape[-2:]).double()
            their_masks = theirs.roi_head.mask_head(large, last, positions)
        torch.testing.assert_close(masks.double(), their_masks, **CLOSE)
    if head == "prompt":
        theirs.float()  # the modules of SAM are shared by the tests


def test_sams_decoder_draws_the_masks_of_transformers(tmp_path, sam):
    sam.save_pretrained(tmp_path / "sam")
    converted = convert(read_foreign_weights(tmp_path / "sam"), tmp_path)
    torch.manual_seed(0)
    head = PromptHead(CHANNELS, CHANNELS, converted.config.prompt_head).eval()
    weights = {name.removeprefix("mask_head."): tensor for name, tensor in converted.weights.items()}
    left = head.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys
    assert all(name.startswith("point_emb.") for name in left.missing_keys)
    image, prompts = torch.randn(1, CHANNELS, 4, 4), torch.randn(3, 5, CHANNELS)
    with torch.no_grad():
        embedded = image + head.no_mask_embed.weight[:, :, None, None]
        masks, _ = head.mask_decoder(embedded, head.shared_image_embedding(4, 4), prompts)
        dense = sam.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(1, -1, 4, 4)
        positions = sam.get_image_wide_positional_embeddings()
        theirs = sam.mask_decoder(image, positions, prompts[None], dense, multimask_output=False)[0]
    torch.testing.assert_close(masks[:, 0], theirs[0, :, 0], rtol=1e-4, atol=1e-5)


def change(weights: dict, name: str, tensor: torch.Tensor | None) -> dict:
    return {
        key: tensor if key == name else value for key, value in weights.items() if key != name or tensor is not None
    }


@pytest.mark.parametrize(
    ("altered", "told"),
    [
        (lambda w: {**w, "backbone.gate": torch.zeros(1)}, r"1 tensor unknown \(backbone\.gate\)"),
        (lambda w: change(w, "rpn_head.rpn_reg.bias", None), r"1 tensor missing \(rpn_head\.rpn_reg\.bias\)"),
        (
            lambda w: change(w, "backbone.ln1.bias", torch.zeros(3)),
            r"1 tensor of another shape \(backbone\.ln1\.bias: ",
        ),
        (lambda w: change(w, "backbone.ln1.bias", torch.full((CHANNELS,), torch.nan)), r"not finite \(backbone\.ln1"),
        (lambda w: change(w, "rpn_head.rpn_cls.weight", None), r"lacks rpn_head\.rpn_cls\.weight"),
        (lambda w: {"weight": torch.zeros(1)}, r"no checkpoint of RS4D or SAM .* 1 tensor \(weight\)"),
    ],
)
def test_what_does_not_fit_is_named(altered, told):
    weights = altered(public().state_dict())
    with pytest.raises(ModelFileError, match=told) as error:
        convert(weights, Path("detector.pth"), CLASSES if len(weights) > 1 else ())
    assert "\n" not in str(error.value)


def test_classes_are_those_of_the_checkpoint():
    with pytest.raises(OptionError, match="tells 2 classes apart, and 1 were named"):
        convert(public().state_dict(), Path("detector.pth"), ("ship",))
    with pytest.raises(OptionError, match="no detector"):
        convert(Encoder().state_dict(), Path("encoder.pth"), CLASSES)


def test_presets_sum_the_blocks_that_the_public_necks_sum():
    assert preset("base", CLASSES, "box").neck.blocks == tuple(range(1, 22, 2))
    assert preset("base", CLASSES, "prompt").neck.blocks == tuple(range(2, 23, 2))
    with pytest.raises(OptionError, match="rising"):
        NeckConfig(aggregator_channels=8, channels=32, blocks=(3, 1))
    with pytest.raises(OptionError, match="reads block 2, the encoder has 2"):
        replace(small_config(), neck=NeckConfig(aggregator_channels=8, channels=32, blocks=(0, 2)))


class Harmful:
    """Its pickle calls what it is told to."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("kind", ["copies", "touches", "runs"])
@pytest.mark.parametrize("where", ["meta", "state_dict"])
def test_no_code_of_a_checkpoint_runs(tmp_path, where, kind):
    made, path = tmp_path / "made", tmp_path / "harmful.pth"
    harm = {
        "copies": Harmful(shutil.copyfile, __file__, made),
        "touches": Harmful(Path.touch, made),
        "runs": Harmful(os.system, f"touch {made}"),
    }
    content = {"state_dict": dict(Encoder().state_dict())}
    content.setdefault(where, {})["extra"] = harm[kind]
    torch.save(content, path)
    if (where, kind) == ("meta", "copies"):
        # It stands beside the weights, as the notes of a framework do, and is passed over.
        assert "ln1.bias" in read_foreign_weights(path)
    else:
        with pytest.raises(ModelFileError, match=r"harmful\.pth") as error:
            read_foreign_weights(path)
        assert "\n" not in str(error.value)
        assert "weights_only" not in str(error.value)
    assert not made.exists()


def test_code_in_a_file_of_the_old_format_is_named_and_not_run(tmp_path):
    made, path = tmp_path / "made", tmp_path / "old.pth"
    torch.save({"extra": Harmful(os.system, f"touch {made}")}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelFileError, match=r"it names code \(posix\.system\), which is never run") as error:
        read_foreign_weights(path)
    assert "weights_only" not in str(error.value)
    assert not made.exists()


@pytest.mark.parametrize(
    "content", [b"a text", b"\x80\x02X\x01", b"\x80\x04a.", b"\x80\x02}(K\x01ub.", b"\x80\x02K\x01K\x02b."]
)
def test_what_is_no_torch_file_says_so_without_a_warning(tmp_path, content, recwarn):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="is no torch file" if content == b"a text" else "cannot be read"):
        read_foreign_weights(path)
    assert not recwarn.list


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02garbage", b"not a checkpoint at all", None])
def test_what_cannot_be_read_gives_one_line(tmp_path, content):
    for name in ("weights.pth", "weights.safetensors"):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelFileError, match=name) as error:
            read_foreign_weights(path)
        assert "\n" not in str(error.value)
    with pytest.raises(ModelFileError, match=r"has no model\.safetensors"):
        read_foreign_weights(tmp_path)


def test_the_command_makes_a_whole_model_of_a_detector_and_says_what_it_decided(tmp_path, monkeypatch, capsys):
    path, output = mmengine_file(public(), tmp_path / "ssdd.pth"), tmp_path / "ssdd.safetensors"
    settings = ("--classes", *CLASSES, "--colors", "#e6194b", "#46f0f0", "--resolution", 1, 10)
    assert run_script(monkeypatch, "convert", path, "-o", output, *settings) == 0
    shown = capsys.readouterr().out
    for told in (
        "sums blocks 1, 3",
        "copied to every block",
        "objectness is 0",
        "ship, harbor, and the back",
    ):
        assert told in shown
    loaded = load_model(output, "cpu")
    assert loaded.classes == CLASSES
    assert loaded.resolution_m == (1, 10)
    assert len(loaded.predict(torch.rand(1, 3, 64, 64))) == 1
    settings = ("--classes", *CLASSES, "--colors", "#e6194b", "--resolution", 1, 10)
    assert run_script(monkeypatch, "convert", path, "-o", output, *settings) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_training_starts_from_an_encoder_and_from_sams_decoder(tmp_path, sam, monkeypatch, capsys):
    torch.manual_seed(3)
    theirs = Encoder()
    safetensors.torch.save_file(dict(theirs.state_dict()), tmp_path / "public.safetensors")
    arguments = tmp_path / "public.safetensors", "-o", tmp_path / "encoder.safetensors", "--json"
    assert run_script(monkeypatch, "convert", *arguments) == 0
    report = json.loads(capsys.readouterr().out)
    encoder = SegmenterEncoder(read_encoder_card(tmp_path / "encoder.safetensors").config)
    assert report["tensors"] == len(encoder.state_dict())
    load_encoder_weights(tmp_path / "encoder.safetensors", encoder)
    assert torch.equal(encoder.layers[1].norm.weight, theirs.pre_norm.weight)

    torch.save(sam.state_dict(), tmp_path / "sam.bin")
    output = tmp_path / "decoder.safetensors"
    assert run_script(monkeypatch, "convert", tmp_path / "sam.bin", "-o", output) == 0
    prompted = read_card(output).config
    config = replace(small_config("prompt", dim=CHANNELS), prompt_head=prompted.prompt_head)
    segmenter = Segmenter(config)
    taken = load_weights_that_fit(output, segmenter)
    assert {name.split(".")[1] for name in taken} == {"mask_decoder", "no_mask_embed", "shared_image_embedding"}
    assert torch.equal(segmenter.mask_head.no_mask_embed.weight, sam.prompt_encoder.no_mask_embed.weight)
    with pytest.raises(ModelFileError, match=r"a part of a model only \(mask_head\)"):
        load_model(output, "cpu")
