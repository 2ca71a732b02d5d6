"""Export from the desk: which objects, as what, where to; a summary, and a report to print."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from qgis.core import QgsProject
from qgis.gui import QgsDoubleSpinBox, QgsFileWidget, QgsMapLayerComboBox, QgsSpinBox
from qgis.PyQt.QtCore import QIODevice, QSaveFile
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QFileDialog,
    QFormLayout,
    QGroupBox,
    QHBoxLayout,
    QLabel,
    QMessageBox,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis.compat import RASTER_LAYERS
from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.errors import RenderError
from rs4d_qgis.layers.source import layer_of_file, scene_source
from rs4d_qgis.plain_text import as_it_is
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.summary import summarize, to_csv
from rs4d_qgis.review.outcome.asking import ask_engine
from rs4d_qgis.review.outcome.export_choice import (
    ACCEPTED_ONLY,
    CHIPS,
    COCO,
    NOT_REJECTED,
    SHOWN,
    Format,
    chosen,
    formats,
    numbers,
    renamed,
    statuses_for_chips,
)
from rs4d_qgis.review.outcome.report import Report
from rs4d_qgis.review.outcome.snapshot import LayerSnapshot
from rs4d_qgis.review.outcome.work_line import WorkLine
from rs4d_qgis.review.reflow_grid import ReflowGrid
from rs4d_qgis.settings import last, set_last
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, spaced

_CHIP_PX = 512
_LAST = "export"


class ExportBox(QWidget):
    """What counts is the layer as it is now, with edits that are not saved yet."""

    def __init__(self, desk: DeskState, iface, parent=None):
        super().__init__(parent)
        self.setObjectName("review_export")
        self._desk = desk
        self._iface = iface
        self._report: Report | None = None
        self.objects = QComboBox()
        self.objects.setObjectName("export_objects")
        for which in (NOT_REJECTED, ACCEPTED_ONLY, SHOWN):
            self.objects.addItem("", which)
        self.format = QComboBox()
        self.format.setObjectName("export_format")
        for kind in formats():
            self.format.addItem(kind.label, kind)
        self.file = QgsFileWidget()
        self.file.setObjectName("export_file")
        self.file.setConfirmOverwrite(False)  # asked when it is exported, however the name came about
        self.chip_px = QgsSpinBox()
        self.chip_px.setObjectName("export_chip_px")
        self.chip_px.setRange(32, 4096)
        self.chip_px.setSingleStep(32)
        self.chip_px.setSuffix(tr(" px"))
        self.chip_px.setClearValue(_CHIP_PX)
        self.chip_px.setValue(_CHIP_PX)
        self.resolution = QgsDoubleSpinBox()
        self.resolution.setObjectName("export_resolution")
        self.resolution.setDecimals(3)
        self.resolution.setRange(0.0, 1000.0)
        self.resolution.setSingleStep(0.05)
        self.resolution.setSuffix(tr(" m"))
        self.resolution.setClearValue(0.0, tr("as the run read it"))
        self.scene = QgsMapLayerComboBox()
        self.scene.setObjectName("export_scene")
        self.scene.setFilters(RASTER_LAYERS)
        self.scene.setAllowEmptyLayer(True, tr("the one of the run"))
        self.scene.setCurrentIndex(0)
        self._rule = QuietLabel()
        self.export_button = QPushButton(tr("Export"))
        self.export_button.setObjectName("export_run")
        self.work = WorkLine()
        self.summary_button = QPushButton(tr("Summary (CSV)..."))
        self.summary_button.setObjectName("export_summary")
        self.summary_button.setToolTip(tr("Numbers of objects and their areas on the ground, by class and status"))
        self.report_button = QPushButton(tr("Report (PDF)..."))
        self.report_button.setObjectName("export_report")
        self.report_button.setToolTip(tr("A page to print: the layer on the map, numbers and areas, how far it is"))
        self._build()
        self._recall()

        self.format.currentIndexChanged.connect(self._format_changed)
        self.export_button.clicked.connect(self.export)
        self.summary_button.clicked.connect(self._ask_summary)
        self.report_button.clicked.connect(self._ask_report)
        self.work.busy_changed.connect(self._enable)
        self.file.fileChanged.connect(self._enable)
        desk.shown_changed.connect(self._show)
        desk.reviewed_changed.connect(self._another_layer)
        self._format_changed()
        self._show()

    def export(self) -> None:
        """Write the file that is chosen, in the background."""
        if self.work.busy or self._desk.reviewed is None:
            return
        kind, session = self.kind(), self._desk.session
        output = kind.output(self.file.filePath().strip())
        if not self._may_write(kind, output):
            return
        ids = chosen(session, self.objects.currentData())
        layer = self._desk.reviewed.layer
        folder = tempfile.TemporaryDirectory(prefix="rs4d-")
        params: dict[str, Any] = {"output": str(output)}
        names = {}
        if kind.name in (CHIPS, COCO):
            try:
                params["scene"], names = self._scene(Path(tempfile.mkdtemp(dir=folder.name)))
            except RenderError as refused:
                self.work.warn(str(refused))
                return
        if kind.name == CHIPS:
            snapshot = LayerSnapshot(layer, None, session.objects, statuses_for_chips(session, ids))
            params.update(accepted=True, chip_px=self.chip_px.value(), resolution_m=self.resolution.value() or None)
        else:
            snapshot = LayerSnapshot(layer, ids, session.objects)
        self._remember()

        def work(task) -> dict[str, Any]:
            with folder:
                path = Path(folder.name) / "objects.gpkg"
                snapshot.write(path, task)
                return ask_engine(task, "export", {"layer": str(path), **params}, {path: snapshot.name, **names})

        self.work.start(tr("Export {}").format(snapshot.name), work, lambda result: self._done(result, len(ids)))

    def write_summary(self, path: str) -> bool:
        """Write the numbers of all objects as CSV; an existing file is replaced when the new one is whole."""
        text = to_csv(summarize(self._desk.session.objects.values()))
        file = QSaveFile(path)
        # With a mark, by which spreadsheets know the encoding.
        written = file.open(QIODevice.OpenModeFlag.WriteOnly) and file.write(text.encode("utf-8-sig")) >= 0
        if not (written and file.commit()):
            self.work.warn(tr("{} could not be written ({}): choose another place").format(path, file.errorString()))
            return False
        self.work.say(tr("The summary is in {}.").format(path), "/mIconSuccess.svg")
        return True

    def write_report(self, path: str) -> None:
        """Write the report as PDF. The map is drawn in the background."""
        if self._desk.reviewed is None or self._report is not None:
            return
        self._report = Report(self._desk, self._iface.mapCanvas(), path, self)
        self._report.done.connect(self._report_done)
        self.work.say(tr("Drawing the map..."))
        self._enable()
        self._report.start()

    def tear_down(self) -> None:
        """QGIS is closing, or the plugin is turned off."""
        self.work.give_up()
        if self._report is not None:
            self._report.cancel()

    def kind(self) -> Format:
        """The format that is chosen."""
        return self.format.currentData()

    def showEvent(self, event) -> None:
        """The list has lost its place where layers came while nobody looked."""
        super().showEvent(event)
        if self.scene.currentIndex() < 0:
            self.scene.setCurrentIndex(0)

    def _build(self) -> None:
        for combo in (self.objects, self.format, self.scene):
            combo.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self._form = QFormLayout()
        self._form.setRowWrapPolicy(QFormLayout.RowWrapPolicy.WrapLongRows)
        self._labels = {
            self.objects: QLabel(tr("Objects")),
            self.format: QLabel(tr("Format")),
            self.chip_px: QLabel(tr("Chip size")),
            self.resolution: QLabel(tr("Resolution")),
            self.scene: QLabel(tr("Scene")),
            self.file: QLabel(tr("File")),
        }
        line = QHBoxLayout()
        line.addStretch(1)
        line.addWidget(self.export_button)
        group = QGroupBox(tr("Objects to a file"))
        inside = QVBoxLayout(group)
        inside.addLayout(self._form)
        inside.addWidget(self._rule)
        inside.addLayout(line)
        numbers = QGroupBox(tr("Numbers and areas"))
        QVBoxLayout(numbers).addWidget(ReflowGrid([self.summary_button, self.report_button], across=(2, 1)))
        layout = QVBoxLayout(self)
        layout.addWidget(group)
        layout.addWidget(self.work)
        layout.addWidget(numbers)
        layout.addStretch(1)

    def _show(self) -> None:
        labels = {
            NOT_REJECTED: tr("All but rejected ({})"),
            ACCEPTED_ONLY: tr("Accepted only ({})"),
            SHOWN: tr("What the queue shows ({})"),
        }
        for which, number in numbers(self._desk.session).items():
            self.objects.setItemText(self.objects.findData(which), labels[which].format(spaced(number)))
        self._enable()

    def _another_layer(self) -> None:
        if not self.work.busy:
            self.work.say("")
        self._enable()

    def _enable(self) -> None:
        free = self._desk.reviewed is not None and not self.work.busy and self._report is None
        self.export_button.setEnabled(free and bool(self.file.filePath().strip()))
        self.summary_button.setEnabled(self._desk.reviewed is not None)
        self.report_button.setEnabled(free)

    def _format_changed(self) -> None:
        kind = self.kind()
        hidden = [] if kind.name == CHIPS else [self.chip_px, self.resolution]
        hidden += [] if kind.name in (CHIPS, COCO) else [self.scene]
        while self._form.rowCount():  # rows of what is hidden would leave gaps
            self._form.takeRow(0)
        for widget, label in self._labels.items():
            if widget not in hidden:
                self._form.addRow(label, widget)
            for part in (label, widget):
                part.setParent(self._form.parentWidget())
                part.setVisible(widget not in hidden)
        if kind.suffix:
            self.file.setStorageMode(QgsFileWidget.StorageMode.SaveFile)
            self.file.setFilter(f"{kind.label} (*{kind.suffix})")
        else:
            self.file.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self._labels[self.file].setText(tr("File") if kind.suffix else tr("Folder"))
        typed = self.file.filePath().strip()
        if typed:
            self.file.setFilePath(str(renamed(Path(typed), kind)))
        self._rule.say(_rule(kind))

    def _scene(self, folder: Path) -> tuple[str | None, dict[Path, str]]:
        """The chosen scene, or else that of the run, as the engine can read it; and what the user calls it.

        Raises:
            RenderError: it cannot.
        """
        layer, path = self.scene.currentLayer(), self._desk.scene()
        raster = layer_of_file(path) if layer is None and path is not None else layer
        source = None if raster is None else scene_source(raster, folder)
        if source is not None:
            return source.path, {Path(source.path): raster.name()}
        if layer is not None:
            raise RenderError(tr("Layer “{}” is no file, and has no pixels to cut.").format(layer.name()))
        return path, {}

    def _may_write(self, kind: Format, output: Path) -> bool:
        """Nothing that is there is replaced without the analyst's word."""
        there = output.parent if kind.name == CHIPS else output
        if not there.exists() or not kind.replaceable:
            return True  # what cannot be replaced is refused by the engine, which says why
        buttons = QMessageBox.StandardButton
        question = as_it_is(tr("{} is there already. Replace it?").format(there))
        return QMessageBox.question(self, tr("Export"), question, buttons.Yes | buttons.No, buttons.No) == buttons.Yes

    def _done(self, result: dict[str, Any], wanted: int) -> None:
        classes = ", ".join(f"{class_label(name)} {spaced(found)}" for name, found in result["by_class"].items())
        found = result["instances"]
        if found == wanted:
            told = tr("{} in {}").format(count(found, tr("object is"), tr("objects are")), result["output"])
        else:
            told = tr("{} of {} in {}").format(
                spaced(found), count(wanted, tr("object is"), tr("objects are")), result["output"]
            )
        if "chips" in result:
            told += tr(", on {}").format(count(result["chips"], tr("chip"), tr("chips")))
        lines = [f"{told}{f' ({classes})' if classes else ''}.", *(f"– {note}" for note in result["notes"])]
        self.work.say("\n".join(lines), "/mIconSuccess.svg")

    def _ask_summary(self) -> None:
        path = self._ask_file(tr("Summary"), "CSV (*.csv)", ".csv")
        if path:
            self.write_summary(path)

    def _ask_report(self) -> None:
        path = self._ask_file(tr("Report"), "PDF (*.pdf)", ".pdf")
        if path:
            self.write_report(path)

    def _ask_file(self, title: str, kinds: str, suffix: str) -> str:
        folder = Path(self._kept().get("folder") or QgsProject.instance().absolutePath() or Path.home())
        start = folder / f"{self._desk.reviewed.layer.name()}{suffix}".replace("/", "_").replace(":", ".")
        dialog = QFileDialog(self, title, str(start.parent), kinds)
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setDefaultSuffix(suffix)  # before it asks whether to replace a file of that name
        dialog.selectFile(start.name)
        if not dialog.exec():
            return ""
        path = dialog.selectedFiles()[0]
        set_last(_LAST, {**self._kept(), "folder": str(Path(path).parent)})
        return path

    def _report_done(self, problem: str) -> None:
        path = self._report.path
        self._report.deleteLater()
        self._report = None
        if problem:
            self.work.warn(problem)
        else:
            self.work.say(tr("The report is in {}.").format(path), "/mIconSuccess.svg")
        self._enable()

    def _remember(self) -> None:
        set_last(
            _LAST,
            {
                **self._kept(),
                "objects": self.objects.currentData(),
                "format": self.kind().name,
                "chip_px": self.chip_px.value(),
                "resolution_m": self.resolution.value(),
                "folder": str(Path(self.file.filePath().strip()).parent),
            },
        )

    def _recall(self) -> None:
        kept = self._kept()
        self.objects.setCurrentIndex(max(0, self.objects.findData(kept.get("objects"))))
        for row in range(self.format.count()):
            if self.format.itemData(row).name == kept.get("format"):
                self.format.setCurrentIndex(row)
        for spin, name in ((self.chip_px, "chip_px"), (self.resolution, "resolution_m")):
            if isinstance(kept.get(name), (int, float)):
                spin.setValue(kept[name])
        self.file.setDefaultRoot(str(kept.get("folder") or ""))

    @staticmethod
    def _kept() -> dict[str, Any]:
        kept = last(_LAST, {})
        return kept if isinstance(kept, dict) else {}


def _rule(kind: Format) -> str:
    if kind.name == CHIPS:
        return tr(
            "To train on. Chips are cut where the layer shows something. What is rejected is background; what is not "
            "exported, and pieces that an edge leaves too little of, are places to ignore."
        )
    if kind.name == "shp":
        return tr("Names of fields are cut to 10 bytes.")
    return ""
