"""The live score cut: how scores are spread, and a line to drag."""

from __future__ import annotations

from dataclasses import replace

from qgis.core import QgsApplication
from qgis.gui import QgsCollapsibleGroupBox, QgsDoubleSpinBox
from qgis.PyQt import sip
from qgis.PyQt.QtCore import Qt, QTimer, pyqtSignal
from qgis.PyQt.QtWidgets import QComboBox, QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from rs4d_qgis.dock.quiet_label import QuietLabel
from rs4d_qgis.layers.class_names import class_label
from rs4d_qgis.layers.results import OTHER_COLOR
from rs4d_qgis.layers.statuses import PENDING, REJECTED
from rs4d_qgis.review.desk_state import DeskState
from rs4d_qgis.review.logic.histogram import ScoreHistogram
from rs4d_qgis.review.queue.many import decide_on_many
from rs4d_qgis.review.reflow_grid import ReflowGrid
from rs4d_qgis.review.reviewed import look
from rs4d_qgis.review.score_cut.cut_preview import CutPreview
from rs4d_qgis.review.score_cut.histogram_view import HistogramView
from rs4d_qgis.translation import tr
from rs4d_qgis.words import count, spaced

# The map follows at once; the queue once the line rests, as lining up takes longer than a step of the mouse.
_MS_UNTIL_QUEUE = 150
_ALL_COLOR = "#5b7fa6"


