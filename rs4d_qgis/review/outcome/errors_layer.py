"""The errors of a layer, as a layer: missed, false, badly shaped, of a wrong class."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from qgis.core import (
    NULL,
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsFillSymbol,
    QgsProject,
    QgsRectangle,
    QgsRendererCategory,
    QgsUnitTypes,
    QgsVectorLayer,
)
from qgis.gui import QgsMapCanvas, QgsRubberBand
from qgis.PyQt import sip
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.algorithms.vector_input import fields_without_key
from rs4d_qgis.compat import DISTANCE_METERS, POLYGON_GEOMETRY
from rs4d_qgis.layers.bounds import bounds_in
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.no_crs import real_crs
from rs4d_qgis.translation import tr

ERRORS_LAYER = "errors"
MISSED, FALSE, BADLY_SHAPED, WRONG_CLASS = KINDS = ("missed", "false", "badly shaped", "wrong class")
_COLORS = {MISSED: "#d7191c", FALSE: "#7b3294", BADLY_SHAPED: "#f18f01", WRONG_CLASS: "#1b7fbd"}
_FILL_OPACITY = 0.2
_MARK_OF_ERRORS = "rs4d/errors"
# An error is shown with so much around it as it takes to see what it is.
_TIMES_AS_WIDE = 6.0
_LEAST_VIEW_M = 40.0
_MARK, _HALO = QColor(255, 214, 0), QColor(0, 0, 0, 160)
_MARK_PX = 3


def kind_label(kind: str) -> str:
    """A kind of error, for people."""
    return {
        MISSED: tr("missed"),
        FALSE: tr("false"),
        BADLY_SHAPED: tr("badly shaped"),
        WRONG_CLASS: tr("wrong class"),
    }[kind]


@dataclass(frozen=True)
class Errors:
    """The engine's file of errors, read."""

    fields: QgsFields
    crs: QgsCoordinateReferenceSystem
    features: list[QgsFeature]


def read_errors(path: Path) -> Errors:
    """Read the engine's file of errors. On any thread."""
    file = QgsVectorLayer(f"{path}|layername={ERRORS_LAYER}", ERRORS_LAYER, "ogr")
    fields = fields_without_key(file.fields())
    features = []
    for feature in file.getFeatures():
        copy = QgsFeature(fields)
        copy.setGeometry(feature.geometry())
        copy.setAttributes([feature[field.name()] for field in fields])
        features.append(copy)
    return Errors(fields, real_crs(file.crs()), features)


def errors_layer(errors: Errors, name: str) -> QgsVectorLayer:
    """The errors as a layer in memory, with their look. On the main thread."""
    layer = QgsVectorLayer("MultiPolygon", name, "memory")
    layer.setCrs(errors.crs)
    layer.dataProvider().addAttributes(errors.fields.toList())
    layer.updateFields()
    layer.dataProvider().addFeatures(errors.features)
    layer.updateExtents()
    # It can be made again: nobody needs to be asked whether to keep it.
    layer.setCustomProperty("skipMemoryLayersCheck", 1)
    layer.setCustomProperty(_MARK_OF_ERRORS, True)
    counts = Counter(feature["kind"] for feature in errors.features)
    categories = [QgsRendererCategory(kind, _symbol(kind), f"{kind_label(kind)} ({counts[kind]})") for kind in KINDS]
    layer.setRenderer(QgsCategorizedSymbolRenderer("kind", categories))
    return layer


def remove_emptied(project: QgsProject) -> None:
    """Take away what a project has kept of the errors of an earlier session: a layer in memory comes back empty."""
    gone = [
        layer.id()
        for layer in project.mapLayers().values()
        if layer.customProperty(_MARK_OF_ERRORS) and layer.providerType() == "memory" and layer.featureCount() == 0
    ]
    is_dirty = project.isDirty()
    project.removeMapLayers(gone)
    project.setDirty(is_dirty)


