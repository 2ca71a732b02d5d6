"""Model files: what was written comes back, and anything else gives one clear line."""

import dataclasses
import hashlib
import json
import struct

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_model import small_config

from rs4d_core.errors import ModelFileError, OptionError, OutputError
from rs4d_core.models.card import FORMAT_VERSION, ModelCard, read_card
from rs4d_core.models.checkpoint import load_model, load_weights_that_fit, save_model
from rs4d_core.models.segmenter import Segmenter


def make_card(head: str = "box", **changes) -> ModelCard:
    fields = {
        "name": "test",
        "config": small_config(head),
        "colors": ("#ff0000", "#00ff00"),
        "resolution_m": (0.3, 1.0),
        "window_px": 128,
        "overlap_px": 32,
        "default_scores": (0.5, 0.4),
        "training_data": ({"name": "synthetic", "licence": "CC0-1.0"},),
        "metrics": {"synthetic": {"mask": {"ap50": 0.5}}},
    }
    return ModelCard(**fields | changes)


def make_segmenter(head: str = "box") -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(small_config(head)).eval()


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    save_model(path, make_segmenter(), make_card())
    return path


def refused(path) -> str:
    """The one line that both readers of a bad file give."""
    messages = []
    for read in (read_card, load_model):
        with pytest.raises(ModelFileError) as error:
            read(path)
        messages.append(str(error.value))
    for message in messages:
        assert str(path) in message
        assert "\n" not in message
    return messages[0]


