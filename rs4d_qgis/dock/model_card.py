"""A model's card, as a page to read."""

from __future__ import annotations

from html import escape

from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QDialog, QDialogButtonBox, QTextBrowser, QVBoxLayout, QWidget

from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count


def card_summary(card: dict) -> str:
    """One line: how many classes, and for which resolution."""
    finest, coarsest = card["resolution_m"]
    classes = count(len(card["config"]["classes"]), tr("class"), tr("classes"))
    return tr("{classes}, for {finest:g} to {coarsest:g} m a pixel").format(
        classes=classes, finest=finest, coarsest=coarsest
    )


def card_html(model: dict) -> str:
    """The card of a model as `hello` tells it: `{path, name, sha256, card}`."""
    card = model["card"]
    parts = [
        f"<h3>{escape(model['name'])}</h3><p>{escape(card_summary(card))}. ",
        tr("Bands: {}.").format(escape(", ".join(card.get("bands", ())))),
        "</p>",
        _classes(card),
        _measured(card.get("metrics", {})),
        _training_data(card.get("training_data", ())),
        f"<p>{escape(tr('File'))}: {escape(model['path'])}<br>{escape(card.get('created_by', ''))}</p>",
    ]
    return "".join(parts)


def _classes(card: dict) -> str:
    accuracy = _accuracy_by_class(card.get("metrics", {}))
    head = [tr("Class"), tr("Least score"), tr("AP50, outlines")]
    rows = []
    for name, color, score in zip(card["config"]["classes"], card["colors"], card["default_scores"]):
        measured = accuracy.get(name)
        cells = [f"{score:.2f}", tr("not measured") if measured is None else f"{100 * measured:.0f} %"]
        swatch = f'<span style="color:{escape(color)}">\N{BLACK SQUARE}</span> '
        rows.append([swatch + escape(class_label(name)), *map(escape, cells)])
    note = tr(
        "AP50 takes an outline for right if it and the true one share half of what they cover together; "
        "100 % would be all found, and nothing else."
    )
    return f"<h4>{escape(tr('Classes'))}</h4>{_table(head, rows)}<p>{escape(note)}</p>"


def _accuracy_by_class(metrics: dict) -> dict[str, float]:
    """AP50 of each class over all data that was held back, or over the only data set there is."""
    chosen = metrics.get("all") or (next(iter(metrics.values())) if len(metrics) == 1 else {})
    by_class = chosen.get("by_class", {}) if isinstance(chosen, dict) else {}
    return {name: values["mask_ap50"] for name, values in by_class.items() if "mask_ap50" in values}


def _measured(metrics: dict) -> str:
    rows = [
        [escape(tr("all of them") if name == "all" else name), str(values.get("images", "")), *_percents(values)]
        for name, values in metrics.items()
        if isinstance(values, dict) and "mask" in values
    ]
    if not rows:
        return f"<p>{escape(tr('Its accuracy has not been measured.'))}</p>"
    head = [tr("Held-back images of"), tr("Images"), tr("AP, outlines"), tr("AP50")]
    return f"<h4>{escape(tr('Measured accuracy'))}</h4>{_table(head, rows)}"


def _percents(values: dict) -> list[str]:
    mask = values["mask"]
    # Where a data set knows boxes only, the card says null.
    figures = [mask.get(name) for name in ("ap", "ap50")]
    return [escape(tr("not measured")) if figure is None else f"{100 * figure:.1f} %" for figure in figures]


def _training_data(sets) -> str:
    if not sets:
        return f"<p>{escape(tr('The card does not name the training data.'))}</p>"
    rows = [[escape(_origin(one)), escape(str(one.get("licence", "")))] for one in sets]
    return f"<h4>{escape(tr('Trained on'))}</h4>{_table([tr('Data set'), tr('Licence')], rows)}"


def _origin(data: dict) -> str:
    name = str(data.get("name", ""))
    return tr("{name}, by way of {model}").format(name=name, model=data["via"]) if data.get("via") else name


def _table(head: list[str], rows: list[list[str]]) -> str:
    """`rows` are HTML, `head` is text."""
    lines = ["".join(f'<th align="left">{escape(cell)}</th>' for cell in head)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f'<table cellpadding="3">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


class ModelCardDialog(QDialog):
    """The card in a window of its own, which may stay open."""

    def __init__(self, model: dict, parent: QWidget | None = None):
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(tr("Model {}").format(model["name"]))
        page = QTextBrowser()
        page.setOpenExternalLinks(True)
        page.setHtml(card_html(model))
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(self.reject)
        layout = QVBoxLayout(self)
        layout.addWidget(page)
        layout.addWidget(buttons)
        letter = self.fontMetrics().averageCharWidth()
        self.resize(64 * letter, 36 * self.fontMetrics().height())
