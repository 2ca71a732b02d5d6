"""How a layer looks while it is under review: what the score cut hides, what is rejected, and what is accepted.

The layer's own renderer is given rules that depend on a layer variable, and comes back afterwards. The layer's features
and its filter stay as they are.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from functools import cache

from qgis.core import (
    NULL,
    QgsCategorizedSymbolRenderer,
    QgsExpression,
    QgsExpressionContextUtils,
    QgsFeatureRenderer,
    QgsFillSymbol,
    QgsProperty,
    QgsReadWriteContext,
    QgsRenderContext,
    QgsRendererCategory,
    QgsRuleBasedRenderer,
    QgsSymbol,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtGui import QColor
from qgis.PyQt.QtXml import QDomDocument

from rs4d_qgis.compat import FILL_COLOR, STROKE_WIDTH
from rs4d_qgis.layers.statuses import ACCEPTED, REJECTED
from rs4d_qgis.translation import tr

CUTS_VARIABLE = "rs4d_score_cuts"
# What has no score or is accepted is not cut. QGIS reads the variable once for each drawing, not for each object.
_CUT = (
    f"@{CUTS_VARIABLE} <> '{{}}' AND \"score\" < map_get(from_json(@{CUTS_VARIABLE}), coalesce(\"class\", ''))"
    f" AND \"status\" IS NOT '{ACCEPTED}'"
)
_REJECTED = f"\"status\" IS '{REJECTED}'"
# The outline of what is accepted is so many times as wide, but where it would hide a small object: it takes at most
# this share of the side of a square of the object's area.
_ACCEPTED_TIMES = 3
_MOST_OF_OBJECT = 0.2
_ACCEPTED_WIDER = f"if(\"status\" IS '{ACCEPTED}', "
# Units of widths that are the same on any map, by QGIS's names, in a millimetre.
_IN_MM = {"MM": 1.0, "Point": 72 / 25.4, "Inch": 1 / 25.4, "Pixel": 96 / 25.4}
# Fills let at least this much of the imagery through; what is to be judged is there.
_MOST_OPAQUE = 0.35
REJECTED_COLOR = "#b03030"
# Parts of symbols that cover no ground.
_LINES = ("SimpleLine", "MarkerLine", "HashLine", "ArrowLine")
_MARK = "rs4d-review"
_CUT_MARK, _REJECTED_MARK = f"{_MARK}-cut", f"{_MARK}-rejected"
_OWN_LOOK = "rs4d/own_look"
_replaced: deque[QgsFeatureRenderer] = deque(maxlen=4)


def class_colors(layer: QgsVectorLayer) -> dict[str, str]:
    """The colours ("#rrggbb") of classes that the layer's own look has."""
    renderer = own_renderer(layer) or layer.renderer()
    if not isinstance(renderer, QgsCategorizedSymbolRenderer) or renderer.classAttribute().strip('"') != "class":
        return {}
    return {
        str(category.value()): category.symbol().color().name()
        for category in renderer.categories()
        if category.symbol() is not None and isinstance(category.value(), str) and category.value()
    }


def put_on(layer: QgsVectorLayer) -> None:
    """Give a layer the look of a review, anew where it has it: of a project that was saved in a review."""
    if _has_it(layer):
        own = _own_as_it_is_now(layer)
        if own is None:
            return
        _replace(layer, own)
    document = QDomDocument()
    document.appendChild(layer.renderer().save(document, QgsReadWriteContext()))
    layer.setCustomProperty(_OWN_LOOK, document.toString(-1))
    if isinstance(layer.renderer(), QgsCategorizedSymbolRenderer):
        look = _categorized(layer.renderer(), layer.fields().names())
    else:
        look = _by_rules(layer.renderer())
    if look is None:  # such as a heat map, which shows no single objects
        layer.removeCustomProperty(_OWN_LOOK)
        return
    _replace(layer, look)
    layer.triggerRepaint()


def take_off(layer: QgsVectorLayer) -> None:
    """Give a layer its own look back, with what was changed of its classes meanwhile. One that was given another keeps
    that."""
    own = _own_as_it_is_now(layer)
    if own is not None and _has_it(layer):
        _replace(layer, own)
        layer.triggerRepaint()
    layer.removeCustomProperty(_OWN_LOOK)
    set_cuts(layer, {})