class ErrorWalk:
    """The errors of a layer, one after the other.

    Attributes:
        layer: of `errors_layer`.
        place: which of `ids` is looked at; None before the first.
        ids: of the errors of the kind that is chosen.
    """

    def __init__(self, layer: QgsVectorLayer) -> None:
        self.layer = layer
        self._kinds = {
            feature.id(): feature["kind"]
            for feature in layer.getFeatures(QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry))
        }
        self.choose(None)

    def choose(self, kind: str | None) -> None:
        """Walk over the errors of this kind; over all where None."""
        self.ids = [item for item, each in self._kinds.items() if kind in (None, each)]
        self.place: int | None = None

    def count(self, kind: str | None) -> int:
        """How many errors of this kind there are; of all kinds where None."""
        return sum(kind in (None, each) for each in self._kinds.values())

    def step(self, by: int) -> QgsFeature | None:
        """To the next error, or the one before where `by` is negative, round and round; None where there are none."""
        if not self.ids:
            return None
        self.place = (0 if by > 0 else -1) if self.place is None else self.place + by
        self.place %= len(self.ids)
        return self.layer.getFeature(self.ids[self.place])

    def told(self, feature: QgsFeature) -> str:
        """An error in words."""
        kind, found, truth = (feature[name] or "" for name in ("kind", "class", "reference_class"))
        words = [kind_label(kind)]
        name = class_label(truth if kind == MISSED else found)
        words += [name] if name else []
        if kind == WRONG_CLASS:
            words.append(tr("the reference says {}").format(class_label(truth)))
        if kind in (BADLY_SHAPED, WRONG_CLASS):
            words.append(tr("IoU {:.2f}").format(feature["iou"]))
        if kind != MISSED:
            score = feature["score"]
            words.append(tr("no score") if score == NULL else tr("score {:.2f}").format(score))
        return tr("{} of {}: {}").format(self.place + 1, len(self.ids), ", ".join(words))


class Spotlight:
    """Shows one error on the map: in the middle, with some ground around it, and its outline marked."""

    def __init__(self, canvas: QgsMapCanvas) -> None:
        self._canvas = canvas
        self.band: QgsRubberBand | None = None

    def show(self, layer: QgsVectorLayer, feature: QgsFeature) -> None:
        """Bring it to view."""
        if self.band is None:
            self.band = QgsRubberBand(self._canvas, POLYGON_GEOMETRY)
            self.band.setColor(_MARK)
            self.band.setSecondaryStrokeColor(_HALO)
            self.band.setFillColor(QColor(0, 0, 0, 0))
            self.band.setWidth(_MARK_PX)
        self.band.setToGeometry(feature.geometry(), layer)
        crs = self._canvas.mapSettings().destinationCrs()
        box = bounds_in(crs, feature.geometry().boundingBox(), layer.crs())
        if box is None or not box.isFinite():
            return
        metre = QgsUnitTypes.fromUnitToUnitFactor(DISTANCE_METERS, crs.mapUnits())
        wide = max(max(box.width(), box.height()) * _TIMES_AS_WIDE, _LEAST_VIEW_M * metre)
        self._canvas.setExtent(QgsRectangle.fromCenterAndSize(box.center(), wide, wide))
        self._canvas.refresh()

    def clear(self) -> None:
        """Leave nothing on the map."""
        if self.band is not None and not sip.isdeleted(self._canvas):
            self._canvas.scene().removeItem(self.band)
        self.band = None


def _symbol(kind: str) -> QgsFillSymbol:
    inside = QColor(_COLORS[kind])
    inside.setAlphaF(_FILL_OPACITY)
    return QgsFillSymbol.createSimple(
        {
            "color": ",".join(str(part) for part in inside.getRgb()),
            "outline_color": _COLORS[kind],
            "outline_width": "0.7",
            "outline_width_unit": "MM",
            # What is not there is drawn as one would sketch it.
            "outline_style": "dash" if kind == MISSED else "solid",
        }
    )