class CutBox(QgsCollapsibleGroupBox):
    """Hides objects with low scores on the map and in the queue, and rejects them for real on demand.

    Signals:
        touched(): the mouse was used: the keys may go back to the map.
    """

    touched = pyqtSignal()

    def __init__(self, desk: DeskState, parent=None):
        super().__init__(tr("Score cut"), parent)
        self.setObjectName("score_cut")
        self._desk = desk
        self._histograms: dict[str | None, ScoreHistogram] = {}
        self._version = -1
        self._classes = QComboBox()
        self._classes.setObjectName("cut_class")
        self._classes.setAccessibleName(tr("Class whose scores are shown and cut"))
        self._classes.activated.connect(self._class_chosen)
        self.value = QgsDoubleSpinBox()
        self.value.setObjectName("cut_value")
        self.value.setRange(0.0, 1.0)
        self.value.setDecimals(2)
        self.value.setSingleStep(0.01)
        self.value.setShowClearButton(False)
        self.value.setToolTip(tr("Objects with lower scores are hidden; accepted ones stay"))
        self.value.valueChanged.connect(self._moved)
        self.value.editingFinished.connect(self.touched)
        self._reset = QToolButton()
        self._reset.setObjectName("cut_reset")
        self._reset.setIcon(QgsApplication.getThemeIcon("/mIconClearText.svg"))
        self._reset.setToolTip(tr("No cut"))
        self._reset.setAutoRaise(True)
        self._reset.clicked.connect(lambda: self._moved(0.0))
        self.view = HistogramView()
        self.view.dragged.connect(self._moved)
        self._told = QuietLabel()
        self._told.setObjectName("cut_told")
        self._apply = QPushButton(tr("Reject hidden..."))
        self._apply.setObjectName("cut_apply")
        self._apply.setToolTip(tr("Rejects the pending objects that the cut hides, of all classes. One step of Undo."))
        self._apply.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._apply.clicked.connect(self.apply)
        number = QWidget()
        line = QHBoxLayout(number)
        line.setContentsMargins(0, 0, 0, 0)
        line.addWidget(self.value, 1)
        line.addWidget(self._reset)
        below = QHBoxLayout()
        below.addWidget(self._told, 1)
        below.addWidget(self._apply, 0, Qt.AlignmentFlag.AlignTop)
        layout = QVBoxLayout(self)
        layout.addWidget(ReflowGrid([self._classes, number], across=(2, 1)))
        layout.addWidget(self.view)
        layout.addLayout(below)
        self._queue = QTimer(self)
        self._queue.setSingleShot(True)
        self._queue.setInterval(_MS_UNTIL_QUEUE)
        self._queue.timeout.connect(self._line_up)
        self._canvas = desk.iface.mapCanvas()
        self._behind = False
        self.preview = CutPreview(desk, self)
        self._canvas.mapCanvasRefreshed.connect(self._drawn)
        desk.reviewed_changed.connect(self._another_layer)
        desk.shown_changed.connect(self._show)
        self._another_layer()

    def tear_down(self) -> None:
        """Leave nothing on the map."""
        self._queue.stop()
        self.preview.tear_down()
        if not sip.isdeleted(self._canvas):
            self._canvas.mapCanvasRefreshed.disconnect(self._drawn)

    def apply(self) -> None:
        """Reject what the cut hides, once the analyst agrees."""
        self._line_up()
        decide_on_many(self, self._desk, self._hidden(), REJECTED)
        self.touched.emit()

    def _another_layer(self) -> None:
        self._queue.stop()
        self._behind = False
        self._version = -1
        self._cuts = dict(self._desk.session.filters.cuts)
        self._show()

    def _class_chosen(self) -> None:
        self._show()
        self.touched.emit()

    def _moved(self, cut: float) -> None:
        """The line, or the number."""
        cut = round(cut, 2)
        name = self._classes.currentData()
        for each in [name] if name is not None else [*self._desk.classes, ""]:
            if cut > 0.0:
                self._cuts[each] = cut
            else:
                self._cuts.pop(each, None)
        self._show_cut()
        if self.preview.show(self._cuts):
            self._behind = True
        else:
            # A drawing that is on goes on first: each step would begin it anew, and end none.
            self._behind = self._canvas.isDrawing()
            if not self._behind:
                self._redraw()
        self._queue.start()

    def _redraw(self) -> None:
        """Have the map show the cut."""
        self._behind = False
        look.set_cuts(self._desk.reviewed.layer, self._cuts)
        self.preview.end()

    def _drawn(self) -> None:
        if self._behind and self._desk.reviewed is not None and not self.preview.on:
            self._redraw()

    def _line_up(self) -> None:
        self._queue.stop()
        if self._behind:
            self._redraw()
        if self._desk.session.filters.cuts != self._cuts:
            self._desk.set_filters(replace(self._desk.session.filters, cuts=dict(self._cuts)), on_map=True)

    def _hidden(self) -> list[int]:
        """What a cut for real would reject."""
        session = self._desk.session
        return [item.id for item in session.objects.values() if item.status == PENDING and session.filters.is_cut(item)]

    def _show(self) -> None:
        """The classes, and the histogram of the chosen one. Quick where no score has changed."""
        session = self._desk.session
        self.setEnabled(self._desk.reviewed is not None)
        if session.scores_version != self._version:
            self._version = session.scores_version
            self._histograms.clear()
            self._list_classes()
        name = self._classes.currentData()
        if name not in self._histograms:
            self._histograms[name] = ScoreHistogram.of(
                item.score
                for item in session.objects.values()
                if item.score is not None and (name is None or item.class_name == name)
            )
        self._show_cut()

    def _list_classes(self) -> None:
        chosen = self._classes.currentData()
        self._classes.clear()
        self._classes.addItem(tr("All classes"), None)
        for name in self._desk.session.counts():
            self._classes.addItem(class_label(name) or tr("no class"), name)
        self._classes.setCurrentIndex(max(0, self._classes.findData(chosen)))

    def _show_cut(self) -> None:
        name = self._classes.currentData()
        histogram = self._histograms.get(name) or ScoreHistogram.of(())
        cut = self._cut_of(name)
        for part in (self.view, self.value, self._reset):
            part.setVisible(histogram.can_be_cut)
        self.value.blockSignals(True)
        self.value.setValue(cut)
        self.value.blockSignals(False)
        self._reset.setEnabled(bool(self._cuts))
        color = _ALL_COLOR if name is None else self._desk.colors.get(name, OTHER_COLOR)
        self.view.show_scores(histogram, cut, color)
        total, under = len(histogram.scores), histogram.under(cut)
        if not total:
            self._told.say(tr("There are no scores here."))
        elif not histogram.can_be_cut:
            self._told.say(tr("All scores here are {:.2f}: there is nothing to cut.").format(histogram.scores[0]))
        elif name is None and len({self._cut_of(each) for each in self._desk.session.counts()}) > 1:
            self._told.say(tr("The classes have cuts of their own. Dragging gives all of them the same."))
        else:
            self._told.say(
                tr("{} of {} have a score of {:.2f} or more.").format(
                    spaced(total - under), count(total, tr("object"), tr("objects")), cut
                )
            )
        self._apply.setVisible(bool(self._cuts))
        # All objects are looked at for it: not while the line is dragged, which shows once it rests.
        if self._cuts and self._desk.session.filters.cuts == self._cuts:
            hidden = len(self._hidden())
            self._apply.setText(tr("Reject hidden ({})...").format(spaced(hidden)))
            self._apply.setEnabled(hidden > 0)

    def _cut_of(self, name: str | None) -> float:
        if name is not None:
            return self._cuts.get(name, 0.0)
        return min((self._cuts.get(each, 0.0) for each in self._desk.session.counts()), default=0.0)
