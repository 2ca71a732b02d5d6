"""Which model to use: those that the engine knows, or a file."""

from __future__ import annotations

from pathlib import Path

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QToolButton, QWidget

from rs4d_qgis.dock.model_card import ModelCardDialog, card_summary
from rs4d_qgis.plain_text import as_it_is
from rs4d_qgis.translation import tr


class ModelChooser(QWidget):
    """A list of models, a button for the card of the chosen one, and a button for files elsewhere.

    Signals:
        changed: another model is chosen, or the list is another.
        file_chosen(str): the user named a model file that the engine has to look at first.
    """

    changed = pyqtSignal()
    file_chosen = pyqtSignal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._models: list[dict] = []
        self._default: str | None = None
        self._wanted: str | None = None
        self._combo = QComboBox()
        self._combo.setObjectName("model")
        self._combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(8)
        self._combo.setToolTip(tr("The model that finds the instances"))
        self._combo.currentIndexChanged.connect(self._chosen)
        self._info = self._button("/mActionPropertiesWidget.svg", tr("Show the model's card"), self.show_card)
        self._info.setObjectName("model_info")
        browse = self._button("/mActionFileOpen.svg", tr("Use another model file..."), self._browse)
        browse.setObjectName("model_browse")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._combo, 1)
        layout.addWidget(self._info)
        layout.addWidget(browse)
        self.setFocusProxy(self._combo)
        self.set_models([], None)

    def set_models(self, models: list[dict], default: str | None) -> None:
        """Show what the engine's `hello` told: `[{path, name, sha256, card} or {path, error}]`."""
        wanted = self._wanted or self.path()
        self._models, self._default = list(models), default
        self._combo.blockSignals(True)
        self._combo.clear()
        for model in self._models:
            self._add(model)
        if not self._models:
            self._combo.addItem(tr("not known yet"))
        self._combo.setEnabled(bool(self._models))
        self._combo.blockSignals(False)
        self._select(wanted)

    def current(self) -> dict | None:
        """The chosen model as `hello` told it; None where there is none that can be used."""
        index = self._combo.currentIndex()
        model = self._models[index] if 0 <= index < len(self._models) else None
        return model if model is not None and "card" in model else None

    def others(self) -> list[dict]:
        """The models that could be used instead."""
        current = self.current()
        return [model for model in self._models if "card" in model and model is not current]

    def path(self) -> str | None:
        """The chosen file; None for the one that comes with the engine."""
        model = self.current()
        return None if model is None or model["path"] == self._default else model["path"]

    def set_path(self, path: str | None) -> None:
        """Choose a model, now or as soon as the engine has told of it."""
        self._wanted = path or self._default
        self._select(self._wanted)

    def show_card(self) -> None:
        """Open the card of the chosen model."""
        model = self.current()
        if model is not None:
            ModelCardDialog(model, self).show()

    def _add(self, model: dict) -> None:
        if "card" in model:
            self._combo.addItem(model["name"])
            default = tr("The default model: ") if model["path"] == self._default else ""
            tip = f"{default}{card_summary(model['card'])}\n{model['path']}"
        else:
            self._combo.addItem(Path(model["path"]).name)
            self._combo.model().item(self._combo.count() - 1).setEnabled(False)
            tip = f"{model['path']}: {model.get('error', '')}"
        self._combo.setItemData(self._combo.count() - 1, as_it_is(tip), Qt.ItemDataRole.ToolTipRole)

    def _select(self, path: str | None) -> None:
        usable = [index for index, model in enumerate(self._models) if "card" in model]
        chosen = next((index for index in usable if self._models[index]["path"] == path), None)
        if chosen is None:
            chosen = next((index for index in usable if self._models[index]["path"] == self._default), None)
        if chosen is None:
            chosen = usable[0] if usable else -1 if self._models else 0
        self._combo.blockSignals(True)
        self._combo.setCurrentIndex(chosen)
        self._combo.blockSignals(False)
        if self._models and self.current() is not None and self.current()["path"] == self._wanted:
            self._wanted = None
        self._info.setEnabled(self.current() is not None)
        self.changed.emit()

    def _chosen(self) -> None:
        self._wanted = None
        self._info.setEnabled(self.current() is not None)
        self.changed.emit()

    def _browse(self) -> None:
        current = self.current()
        path, _ = QFileDialog.getOpenFileName(
            self,
            tr("Model file"),
            str(Path(current["path"]).parent) if current else "",
            tr("RS4D models (*.safetensors)"),
        )
        if path:
            self._wanted = path
            self.file_chosen.emit(path)

    def _button(self, icon: str, tip: str, slot) -> QToolButton:
        button = QToolButton()
        button.setIcon(QgsApplication.getThemeIcon(icon))
        button.setToolTip(tip)
        button.setAccessibleName(tip)
        button.setAutoRaise(True)
        button.clicked.connect(slot)
        return button
