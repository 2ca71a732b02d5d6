"""What a picture of all objects is painted from, within tens of milliseconds, at any score cut.

QGIS draws one object after the other, half a second for 50 000. Here, the outlines of all objects of one look, class
and hundredth of the score are one path, which Qt paints at once. A cut leaves paths out.
"""

from __future__ import annotations

import math
import time
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from qgis.core import (
    QgsCoordinateTransform,
    QgsCsException,
    QgsExpressionContextUtils,
    QgsFeature,
    QgsFeatureRenderer,
    QgsProject,
    QgsRenderContext,
    QgsRuleBasedRenderer,
    QgsSymbol,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QObject, QSize, Qt, QTimer, pyqtSignal
from qgis.PyQt.QtGui import QColor, QImage, QPainter, QPainterPath, QPen, QTransform

from rs4d_qgis.layers.statuses import ACCEPTED, REJECTED
from rs4d_qgis.review.logic.objects import ReviewObject
from rs4d_qgis.review.reviewed import look
from rs4d_qgis.review.reviewed.reviewed_layer import ReviewedLayer

# Cuts are whole hundredths: objects between two of them are cut together.
_CUTS = [step / 100 for step in range(101)]
# Reading goes on between events, in slices that nobody feels.
_SLICE_S = 0.008
_MS_UNTIL_READ = 300
_READ_TOGETHER = 50  # 1 to 2 ms
_MOST_AT_ONCE = 200
# Wider outlines than this are not, in a draft.
_WIDEST_PX = 12
# They take about 1 KB each.
_MOST_OBJECTS = 200_000


class _Paint(NamedTuple):
    """How a symbol fills and outlines, as "#aarrggbb"; "" for not at all.

    Attributes:
        width: of the outline, in whole pixels.
    """

    fill: str
    line: str
    width: int


class _Batch(NamedTuple):
    """What is painted, and cut, together.

    Attributes:
        paints: one after the other.
        class_name: None for what no cut takes away.
        least: no score in here is lower, and none reaches the next hundredth.
        side_m: of accepted objects, of squares of about their area, a power of two; else None.
    """

    paints: tuple[_Paint, ...]
    class_name: str | None
    least: float
    side_m: float | None


class DraftShapes(QObject):
    """The outlines of a layer under review, in the map's CRS, in the colours of the layer's own look.

    They are read bit by bit while QGIS is idle, and follow the layer, its look and the map's CRS.

    Signals:
        restarted(): nothing is there, as all is read anew.
    """

    restarted = pyqtSignal()

    def __init__(self, reviewed: ReviewedLayer, canvas: QgsMapCanvas, parent: QObject | None = None):
        super().__init__(parent)
        self._reviewed, self._canvas = reviewed, canvas
        self._batch_of: dict[int, _Batch] = {}
        self._outlines: dict[_Batch, dict[int, QPainterPath]] = {}
        self._paths: dict[_Batch, QPainterPath] = {}
        self._selected: dict[_Batch, QPainterPath] | None = None
        self._pending: list[int] = []
        self._renderer: QgsFeatureRenderer | None = None
        self._by_scale = False
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._read_on)
        reviewed.changed.connect(self._changed)
        reviewed.layer.rendererChanged.connect(self._restart)
        reviewed.layer.selectionChanged.connect(self._selection_changed)
        canvas.destinationCrsChanged.connect(self._restart)
        canvas.scaleChanged.connect(self._scale_changed)
        self._restart()

    @property
    def ready(self) -> bool:
        """Whether the picture would be whole."""
        return self._renderer is not None and not self._pending

    def tear_down(self) -> None:
        """Let go of layer and map."""
        self._timer.stop()
        self._pending = []
        self._reviewed.changed.disconnect(self._changed)
        if not sip.isdeleted(self._reviewed.layer):
            self._reviewed.layer.rendererChanged.disconnect(self._restart)
            self._reviewed.layer.selectionChanged.disconnect(self._selection_changed)
        if not sip.isdeleted(self._canvas):
            self._canvas.destinationCrsChanged.disconnect(self._restart)
            self._canvas.scaleChanged.disconnect(self._scale_changed)

    def catch_up(self) -> bool:
        """Read at once what is still to be read, if that is little. Returns `ready`."""
        if len(self._pending) <= _MOST_AT_ONCE:
            self.read()
        return self.ready

    def read(self) -> None:
        """Read at once what is still to be read, whatever that takes."""
        while self._pending:
            self._read_slice()

    def paint(self, image: QImage, to_pixels: QTransform, cuts: Mapping[str, float]) -> None:
        """Paint what these cuts leave on an image of format ARGB32_Premultiplied: first all fills, those of selected
        objects in the map's colour for them, then all outlines.

        Args:
            to_pixels: from the map's CRS.
        """
        settings = self._canvas.mapSettings()
        px_per_m = settings.outputDpi() / 0.0254 / settings.scale()
        lines: dict[int, list[tuple[str, QPainterPath]]] = {}
        selected = self._selected_paths()
        painter = QPainter(image)
        painter.setOpacity(self._reviewed.layer.opacity())
        painter.setTransform(to_pixels)
        painter.setPen(Qt.PenStyle.NoPen)
        for batch in self._outlines:
            if batch.class_name is not None and batch.least < cuts.get(batch.class_name, 0.0):
                continue
            for paint in batch.paints:
                if paint.fill:
                    painter.setBrush(QColor(paint.fill))
                    painter.drawPath(self._path(batch))
                if paint.line:
                    width = paint.width
                    if batch.side_m is not None:
                        width = round(look.accepted_width(width, batch.side_m * px_per_m))
                    lines.setdefault(width, []).append((paint.line, self._path(batch)))
            if batch in selected:
                painter.setBrush(settings.selectionColor())
                painter.drawPath(selected[batch])
        painter.resetTransform()
        for width, outlines in sorted(lines.items()):
            drawn = _outlined(image.size(), to_pixels, outlines)
            _widen(drawn, width)
            painter.drawImage(-((width - 1) // 2), -((width - 1) // 2), drawn)
        painter.end()

    def _path(self, batch: _Batch) -> QPainterPath:
        path = self._paths.get(batch)
        if path is None:
            path = self._paths[batch] = _together(self._outlines[batch].values())
        return path

    def _selected_paths(self) -> dict[_Batch, QPainterPath]:
        if self._selected is None:
            outlines: dict[_Batch, list[QPainterPath]] = {}
            for item in self._reviewed.layer.selectedFeatureIds():
                batch = self._batch_of.get(item)
                if batch is not None:
                    outlines.setdefault(batch, []).append(self._outlines[batch][item])
            self._selected = {batch: _together(of_batch) for batch, of_batch in outlines.items()}
        return self._selected

    def _selection_changed(self, *_) -> None:
        self._selected = None

    def _scale_changed(self, _scale: float) -> None:
        if self._by_scale:
            self._restart()

    def _changed(self, ids: set[int] | None) -> None:
        if ids is None:
            self._restart()
        elif self._renderer is not None:
            self._pending.extend(ids)
            self._timer.start(_MS_UNTIL_READ)

    def _restart(self) -> None:
        self._selected = None
        self._batch_of.clear()
        self._outlines.clear()
        self._paths.clear()
        self._renderer = look.review_renderer(self._reviewed.layer)
        self._pending = []
        self.restarted.emit()
        if self._reviewed.layer.featureCount() > _MOST_OBJECTS:
            self._renderer = None
        if self._renderer is None:  # such as a heat map's, which a review leaves alone
            return
        self._by_scale = isinstance(self._renderer, QgsRuleBasedRenderer) and any(
            rule.dependsOnScale() for rule in self._renderer.rootRule().descendants()
        )
        self._pending = list(self._reviewed.layer.allFeatureIds())
        self._timer.start(_MS_UNTIL_READ)

    def _read_on(self) -> None:
        if self._canvas.isDrawing():  # which somebody waits for
            self._timer.start(_MS_UNTIL_READ)
            return
        self._read_slice()
        if self._pending:
            self._timer.start(0)

    def _read_slice(self) -> None:
        layer = self._reviewed.layer
        context = QgsRenderContext.fromMapSettings(self._canvas.mapSettings())
        context.expressionContext().appendScope(QgsExpressionContextUtils.layerScope(layer))
        to_map = QgsCoordinateTransform(
            layer.crs(), self._canvas.mapSettings().destinationCrs(), QgsProject.instance().transformContext()
        )
        self._renderer.startRender(context, layer.fields())
        paints: dict[int, tuple[_Paint, ...]] = {}
        end = time.perf_counter() + _SLICE_S
        while self._pending and time.perf_counter() < end:
            ids = self._pending[-_READ_TOGETHER:]
            del self._pending[-_READ_TOGETHER:]
            self._forget(ids)
            for item, feature in self._reviewed.with_features(ids):
                self._add(feature, item, context, to_map, paints)
        self._renderer.stopRender(context)

    def _forget(self, ids: Iterable[int]) -> None:
        self._selected = None
        for item in ids:
            batch = self._batch_of.pop(item, None)
            if batch is not None:
                self._paths.pop(batch, None)
                del self._outlines[batch][item]
                if not self._outlines[batch]:
                    del self._outlines[batch]

    def _add(
        self,
        feature: QgsFeature,
        item: ReviewObject,
        context: QgsRenderContext,
        to_map: QgsCoordinateTransform,
        known: dict[int, tuple[_Paint, ...]],
    ) -> None:
        if item.status == REJECTED:
            paints = (_Paint("", look.REJECTED_COLOR, 1),)
        else:
            paints = ()
            for symbol in self._symbols(feature, context):
                address = sip.unwrapinstance(symbol)
                if address not in known:
                    known[address] = _paints(symbol, context)
                paints += known[address]
        geometry = feature.geometry()
        if not paints or geometry.isEmpty():
            return
        try:
            geometry.transform(to_map)
        except QgsCsException:  # as QGIS, which does not draw it either
            return
        is_cut = item.score is not None and item.status != ACCEPTED
        batch = _Batch(
            paints,
            item.class_name if is_cut else None,
            _CUTS[bisect_right(_CUTS, max(0.0, item.score)) - 1] if is_cut else 0.0,
            _side(item.area_m2) if item.status == ACCEPTED else None,
        )
        ordered = geometry.forceRHR()  # holes go round the other way, which keeps them empty
        self._batch_of[item.id] = batch
        self._outlines.setdefault(batch, {})[item.id] = ordered.constGet().asQPainterPath()
        self._paths.pop(batch, None)

    def _symbols(self, feature: QgsFeature, context: QgsRenderContext) -> list[QgsSymbol]:
        if not isinstance(self._renderer, QgsRuleBasedRenderer):
            return self._renderer.originalSymbolsForFeature(feature, context)
        # Asked for symbols, it tells those of "else" for all objects.
        keys = self._renderer.legendKeysForFeature(feature, context)
        rules = self._renderer.rootRule().descendants()
        return [rule.symbol() for rule in rules if rule.ruleKey() in keys and rule.symbol() is not None]


def _together(outlines: Collection[QPainterPath]) -> QPainterPath:
    path = QPainterPath()
    path.setFillRule(Qt.FillRule.WindingFill)  # where two overlap, both are there
    path.reserve(sum(outline.elementCount() for outline in outlines))  # else each one added copies all others
    for outline in outlines:
        path.addPath(outline)
    return path


def _paints(symbol: QgsSymbol, context: QgsRenderContext) -> tuple[_Paint, ...]:
    """What the parts of a symbol come down to: patterns are plain."""
    found = []
    for part in symbol.symbolLayers():
        if not part.enabled():
            continue
        fill, line, width = part.color(), part.strokeColor(), 1.0
        if part.layerType() == "SimpleFill":
            fill = fill if part.brushStyle() != Qt.BrushStyle.NoBrush else None
            line = line if part.strokeStyle() != Qt.PenStyle.NoPen else None
            width = context.convertToPainterUnits(part.strokeWidth(), part.strokeWidthUnit())
        elif part.layerType() == "SimpleLine":
            fill, line = None, part.color()
            width = context.convertToPainterUnits(part.width(), part.widthUnit())
        names = (_name(color, symbol.opacity()) for color in (fill, line))
        found.append(_Paint(*names, max(1, min(round(width), _WIDEST_PX))))
    return tuple(paint for paint in found if paint.fill or paint.line)


def _side(area_m2: float | None) -> float:
    """Of a square of about this area, in metres, a power of two; infinite where the area is not known."""
    if area_m2 is None or not math.isfinite(area_m2):
        return math.inf
    return 2.0 ** round(math.log2(max(area_m2, 1e-6)) / 2)


def _name(color: QColor | None, opacity: float) -> str:
    if color is None or not color.alpha():
        return ""
    color = QColor(color)
    color.setAlphaF(color.alphaF() * opacity)
    return color.name(QColor.NameFormat.HexArgb)


def _outlined(size: QSize, to_pixels: QTransform, outlines: list[tuple[str, QPainterPath]]) -> QImage:
    """Outlines of one pixel in colours, on nothing. Qt takes many times as long for wider ones."""
    image = QImage(size, QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setTransform(to_pixels)
    for color, path in outlines:
        pen = QPen(QColor(color))
        pen.setCosmetic(True)
        painter.setPen(pen)
        painter.drawPath(path)
    painter.end()
    return image


def _widen(image: QImage, width: int) -> None:
    """Widen what is on an image to so many pixels, to the right and downwards: it is laid over itself."""
    reach = 1
    while reach < width:
        step = min(reach, width - reach)
        for right, down in ((step, 0), (0, step)):
            before = image.copy()
            painter = QPainter(image)
            painter.drawImage(right, down, before)
            painter.end()
        reach += step
