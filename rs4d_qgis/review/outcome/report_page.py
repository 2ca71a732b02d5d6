"""How a report looks: a page of A4 with a map, what it is, and a table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from qgis.core import (
    QgsLayout,
    QgsLayoutFrame,
    QgsLayoutItem,
    QgsLayoutItemLabel,
    QgsLayoutItemManualTable,
    QgsLayoutItemPage,
    QgsLayoutItemPicture,
    QgsLayoutMeasurement,
    QgsLayoutMultiFrame,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsLayoutTable,
    QgsLayoutTableColumn,
    QgsPrintLayout,
    QgsProject,
    QgsTableCell,
    QgsTextFormat,
)
from qgis.PyQt.QtCore import QPointF, QRectF, Qt
from qgis.PyQt.QtGui import QColor, QFont, QImage, QPainter, QPen

from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.results import OTHER_COLOR
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.logic.summary import Summary, SummaryRow
from rs4d_qgis.translation import tr
from rs4d_qgis.words import spaced

_PAGE_MM = (210.0, 297.0)
_MARGIN_MM = 15.0
_WIDTH_MM = _PAGE_MM[0] - 2 * _MARGIN_MM
PICTURE_MM = (_WIDTH_MM, 110.0)
_LINE_MM = 5.0
_FOOTER_MM = 6.0
# What fits into a line of the title, and into the table.
_TITLE_LETTERS, _NAME_LETTERS = 50, 21
# Larger areas do not fit into the table in square metres.
_MOST_M2 = 1e7
_TEXT_PT = 9.0
_COLUMNS_MM = (4.0, 37.0, 15.0, 15.0, 15.0, 15.0, 20.5, 20.5, 20.5)  # and the cells' margins
_QUIET, _INK, _RULE = "#5a6068", "#202428", "#d5d9de"


@dataclass(frozen=True)
class ReportContent:
    """What a report tells, apart from its map.

    Attributes:
        title: the layer's name.
        facts: pairs of what and which.
        summary: of all objects.
        colors: of classes, "#rrggbb".
        footer: the last line of each page.
    """

    title: str
    facts: list[tuple[str, str]]
    summary: Summary
    colors: dict[str, str]
    footer: str


def layout_of(project: QgsProject, content: ReportContent, picture: Path) -> QgsPrintLayout:
    """The report; its table goes on to further pages where it must. `picture`: of the map, to be there while it is
    exported."""
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    page = layout.pageCollection().page(0)
    page.setPageSize("A4", QgsLayoutItemPage.Orientation.Portrait)
    top = _MARGIN_MM
    title = tr("Review of {}").format(content.title)
    top += _label(layout, title, top, 10.0 * math.ceil(len(title) / _TITLE_LETTERS), 18.0, bold=True)
    image = QgsLayoutItemPicture(layout)
    image.setPicturePath(str(picture))
    image.setFrameEnabled(True)
    image.setFrameStrokeColor(QColor(_RULE))
    image.setFrameStrokeWidth(QgsLayoutMeasurement(0.2))
    _place(layout, image, _MARGIN_MM, top + 1.0, *PICTURE_MM)
    top += 1.0 + PICTURE_MM[1] + 4.0
    for what, which in content.facts:
        high = _LINE_MM * max(1, math.ceil(len(which) / 92))
        _label(layout, what, top, high, _TEXT_PT, color=_QUIET, width=22.0)
        _label(layout, which, top, high, _TEXT_PT, left=_MARGIN_MM + 22.0, width=_WIDTH_MM - 22.0)
        top += high
    _add_table(layout, content, top + 4.0)
    for number in range(layout.pageCollection().pageCount()):
        _label(layout, content.footer, _PAGE_MM[1] - 12.0, _FOOTER_MM, 7.5, color=_QUIET, page=number)
    return layout


def draw_scale_bar(image: QImage, pixel_m: float) -> None:
    """A scale bar at the lower left of a map whose pixels are so many metres wide, as far as that is known."""
    if not (math.isfinite(pixel_m) and pixel_m > 0):
        return
    most = pixel_m * image.width() / 5
    power = 10.0 ** math.floor(math.log10(most))
    metres = max(step * power for step in (1, 2, 5) if step * power <= most)
    label = tr("{:g} km").format(metres / 1000) if metres >= 1000 else tr("{:g} m").format(metres)
    length = metres / pixel_m
    unit = image.width() / 100
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    font = QFont()
    font.setPixelSize(round(1.9 * unit))
    painter.setFont(font)
    box = QRectF(unit, image.height() - 5 * unit, length + 2 * unit, 4 * unit)
    painter.fillRect(box, QColor(255, 255, 255, 215))
    painter.setPen(QPen(QColor(_INK), unit / 4))
    left, base = box.left() + unit, box.bottom() - 0.9 * unit
    painter.drawLine(QPointF(left, base), QPointF(left + length, base))
    for end in (left, left + length):
        painter.drawLine(QPointF(end, base - unit / 2), QPointF(end, base))
    painter.drawText(QRectF(box.left(), box.top(), box.width(), 2.6 * unit), Qt.AlignmentFlag.AlignCenter, label)
    painter.end()


def _add_table(layout: QgsPrintLayout, content: ReportContent, top: float) -> None:
    table = QgsLayoutItemManualTable.create(layout)
    layout.addMultiFrame(table)
    summary = content.summary
    large = sum(summary.all.areas_m2.values()) > _MOST_M2
    unit = "km²" if large else "m²"
    titles = ["", "", tr("Accepted"), tr("Pending"), tr("Rejected"), tr("All")]
    titles += [f"{title}, {unit}" for title in titles[2:5]]
    table.setIncludeTableHeader(True)
    rows = [
        _cells(row, class_label(row.name) or tr("no class"), large, content.colors.get(row.name, OTHER_COLOR))
        for row in summary.rows
    ]
    rows.append(_cells(summary.all, tr("All"), large, None, bold=True))
    table.setTableContents(rows)
    table.setColumnWidths(list(_COLUMNS_MM))
    table.setHeaders([QgsLayoutTableColumn(title) for title in titles])
    table.setHeaderTextFormat(_text(_TEXT_PT - 1, _QUIET))
    table.setHeaderHAlignment(QgsLayoutTable.HeaderHAlignment.HeaderRight)
    table.setContentTextFormat(_text(_TEXT_PT, _INK))
    table.setCellMargin(0.9)
    table.setGridColor(QColor(_RULE))
    table.setGridStrokeWidth(0.2)
    table.setVerticalGrid(False)
    table.setBackgroundColor(QColor(255, 255, 255, 0))
    table.setResizeMode(QgsLayoutMultiFrame.ResizeMode.UseExistingFrames)
    left, page = len(rows), 0
    while left > 0:
        if page > 0:
            new = QgsLayoutItemPage(layout)
            new.setPageSize("A4", QgsLayoutItemPage.Orientation.Portrait)
            layout.pageCollection().addPage(new)
            top = _MARGIN_MM
        frame = QgsLayoutFrame(layout, table)
        table.addFrame(frame, False)
        high = _PAGE_MM[1] - top - _MARGIN_MM - _FOOTER_MM
        frame.attemptMove(QgsLayoutPoint(_MARGIN_MM, top), page=page)
        frame.attemptResize(QgsLayoutSize(_WIDTH_MM, high))
        if page == 0:
            table.refresh()  # it is measured once it has a frame
            row_mm = table.totalSize().height() / (len(rows) + 1)
        # Each frame has the header once more. A last, empty frame does no harm.
        left -= max(1, math.floor(high / row_mm) - 2)
        page += 1
    table.recalculateFrameSizes()
    unknown = summary.all.unknown_areas
    if unknown:
        _label(
            layout,
            tr("The areas of {} objects are not known and not counted.").format(spaced(unknown)),
            _PAGE_MM[1] - 17.0,
            _LINE_MM,
            7.5,
            color=_QUIET,
        )


def _cells(row: SummaryRow, name: str, large: bool, color: str | None, bold: bool = False) -> list[QgsTableCell]:
    order = (ACCEPTED, PENDING, REJECTED)
    if len(name) > _NAME_LETTERS:
        name = f"{name[: _NAME_LETTERS - 1]}…"
    texts = ["", name, *(spaced(row.counts[status]) for status in order), spaced(row.total)]
    areas = (row.areas_m2[status] for status in order)
    texts += [f"{area / 1e6:.2f}" if large else spaced(round(area)) for area in areas]
    cells = []
    for place, text in enumerate(texts):
        cell = QgsTableCell(text)
        cell.setHorizontalAlignment(Qt.AlignmentFlag.AlignLeft if place < 2 else Qt.AlignmentFlag.AlignRight)
        cell.setTextFormat(_text(_TEXT_PT, _INK, bold))
        cells.append(cell)
    if color is not None:
        cells[0].setBackgroundColor(QColor(color))
    return cells


def _label(
    layout: QgsLayout,
    text: str,
    top: float,
    high: float,
    points: float,
    color: str = _INK,
    bold: bool = False,
    left: float = _MARGIN_MM,
    width: float = _WIDTH_MM,
    page: int = 0,
) -> float:
    """Adds a text; gives its height."""
    label = QgsLayoutItemLabel(layout)
    label.setText(text)
    # 3.24 has `setTextFormat`.
    font = QFont()
    font.setPointSizeF(points)
    font.setBold(bold)
    if hasattr(label, "setTextFormat"):
        label.setTextFormat(_text(points, color, bold))
    else:
        label.setFont(font)
        label.setFontColor(QColor(color))
    label.setMarginX(0.0)
    _place(layout, label, left, top, width, high, page)
    return high


def _place(layout: QgsLayout, item: QgsLayoutItem, left: float, top: float, width: float, high: float, page=0) -> None:
    layout.addLayoutItem(item)
    item.attemptMove(QgsLayoutPoint(left, top), page=page)
    item.attemptResize(QgsLayoutSize(width, high))


def _text(points: float, color: str, bold: bool = False) -> QgsTextFormat:
    text = QgsTextFormat()
    font = QFont()
    font.setBold(bold)
    text.setFont(font)
    text.setSize(points)
    text.setColor(QColor(color))
    return text
