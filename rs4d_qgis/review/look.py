"""How a layer looks while it is under review: what the score cut hides, and what is rejected.

The layer's own renderer becomes part of a rule-based one, and comes back afterwards. The layer's features and its
filter stay as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsExpressionContextUtils,
    QgsFeatureRenderer,
    QgsFillSymbol,
    QgsReadWriteContext,
    QgsRuleBasedRenderer,
    QgsVectorLayer,
)
from qgis.PyQt.QtXml import QDomDocument

from rs4d_qgis.layers.statuses import ACCEPTED, REJECTED
from rs4d_qgis.translation import tr

CUTS_VARIABLE = "rs4d_score_cuts"
# What has no score, or a class without a cut, or is accepted, stays. QGIS reads the variable once for each drawing.
_KEPT = f'coalesce("score" >= map_get(from_json(@{CUTS_VARIABLE}), "class"), true) OR "status" = \'{ACCEPTED}\''
_REJECTED = f"coalesce(\"status\", '') = '{REJECTED}'"
_MARK = "rs4d-review"
_OWN_LOOK = "rs4d/own_look"


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
    """Give a layer the look of a review. One that has it keeps it: of a project that was saved in a review."""
    if _has_it(layer):
        return
    document = QDomDocument()
    document.appendChild(layer.renderer().save(document, QgsReadWriteContext()))
    layer.setCustomProperty(_OWN_LOOK, document.toString(-1))
    own = QgsRuleBasedRenderer.convertFromRenderer(layer.renderer())
    if own is None:  # such as a heat map, which shows no single objects
        layer.removeCustomProperty(_OWN_LOOK)
        return
    review = QgsRuleBasedRenderer.Rule(None, 0, 0, _KEPT, tr("Under review"), _MARK)
    review.appendChild(QgsRuleBasedRenderer.Rule(_rejected_symbol(), 0, 0, _REJECTED, tr("rejected")))
    others = QgsRuleBasedRenderer.Rule(None, 0, 0, f"NOT {_REJECTED}", tr("not rejected"))
    for rule in own.rootRule().children():
        others.appendChild(rule.clone())
    review.appendChild(others)
    root = QgsRuleBasedRenderer.Rule(None)
    root.appendChild(review)
    layer.setRenderer(QgsRuleBasedRenderer(root))
    layer.triggerRepaint()


def take_off(layer: QgsVectorLayer) -> None:
    """Give a layer its own look back. One that was given another meanwhile keeps that."""
    own = own_renderer(layer)
    if own is not None and _has_it(layer):
        layer.setRenderer(own)
        layer.triggerRepaint()
    layer.removeCustomProperty(_OWN_LOOK)
    set_cuts(layer, {})


def own_renderer(layer: QgsVectorLayer) -> QgsFeatureRenderer | None:
    """The look that `take_off` gives back; None where there is none."""
    document = QDomDocument()
    if not document.setContent(layer.customProperty(_OWN_LOOK) or ""):
        return None
    return QgsFeatureRenderer.load(document.documentElement(), QgsReadWriteContext())


def set_cuts(layer: QgsVectorLayer, cuts: Mapping[str, float]) -> None:
    """Hide objects with lower scores, at once, where the layer has the look of a review."""
    QgsExpressionContextUtils.setLayerVariable(layer, CUTS_VARIABLE, json.dumps(dict(cuts)))
    layer.triggerRepaint()


def _has_it(layer: QgsVectorLayer) -> bool:
    renderer = layer.renderer()
    if not isinstance(renderer, QgsRuleBasedRenderer):
        return False
    return any(rule.description() == _MARK for rule in renderer.rootRule().children())


def _rejected_symbol() -> QgsFillSymbol:
    return QgsFillSymbol.createSimple(
        {
            "style": "no",
            "outline_color": "#b03030",
            "outline_width": "0.3",
            "outline_width_unit": "MM",
            "outline_style": "dot",
        }
    )
