"""Names from files that look like HTML: shown as they are, wherever the plugin shows them."""

from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QTextDocument
from qgis.PyQt.QtWidgets import QComboBox, QLabel, QTextBrowser

from rs4d_qgis.dock.model_card import ModelCardDialog
from rs4d_qgis.dock.model_chooser import ModelChooser
from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.dock.run_box import RunBox
from rs4d_qgis.plain_text import PlainLabel, as_it_is
from rs4d_qgis.review.outcome.work_line import WorkLine

NAME = '<img src="file:///etc/passwd"><b>ship</b> & <a href="http://127.0.0.1:9/">more</a>'
CARD = {
    "config": {"classes": [NAME]},
    "colors": ["#0082c8"],
    "default_scores": [0.4],
    "resolution_m": [0.3, 0.7],
    "bands": [NAME],
    "created_by": NAME,
    "training_data": [{"name": NAME, "licence": NAME}],
    "metrics": {NAME: {"images": 40, "mask": {"ap": 0.25, "ap50": 0.5}, "by_class": {}}},
}
MODELS = [
    {"path": f"/models/{NAME}.safetensors", "name": NAME, "sha256": "d" * 64, "card": CARD},
    {"path": "/models/broken.safetensors", "error": NAME},
]


def shown(text: str) -> str:
    """What somebody reads where Qt itself tells text from HTML."""
    document = QTextDocument()
    if Qt.mightBeRichText(text):
        document.setHtml(text)
    else:
        document.setPlainText(text)
    return document.toPlainText()


def test_tool_tips_and_questions():
    assert shown(NAME) != NAME  # else there would be nothing to do
    for text in (NAME, f"first\n{NAME}", "a < b & c", "plain"):
        assert shown(as_it_is(text)) == text


def test_labels_whose_texts_come_from_files():
    for label in (PlainLabel(NAME), QuietLabel()):
        label.setText(NAME)
        assert label.textFormat() == Qt.TextFormat.PlainText


def test_the_states_of_a_run_and_of_other_work():
    box, line = RunBox(list), WorkLine()
    box.say(NAME)
    box.set_forecast(NAME, "")
    line.warn(NAME)
    found = [label for widget in (box, line) for label in widget.findChildren(QLabel) if label.text() == NAME]
    assert len(found) == 3
    assert {label.textFormat() for label in found} == {Qt.TextFormat.PlainText}


def test_the_list_of_models():
    chooser = ModelChooser()
    chooser.set_models(MODELS, "/models/none.safetensors")
    combo = chooser.findChild(QComboBox)
    tips = [combo.itemData(index, Qt.ItemDataRole.ToolTipRole) for index in range(combo.count())]
    assert len(tips) == 2
    assert all(NAME in shown(tip) for tip in tips)


def test_the_card_of_a_model():
    dialog = ModelCardDialog(MODELS[0])
    page = dialog.findChild(QTextBrowser)
    text = page.toPlainText()
    assert text.count("<b>ship</b>") >= 6  # its name, classes, bands, data, licence, maker, path
    assert "\N{OBJECT REPLACEMENT CHARACTER}" not in text
