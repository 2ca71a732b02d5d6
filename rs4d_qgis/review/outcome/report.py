"""A report of a review, to print: the map, numbers and areas by class, where they come from, and how far it is."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from qgis.core import (
    QgsLayoutExporter,
    QgsMapRendererParallelJob,
    QgsMapSettings,
    QgsProject,
    QgsRasterLayer,
    QgsRectangle,
)
from qgis.gui import QgsMapCanvas
from qgis.PyQt.QtCore import QObject, QSize, pyqtSignal
from qgis.PyQt.QtGui import QColor

from rs4d_qgis.layers.bounds import bounds_in
from rs4d_qgis.layers.runs import read_runs
from rs4d_qgis.layers.source import pixel_size_m
from rs4d_qgis.layers.statuses import ACCEPTED, PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.summary import summarize
from rs4d_qgis.review.outcome.report_page import PICTURE_MM, ReportContent, draw_scale_bar, layout_of
from rs4d_qgis.translation import tr
from rs4d_qgis.words import spaced

_PICTURE_DPI = 220
_LAYOUT_DPI = 300
_ROOM_AROUND = 1.06


class Report(QObject):
    """Draws the map in the background, then writes the PDF. What is told is what the desk has when it is made.

    Signals:
        done(str): it is over; "" if the file is there, else one line that says why not.
    """

    done = pyqtSignal(str)

    def __init__(self, desk: DeskState, canvas: QgsMapCanvas, path: str, parent: QObject | None = None):
        super().__init__(parent)
        self.path = path
        self.content = content_of(desk)
        self._scene: QgsRasterLayer | None = None
        self._settings = self._map_of(desk, canvas)
        self._job: QgsMapRendererParallelJob | None = None

    def start(self) -> None:
        """Begin. Returns at once; `done` follows."""
        self._job = QgsMapRendererParallelJob(self._settings)
        self._job.setParent(self)  # not to be deleted while it tells that it has finished
        self._job.finished.connect(self._drawn)
        self._job.start()

    def cancel(self) -> None:
        """Stop at once; `done` does not follow."""
        self._job.finished.disconnect(self._drawn)
        self._job.cancel()

    def _map_of(self, desk: DeskState, canvas: QgsMapCanvas) -> QgsMapSettings:
        """The whole layer, over what the map shows, and over its scene in any case."""
        layer, path = desk.reviewed.layer, desk.scene()
        settings = QgsMapSettings(canvas.mapSettings())
        below = [each for each in canvas.layers() if each is not layer]
        if path is not None and not any(each.source().split("|")[0] == path for each in below):
            self._scene = QgsRasterLayer(path, "scene")
            below += [self._scene] if self._scene.isValid() else []
        settings.setLayers([layer, *below])
        if not settings.destinationCrs().isValid():
            settings.setDestinationCrs(layer.crs())
        settings.setOutputDpi(_PICTURE_DPI)
        settings.setDevicePixelRatio(1.0)
        settings.setRotation(0.0)
        settings.setOutputSize(QSize(*(round(side / 25.4 * _PICTURE_DPI) for side in PICTURE_MM)))
        settings.setBackgroundColor(QColor("white"))
        settings.setFlag(QgsMapSettings.Flag.DrawSelection, False)
        extent = bounds_in(settings.destinationCrs(), layer.extent(), layer.crs())
        if extent is not None and extent.isFinite() and not extent.isNull():
            settings.setExtent(QgsRectangle(extent.scaled(_ROOM_AROUND)))
        return settings

    def _drawn(self) -> None:
        image = self._job.renderedImage()
        extent, size = self._settings.visibleExtent(), self._settings.outputSize()
        crs = self._settings.destinationCrs()
        pixel = (extent.width() / size.width(), extent.height() / size.height())
        ground = pixel_size_m(crs, extent.center(), *pixel) if crs.isValid() else None
        if ground is not None:
            draw_scale_bar(image, ground[0])
        with tempfile.TemporaryDirectory(prefix="rs4d-") as folder:
            picture = Path(folder) / "map.png"
            image.save(str(picture))
            self.done.emit(self._write(picture))

    def _write(self, picture: Path) -> str:
        layout = layout_of(QgsProject.instance(), self.content, picture)
        settings = QgsLayoutExporter.PdfExportSettings()
        settings.dpi = _LAYOUT_DPI
        target = Path(self.path)
        # Beside it: only a rename within one file system is all or nothing.
        part = target.with_name(f".{target.name}.part")
        try:
            result = QgsLayoutExporter(layout).exportToPdf(str(part), settings)
            if result != QgsLayoutExporter.ExportResult.Success:
                raise OSError(tr("the folder does not take it"))
            os.replace(part, target)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            return tr("The report could not be written to {} ({}): choose another place").format(
                self.path, error.strerror or error
            )
        return ""


def content_of(desk: DeskState) -> ReportContent:
    """What a report of the layer under review tells now."""
    layer, summary = desk.reviewed.layer, summarize(desk.session.objects.values())
    facts = [(tr("Layer"), layer.source().split("|")[0] if layer.providerType() == "ogr" else layer.name())]
    runs = read_runs(layer)
    if runs:
        newest = runs[-1]
        facts += [
            (tr("Scene"), str(newest["scene"])),
            (tr("Model"), str(newest["model"])),
            (tr("Run"), tr("{}, {}, on {}").format(newest["run"], newest["time"], newest["device"])),
        ]
        if len(runs) > 1:
            facts.append((tr("Runs"), tr("{} in this layer; the newest is named").format(len(runs))))
    everything = summary.all
    share = 100.0 * everything.decided / everything.total if everything.total else 0.0
    facts.append(
        (
            tr("Reviewed"),
            tr("{} of {} objects ({:.0f} %): {} accepted, {} rejected, {} pending").format(
                spaced(everything.decided),
                spaced(everything.total),
                share,
                *(spaced(everything.counts[status]) for status in (ACCEPTED, REJECTED, PENDING)),
            ),
        )
    )
    now = datetime.now()
    facts.append((tr("Date"), now.strftime("%Y-%m-%d %H:%M")))
    footer = tr("Objects were found by a model and are predictions unless they are accepted. RS4D, {}").format(
        now.strftime("%Y-%m-%d")
    )
    return ReportContent(layer.name(), facts, summary, dict(desk.colors), footer)
