"""The upper part of the panel: what to segment, with what, and how."""

from __future__ import annotations

from qgis.core import QgsMapLayer, QgsRasterLayer
from qgis.gui import QgsDoubleSpinBox, QgsMapCanvas, QgsMapLayerComboBox
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QCheckBox, QComboBox, QGridLayout, QLabel, QSizePolicy, QVBoxLayout, QWidget

from rs4d_qgis import settings as remembered
from rs4d_qgis.compat import RASTER_LAYERS
from rs4d_qgis.dock.class_list import ClassList
from rs4d_qgis.dock.extent_chooser import ExtentChooser
from rs4d_qgis.dock.model_card import card_summary
from rs4d_qgis.dock.model_chooser import ModelChooser
from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.dock.run_settings import RunSettings
from rs4d_qgis.dock.zone import DRAWN, KINDS, VISIBLE
from rs4d_qgis.translation import tr

_REMEMBERED = "panel"


class SettingsForm(QWidget):
    """The settings of the next run.

    The layer is the one that the user is looking at, until they choose another here; once they pick one in QGIS's own
    list of layers, it is followed again.

    Signals:
        changed(): something is another than before.
    """

    changed = pyqtSignal()

    def __init__(self, canvas: QgsMapCanvas, parent=None):
        super().__init__(parent)
        self._follows = True
        self.layer_box = QgsMapLayerComboBox()
        self.layer_box.setObjectName("layer")
        self.layer_box.setFilters(RASTER_LAYERS)
        self.layer_box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.layer_box.setMinimumContentsLength(8)
        self.layer_box.setToolTip(
            tr("The imagery. Follows the map until you choose a layer here, and again once you click one in Layers.")
        )
        self.models = ModelChooser()
        self._card = QuietLabel()
        self.extents = ExtentChooser(canvas)
        self.score = _optional_number(tr("the model's own"), 0.0, 1.0, 0.05, 2)
        self.score.setObjectName("score")
        self.score.setToolTip(
            tr(
                "Instances below this score are left out: a higher one gives fewer and surer ones. "
                "The model has a score of its own for each class."
            )
        )
        self.resolution = _optional_number(tr("automatic"), 0.0, 100.0, 0.05, 3)
        self.resolution.setObjectName("resolution")
        self.resolution.setSuffix(tr(" m a pixel"))
        self.resolution.setToolTip(
            tr(
                "The layer is read at this resolution, in metres on the ground whatever the CRS. "
                "Automatic: its own if the model was made for it, else the nearest that the model was made for."
            )
        )
        self._reading = QuietLabel()
        self._reading.setObjectName("resolution_hint")
        self.right_angles = QCheckBox(tr("Right angles"))
        self.right_angles.setObjectName("right_angles")
        self.right_angles.setToolTip(
            tr("Straightens buildings where the shape stays nearly the same. Classes of curved things stay as found.")
        )
        self.classes = ClassList()

        layout = QVBoxLayout(self)
        layout.addLayout(
            _rows(
                (tr("Layer"), self.layer_box),
                (tr("Model"), self.models),
                ("", self._card),
                (tr("Extent"), self.extents),
                (tr("Least score"), self.score),
                (tr("Read at"), self.resolution),
                ("", self._reading),
                (tr("Outlines"), self.right_angles),
            )
        )
        layout.addWidget(self.classes)
        layout.addStretch()

        self.layer_box.activated.connect(self._layer_chosen)
        self.layer_box.layerChanged.connect(self.changed)
        self.models.changed.connect(self._model_changed)
        for part in (self.extents, self.classes):
            part.changed.connect(self.changed)
        for number in (self.score, self.resolution):
            number.valueChanged.connect(self.changed)
        self.right_angles.toggled.connect(self.changed)
        self._model_changed()

    def layer(self) -> QgsRasterLayer | None:
        """The chosen raster."""
        return self.layer_box.currentLayer()

    def follow(self, layer: QgsRasterLayer | None) -> None:
        """The user is looking at this raster now."""
        if self._follows and layer is not None and layer is not self.layer():
            self.layer_box.setLayer(layer)

    def picked(self, layer: QgsMapLayer | None) -> None:
        """The user has made this layer the active one; if it is other imagery, the map is followed again."""
        if isinstance(layer, QgsRasterLayer) and layer is not self.layer():
            self._follows = True

    def missing(self) -> str:
        """What the user still has to do before a run, one sentence; empty when all is there."""
        if self.layer() is None:
            return tr("Add imagery to the project: any raster layer, also from a web service")
        if self.models.current() is None:
            return tr("Choose a model")
        if self.extents.zone(self.layer()) is None:
            return self.extents.missing()
        if not self.classes.checked():
            return tr("Tick one class or more")
        return ""

    def settings(self) -> RunSettings | None:
        """For a run now; None while something is missing."""
        if self.missing():
            return None
        layer = self.layer()
        return RunSettings(
            layer_id=layer.id(),
            layer_name=layer.name(),
            layer_source=layer.source(),
            layer_provider=layer.providerType(),
            zone=self.extents.zone(layer),
            model=self.models.path(),
            classes=self.classes.wanted(),
            score=self.score.value() or None,
            resolution_m=self.resolution.value() or None,
            regularize=self.right_angles.isChecked(),
        )

    def show_settings(self, settings: RunSettings, layer: QgsRasterLayer | None) -> None:
        """Show the settings of another run; `layer` is its raster, None where it is gone."""
        if layer is not None:
            self._follows = False
            self.layer_box.setLayer(layer)
        self.models.set_path(settings.model)
        self.extents.set_zone(settings.zone)
        self.classes.set_wanted(settings.classes)
        self.score.setValue(settings.score or 0.0)
        self.resolution.setValue(settings.resolution_m or 0.0)
        self.right_angles.setChecked(settings.regularize)

    def set_reading(self, sentence: str) -> None:
        """How the layer would be read."""
        self._reading.say(sentence)

    def remember(self) -> None:
        """Keep what does not belong to one layer, for the next time."""
        kind = self.extents.kind
        remembered.set_last(
            _REMEMBERED,
            {
                "model": self.models.path(),
                "extent": VISIBLE if kind == DRAWN else kind,  # the drawing itself is of this map
                "classes": self.classes.wanted(),
                "score": self.score.value() or None,
                "resolution_m": self.resolution.value() or None,
                "regularize": self.right_angles.isChecked(),
            },
        )

    def recall(self) -> None:
        """Show what was remembered. To be called when the models are known."""
        kept = remembered.last(_REMEMBERED, {})
        if not isinstance(kept, dict):
            return
        self.models.set_path(kept.get("model"))
        if kept.get("extent") in KINDS:
            self.extents.set_kind(kept["extent"])
        classes = kept.get("classes")
        self.classes.set_wanted(tuple(classes) if classes else None)
        self.score.setValue(float(kept.get("score") or 0.0))
        self.resolution.setValue(float(kept.get("resolution_m") or 0.0))
        self.right_angles.setChecked(bool(kept.get("regularize")))

    def _layer_chosen(self, *_) -> None:
        self._follows = False

    def layer_removed(self) -> None:
        """A layer has left the project; if it was the chosen one, the map is followed again."""
        if self.layer() is None:
            self._follows = True

    def _model_changed(self) -> None:
        model = self.models.current()
        self._card.say("" if model is None else card_summary(model["card"]))
        if model is not None:
            card = model["card"]
            self.classes.set_classes(card["config"]["classes"], card["colors"], card["default_scores"])
        self.classes.setVisible(model is not None)
        self.changed.emit()


def _rows(*rows: tuple[str, QWidget]) -> QGridLayout:
    """Labels on the left, fields on the right. Not a QFormLayout, which cuts wrapped text that becomes longer."""
    grid = QGridLayout()
    grid.setColumnStretch(1, 1)
    grid.setHorizontalSpacing(2 * grid.spacing())
    for row, (text, field) in enumerate(rows):
        grid.addWidget(field, row, 1)
        if text:
            label = QLabel(text)
            label.setBuddy(field)
            # Beside the first line of a field that has several.
            label.setFixedHeight((field.focusProxy() or field).sizeHint().height())
            grid.addWidget(label, row, 0, Qt.AlignmentFlag.AlignTop)
    return grid


def _optional_number(without: str, least: float, most: float, step: float, decimals: int) -> QgsDoubleSpinBox:
    """A number that can be cleared; `without` is shown where there is none."""
    box = QgsDoubleSpinBox()
    box.setRange(least, most)
    box.setSingleStep(step)
    box.setDecimals(decimals)
    box.setClearValueMode(QgsDoubleSpinBox.ClearValueMode.MinimumValue, without)
    box.setValue(least)
    # As wide as the panel allows, and not as its longest text wants.
    box.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    return box