def own_renderer(layer: QgsVectorLayer) -> QgsFeatureRenderer | None:
    """The look that `take_off` gives back; None where there is none."""
    document = QDomDocument()
    if not document.setContent(layer.customProperty(_OWN_LOOK) or ""):
        return None
    return QgsFeatureRenderer.load(document.documentElement(), QgsReadWriteContext())


def review_renderer(layer: QgsVectorLayer) -> QgsFeatureRenderer | None:
    """Its own look as a review shows it, but for statuses and cuts; None where it keeps its look under review."""
    own = own_renderer(layer)
    if own is not None:
        _let_through(own)
    return own


def accepted_width(width: float, side: float) -> float:
    """Of the outline of an accepted object, by its own width and the side of a square of the object's area, all as they
    are on the screen, in one unit."""
    return max(width, min(_ACCEPTED_TIMES * width, _MOST_OF_OBJECT * side))


def set_cuts(layer: QgsVectorLayer, cuts: Mapping[str, float]) -> None:
    """Hide objects with lower scores, at once, where the layer has the look of a review."""
    QgsExpressionContextUtils.setLayerVariable(layer, CUTS_VARIABLE, json.dumps(dict(cuts)))
    layer.triggerRepaint()


def _replace(layer: QgsVectorLayer, look: QgsFeatureRenderer) -> None:
    """Give a layer another look. The one before lives on for a while, for expressions of the user's own, see
    `_property`."""
    _replaced.append(layer.renderer().clone())
    layer.setRenderer(look)


def _has_it(layer: QgsVectorLayer) -> bool:
    renderer = layer.renderer()
    if isinstance(renderer, QgsCategorizedSymbolRenderer):
        return _CUT_MARK in renderer.classAttribute()
    if isinstance(renderer, QgsRuleBasedRenderer):
        return any(rule.description() == _MARK for rule in renderer.rootRule().children())
    return False


def _own_as_it_is_now(layer: QgsVectorLayer) -> QgsFeatureRenderer | None:
    """Its own look, and of its classes what somebody has changed, added, left out or hidden in the legend since."""
    own, look = own_renderer(layer), layer.renderer()
    if not all(isinstance(renderer, QgsCategorizedSymbolRenderer) for renderer in (own, look)):
        return own
    before = {_value(category): category for category in own.categories()}
    given = _categorized(own, layer.fields().names())
    as_given = {_value(category): _drawn(category.symbol()) for category in given.categories()}
    own.deleteAllCategories()
    for category in look.categories():
        value = _value(category)
        if value in (_CUT_MARK, _REJECTED_MARK):
            continue
        kept = QgsRendererCategory(category)
        if value in before and _drawn(kept.symbol()) == as_given[value]:
            kept.setSymbol(before[value].symbol().clone())
        else:
            _unmark_accepted(kept.symbol())
        own.addCategory(kept)
    return own


def _value(category: QgsRendererCategory) -> str:
    """The same for that of all others whether or not it was written down and read: nothing becomes an empty text."""
    value = category.value()
    return "" if value is None or value == NULL else str(value)


def _drawn(symbol: QgsSymbol) -> tuple:
    """What a user changes of a symbol. Its whole description has more: newer versions of QGIS number the parts."""
    return symbol.opacity(), [(part.layerType(), part.enabled(), part.properties()) for part in symbol.symbolLayers()]


def _categorized(own: QgsCategorizedSymbolRenderer, fields: list[str]) -> QgsCategorizedSymbolRenderer:
    """Two more categories, before those that an object has by itself. Much quicker than rules for many classes."""
    look = own.clone()
    _let_through(look)
    _mark_accepted(look)
    attribute = own.classAttribute()
    if attribute in fields:  # else it is an expression
        attribute = QgsExpression.quotedColumnRef(attribute)
    look.setClassAttribute(
        f"CASE WHEN {_CUT} THEN '{_CUT_MARK}' WHEN {_REJECTED} THEN '{_REJECTED_MARK}' ELSE {attribute} END"
    )
    look.addCategory(QgsRendererCategory(_REJECTED_MARK, _rejected_symbol(), tr("rejected")))
    look.addCategory(QgsRendererCategory(_CUT_MARK, _rejected_symbol(), tr("under the score cut"), False))
    return look