def with_header(path, header: dict | bytes, length: int | None = None, body: bytes = b""):
    """A safetensors file made by hand: 8 bytes of the header's length, the header in JSON, the tensors' bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + body)
    return path


@pytest.mark.parametrize("head", ["box", "prompt"])
def test_round_trip(tmp_path, head):
    path = tmp_path / "model.safetensors"
    segmenter, card = make_segmenter(head), make_card(head)
    save_model(path, segmenter, card)
    assert list(tmp_path.iterdir()) == [path]
    assert read_card(path) == card

    loaded = load_model(path, "cpu")
    assert loaded.card == card
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (loaded.device, loaded.device_reason) == ("cpu", "asked for")
    for name, tensor in segmenter.state_dict().items():
        torch.testing.assert_close(loaded.segmenter.state_dict()[name], tensor, rtol=0, atol=0)
    image = 255 * torch.rand(1, 3, 64, 64)
    ours, theirs = segmenter.predict(image)[0], loaded.segmenter.predict(image)[0]
    torch.testing.assert_close(theirs.boxes_xyxy, ours.boxes_xyxy, rtol=1e-4, atol=1e-3)
    assert len(loaded.predict(image)) == 1


def test_weights_may_be_stored_in_half_the_size(tmp_path, model_file):
    path = tmp_path / "half.safetensors"
    save_model(path, make_segmenter(), make_card(), torch.bfloat16)
    assert path.stat().st_size < 0.6 * model_file.stat().st_size
    weight = load_model(path, "cpu").segmenter.box_head.fc_cls.weight
    assert weight.dtype == torch.float32
    torch.testing.assert_close(weight, make_segmenter().box_head.fc_cls.weight, rtol=1e-2, atol=1e-4)


def test_statistics_that_half_precision_cannot_hold_survive(tmp_path):
    segmenter = make_segmenter()
    statistics = segmenter.neck.feature_aggregator.downconvs[0][1].running_var
    statistics.fill_(1e6)
    path = tmp_path / "half.safetensors"
    save_model(path, segmenter, make_card(), torch.float16)
    loaded = load_model(path, "cpu").segmenter
    torch.testing.assert_close(loaded.neck.feature_aggregator.downconvs[0][1].running_var, statistics)


def test_a_file_that_cannot_be_written_leaves_no_trace(tmp_path):
    file = tmp_path / "file"
    file.write_text("in the way")
    for path in (tmp_path / "missing" / "model.safetensors", file / "model.safetensors"):
        with pytest.raises(OutputError, match="cannot write the model file"):
            save_model(path, make_segmenter(), make_card())
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_file_and_a_folder(tmp_path):
    assert "no model file" in refused(tmp_path / "none.safetensors")
    assert "no model file" in refused(tmp_path)
    assert "no model file" in refused(tmp_path / ("long" * 100))


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_file_cut_anywhere_is_refused(tmp_path_factory, model_file, data):
    whole = model_file.read_bytes()
    path = tmp_path_factory.mktemp("cut") / "cut.safetensors"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    assert "truncated" in refused(path)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_in_one_line(tmp_path_factory, model_file, data):
    content = bytearray(model_file.read_bytes())
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    for place in data.draw(st.lists(st.integers(0, header_end - 1), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "damaged.safetensors"
    path.write_bytes(content)
    try:
        load_model(path, "cpu")
    except ModelFileError as error:
        assert "\n" not in str(error)  # noqa: PT017 (a damage may also do no harm: a digit of a metric)


def test_files_of_others(tmp_path):
    text = tmp_path / "text.safetensors"
    text.write_text("PK not a model at all, but long enough to have a header")
    assert "not a model file" in refused(text)
    foreign = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, foreign)
    assert "another program" in refused(foreign)
    pickled = tmp_path / "model.pth"
    torch.save({"weight": torch.zeros(2)}, pickled)
    assert "not a model file" in refused(pickled)


@pytest.mark.parametrize("tensor_bytes", [1 << 42, 1 << 62])
def test_a_header_that_claims_terabytes_is_refused_before_anything_is_read(tmp_path, tensor_bytes):
    assert "not a model file" in refused(with_header(tmp_path / "long.safetensors", {}, length=tensor_bytes))
    claim = {"weight": {"dtype": "F32", "shape": [tensor_bytes // 4], "data_offsets": [0, tensor_bytes]}}
    assert "not a model file" in refused(with_header(tmp_path / "big.safetensors", claim, body=b"\0" * 64))


def card_file(path, card: object):
    """A file without tensors that has `card` where the card belongs."""
    return with_header(path, {"__metadata__": {"rs4d": card if isinstance(card, str) else json.dumps(card)}})


def test_a_newer_format_says_to_update(tmp_path):
    card = make_card().to_json() | {"format_version": FORMAT_VERSION + 1, "unheard_of": 1}
    message = refused(card_file(tmp_path / "newer.safetensors", card))
    assert "newer than this rs4d" in message
    assert "update" in message


@pytest.mark.parametrize(
    "card",
    [
        "not json",
        [],
        {},
        {"format_version": "1"},
        {"format_version": 1},
        make_card().to_json() | {"classes": ["ship"]},
        make_card().to_json() | {"resolution_m": [1.0]},
        make_card().to_json() | {"resolution_m": "fine"},
        make_card().to_json() | {"window_px": None},
        make_card().to_json() | {"config": {}},
        make_card().to_json() | {"config": make_card().config.to_json() | {"head": "tail"}},
    ],
)
def test_a_card_that_makes_no_sense(tmp_path, card):
    path = card_file(tmp_path / "card.safetensors", card)
    with pytest.raises(ModelFileError, match=r"card in .* cannot be read") as error:
        read_card(path)
    assert "\n" not in str(error.value)


def test_weights_that_do_not_fit_the_card(tmp_path):
    path = tmp_path / "model.safetensors"
    save_model(path, make_segmenter(), make_card("prompt"))
    with pytest.raises(ModelFileError, match="do not fit its card"):
        load_model(path)


def test_a_card_that_claims_a_giant_is_refused_at_once(tmp_path):
    fields = make_card().config.to_json()
    fields["encoder"] |= {"dim": 1 << 16, "inner_dim": 1 << 16}
    path = card_file(tmp_path / "giant.safetensors", make_card().to_json() | {"config": fields})
    with pytest.raises(ModelFileError, match="do not fit its card"):
        load_model(path)


def test_a_neck_that_gets_a_top_down_path_starts_as_what_it_was(tmp_path):
    path, without = tmp_path / "model.safetensors", make_segmenter()
    save_model(path, without, make_card())
    other = Segmenter(small_config(top_down=True)).eval()
    load_weights_that_fit(path, other)
    images = 128 + 50 * torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        levels, before = (each.neck(each.encoder(each.normalise(images))) for each in (other, without))
    torch.testing.assert_close(levels, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"colors": ("#ff0000",)},
        {"default_scores": (0.5,)},
        {"default_scores": (0.5, "high")},
        {"colors": ("#ff0000", "blue")},
        {"resolution_m": (1.0, 0.5)},
        {"resolution_m": (0.0, 0.5)},
        {"window_px": 100},
        {"overlap_px": 128},
    ],
)
def test_a_card_is_checked_when_it_is_made(changes):
    with pytest.raises(OptionError):
        make_card(**changes)


@pytest.mark.parametrize("device", ["toaster", "cuda:", "cuda:x", "cuda:\N{SUPERSCRIPT TWO}", "cuda:" + "9" * 5000])
def test_an_unknown_device_is_named(model_file, device):
    with pytest.raises(OptionError, match=f"unknown device '{device[:50]}"):
        load_model(model_file, device)


def test_a_card_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make_card().name = "other"


def test_training_may_start_from_another_models_weights(model_file):
    torch.manual_seed(1)
    other = Segmenter(dataclasses.replace(small_config(), classes=("ship", "crane")))
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    taken = set(load_weights_that_fit(model_file, other))
    given = make_segmenter().state_dict()
    for name, tensor in other.state_dict().items():
        torch.testing.assert_close(tensor, given[name] if name in taken else before[name])
    # What is learned of classes is not handed on to others.
    assert {name.rsplit(".", 1)[0] for name in before.keys() - taken} == {
        "rpn.rpn_own",
        "box_head.fc_cls",
        "box_head.fc_reg",
        "mask_head.conv_logits",
    }
