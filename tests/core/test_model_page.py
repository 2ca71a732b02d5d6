"""docs/models.md tells the figures of the model that comes along, and of no other."""

import shutil
from pathlib import Path

import pytest
from training_script import run_script

from rs4d_core.errors import OptionError
from rs4d_core.evaluation.card_in_page import with_card
from rs4d_core.models.card import default_model_path, read_card
from rs4d_core.models.checkpoint import file_sha256

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "models.md"


def test_the_tables_are_those_of_the_card(tmp_path, monkeypatch):
    page = shutil.copy(PAGE, tmp_path / "models.md")
    assert run_script(monkeypatch, "describe", page) == 0
    assert page.read_text("utf-8") == PAGE.read_text("utf-8"), "run: python training/describe.py docs/models.md"


def test_what_was_measured_by_hand_was_measured_on_this_file():
    assert f"sha256 begins with `{file_sha256(default_model_path())[:12]}`" in PAGE.read_text("utf-8")


def test_the_tables_hold_the_figures():
    card = read_card(default_model_path())
    end = "<!-- end of card -->\n"
    text = with_card(f"<!-- card: data sets -->\nold\n{end}<!-- card: classes -->\n{end}", card)
    assert "old" not in text
    for name, entry in card.metrics.items():
        assert f"| {name} | {entry['images']} | {entry['box']['ap']:.3f} | {entry['box']['ap50']:.3f} |" in text
    tanks = card.metrics["nwpu"]["by_class"]["storage_tank"]
    assert f"| nwpu | storage_tank | {tanks.get('instances', '-')} |" in text
    assert f"| {tanks['mask_ap50']:.3f} |" in text
    assert with_card(text, card) == text


@pytest.mark.parametrize("page", ["no mark at all", "<!-- card: weather -->\n<!-- end of card -->\n"])
def test_a_page_without_marks_and_an_unknown_table_are_named(page):
    with pytest.raises(OptionError, match="data sets, classes"):
        with_card(page, read_card(default_model_path()))