def _by_rules(own: QgsFeatureRenderer) -> QgsRuleBasedRenderer | None:
    """The own rules, for what is neither cut nor rejected."""
    rules = QgsRuleBasedRenderer.convertFromRenderer(own)
    if rules is None:
        return None
    _let_through(rules)
    _mark_accepted(rules)
    review = QgsRuleBasedRenderer.Rule(None, 0, 0, f"NOT coalesce({_CUT}, false)", tr("Under review"), _MARK)
    review.appendChild(QgsRuleBasedRenderer.Rule(_rejected_symbol(), 0, 0, _REJECTED, tr("rejected")))
    others = QgsRuleBasedRenderer.Rule(None, 0, 0, f"NOT ({_REJECTED})", tr("not rejected"))
    for rule in rules.rootRule().children():
        others.appendChild(rule.clone())
    review.appendChild(others)
    root = QgsRuleBasedRenderer.Rule(None)
    root.appendChild(review)
    return QgsRuleBasedRenderer(root)


def _let_through(look: QgsFeatureRenderer) -> None:
    """Fills that would hide the imagery are translucent; one without an outline gets one of its colour."""
    for symbol in look.symbols(QgsRenderContext()):
        for part in symbol.symbolLayers():
            if part.layerType() in _LINES:
                continue
            if part.layerType() != "SimpleFill" or part.dataDefinedProperties().isActive(FILL_COLOR):
                symbol.setOpacity(min(symbol.opacity(), _MOST_OPAQUE))  # colours that are not known here
                break
            fill = part.fillColor()
            if part.brushStyle() == Qt.BrushStyle.NoBrush or fill.alphaF() * symbol.opacity() <= _MOST_OPAQUE:
                continue
            if part.strokeStyle() == Qt.PenStyle.NoPen:
                part.setStrokeStyle(Qt.PenStyle.SolidLine)
                part.setStrokeColor(fill)
            fill = QColor(fill)
            fill.setAlphaF(_MOST_OPAQUE)
            part.setFillColor(fill)


def _mark_accepted(look: QgsFeatureRenderer) -> None:
    """A wider outline, in the colour that it has. A fill without an outline gets none."""
    for symbol in look.symbols(QgsRenderContext()):
        for layer in symbol.symbolLayers():
            properties = layer.dataDefinedProperties()
            if layer.layerType() != "SimpleFill" or properties.isActive(STROKE_WIDTH):
                continue
            width = layer.strokeWidth()
            wider = accepted = _ACCEPTED_TIMES * width
            unit = QgsUnitTypes.encodeUnit(layer.strokeWidthUnit())
            if unit in _IN_MM:
                side = f'{1000 * _IN_MM[unit]} * sqrt("area_m2") / @map_scale'
                accepted = f"max({width}, min({wider}, coalesce({_MOST_OF_OBJECT} * {side}, {wider})))"
            marked = f"{_ACCEPTED_WIDER}{accepted}, {width})"
            layer.setDataDefinedProperty(STROKE_WIDTH, _property(marked))


def _unmark_accepted(symbol: QgsSymbol) -> None:
    for part in symbol.symbolLayers():
        if part.dataDefinedProperties().property(STROKE_WIDTH).expressionString().startswith(_ACCEPTED_WIDER):
            part.setDataDefinedProperty(STROKE_WIDTH, QgsProperty())


@cache
def _property(expression: str) -> QgsProperty:
    """A property for many symbols, which outlives them all.

    A map that begins to draw takes its own copy of each expression, and lets go of the shared one before it has copied
    it. Were that the last but one, QGIS would crash when a look is taken off at that moment.
    """
    return QgsProperty.fromExpression(expression)


def _rejected_symbol() -> QgsFillSymbol:
    return QgsFillSymbol.createSimple(
        {
            "style": "no",
            "outline_color": REJECTED_COLOR,
            "outline_width": "0.3",
            "outline_width_unit": "MM",
            "outline_style": "dot",
        }
    )
