"""Two layers compared, as a page for people."""

from __future__ import annotations

from html import escape
from typing import Any

from rs4d_qgis.translation import tr

_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 1.5em; }}
table {{ border-collapse: collapse; }}
th, td {{ padding: 0.25em 0.8em; border-bottom: 1px solid #cccccc; text-align: right; }}
th:first-child, td:first-child {{ text-align: left; }}
</style></head><body>
<h1>{title}</h1>
<p>{sentence}</p>
<table>
<tr>{head}</tr>
{rows}
</table>
{notes}
</body></html>
"""
_FIGURES = ("ap", "ap50", "ap75", "precision", "recall", "f1", "mean_iou")
_COUNTS = ("predicted", "reference", "matched")


def html_report(metrics: dict[str, Any], predicted: str, reference: str) -> str:
    """The page. `metrics` are the engine's answer to `evaluate`; the names are those of the layers."""
    titles = ["", "AP", "AP50", "AP75", tr("Precision"), tr("Recall"), "F1", tr("Mean IoU")]
    titles += [tr("Predicted"), tr("Reference"), tr("Matched")]
    rows = [(tr("all"), metrics), *sorted(metrics["by_class"].items())]
    notes = "".join(f"<li>{escape(note)}</li>" for note in metrics["notes"])
    return _PAGE.format(
        title=escape(tr("Evaluation of {}").format(predicted)),
        sentence=escape(
            tr("Against {}. A match needs an IoU of {:g}. Figures in per cent.").format(reference, metrics["iou"])
        ),
        head="".join(f"<th>{escape(title)}</th>" for title in titles),
        rows="\n".join(_row(name, figures) for name, figures in rows),
        notes=f"<ul>{notes}</ul>" if notes else "",
    )


def _row(name: str, figures: dict[str, Any]) -> str:
    cells = [escape(name)]
    cells += ["–" if figures[key] is None else f"{100 * figures[key]:.1f}" for key in _FIGURES]
    cells += [str(figures[key]) for key in _COUNTS]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
