"""The lower part of the panel: what a run would take, Run, how far it is, Cancel, and what came of it."""

from __future__ import annotations

from collections.abc import Callable

from qgis.core import QgsApplication
from qgis.PyQt.QtCore import Qt, pyqtSignal
from qgis.PyQt.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QMenu,
    QProgressBar,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from rs4d_qgis.bundled import icon
from rs4d_qgis.dock.past_runs import PastRun
from rs4d_qgis.dock.run_state import Phase, RunState
from rs4d_qgis.dock.ways_out import WayOut
from rs4d_qgis.plain_text import PlainLabel, as_it_is
from rs4d_qgis.translation import tr

_STEPS = 1000


class RunBox(QWidget):
    """Shows a `RunState`.

    Signals:
        run_wanted(), cancel_wanted(): the buttons.
        way_out_wanted(WayOut): one of the buttons under a run that found nothing.
        past_run_wanted(PastRun): a line of the menu of past runs.
        review_wanted(): what was found is to be reviewed.
    """

    run_wanted = pyqtSignal()
    cancel_wanted = pyqtSignal()
    way_out_wanted = pyqtSignal(object)
    past_run_wanted = pyqtSignal(object)
    review_wanted = pyqtSignal()

    def __init__(self, past_runs: Callable[[], list[PastRun]], parent=None):
        super().__init__(parent)
        self._past_runs = past_runs
        self._busy = False
        self._missing = ""
        self._forecast = PlainLabel()
        self._forecast.setObjectName("forecast")
        self._forecast.setWordWrap(True)
        self.run_button = QPushButton(QgsApplication.getThemeIcon("/mActionStart.svg"), tr("Run"))
        self.run_button.setObjectName("run")
        self.run_button.clicked.connect(self.run_wanted)
        self._past = QToolButton()
        self._past.setObjectName("past_runs")
        self._past.setText(tr("Past runs"))
        self._past.setIcon(QgsApplication.getThemeIcon("/mIconHistory.svg"))
        self._past.setToolTip(tr("Open the settings, the place and the result of an earlier run again"))
        self._past.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._past.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        menu = QMenu(self._past)
        menu.setToolTipsVisible(True)
        menu.aboutToShow.connect(self._fill_menu)
        self._past.setMenu(menu)
        buttons = QHBoxLayout()
        buttons.addWidget(self.run_button, 1)
        buttons.addWidget(self._past)

        self._bar = QProgressBar()
        self._bar.setObjectName("progress")
        self._bar.setRange(0, _STEPS)
        self.cancel_button = QPushButton(QgsApplication.getThemeIcon("/mTaskCancel.svg"), tr("Cancel"))
        self.cancel_button.setObjectName("cancel")
        self.cancel_button.setToolTip(tr("Stop within two seconds, and keep what was found until then"))
        self.cancel_button.clicked.connect(self.cancel_wanted)
        self._progress = QWidget()
        progress = QHBoxLayout(self._progress)
        progress.setContentsMargins(0, 0, 0, 0)
        progress.addWidget(self._bar, 1)
        progress.addWidget(self.cancel_button)
        self._state_icon = QLabel()
        self._state_text = PlainLabel()
        self._state_text.setObjectName("run_state")
        self._state_text.setWordWrap(True)
        self._state_text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        state = QHBoxLayout()
        state.addWidget(self._state_icon, 0, Qt.AlignmentFlag.AlignTop)
        state.addWidget(self._state_text, 1)
        self._ways = QVBoxLayout()
        self._review = QPushButton(icon("rs4d-review"), tr("Review..."))
        self._review.setObjectName("review_result")
        self._review.setToolTip(tr("Look through what was found, one by one, and accept, reject or mend it"))
        self._review.clicked.connect(self.review_wanted)

        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._forecast)
        layout.addLayout(buttons)
        layout.addWidget(self._progress)
        layout.addLayout(state)
        layout.addLayout(self._ways)
        layout.addWidget(self._review)
        self.show_state(RunState())

    def set_forecast(self, text: str, missing: str) -> None:
        """What a run would take, or what is missing before there can be one."""
        self._missing = missing
        self._forecast.setText(missing or text)
        self._enable()

    def show_state(self, state: RunState, more: str = "", ways: list[WayOut] | None = None) -> None:
        """Show a run, with more to say about how it ended, and what could be tried instead."""
        self._busy = state.busy
        self._progress.setVisible(state.busy)
        self._forecast.setVisible(not state.busy)
        self.cancel_button.setEnabled(state.phase is Phase.RUNNING)
        # Until the windows are planned nobody knows how far it is: a bar that moves to and fro.
        self._bar.setRange(0, _STEPS if state.windows else 0)
        self._bar.setValue(round(state.fraction * _STEPS))
        self._say(state, " ".join(part for part in (state.line(), more) if part))
        self._offer(ways or [])
        self.offer_review(False)
        self._enable()

    def say(self, text: str) -> None:
        """Something else than a run's state."""
        self._say(RunState(), text)
        self._offer([])
        self.offer_review(False)

    def offer_review(self, there: bool) -> None:
        """Whether there is a result on the map to be reviewed."""
        self._review.setVisible(there)

    def _enable(self) -> None:
        self.run_button.setEnabled(not self._busy and not self._missing)
        self.run_button.setToolTip(
            tr("A run is on") if self._busy else self._missing or tr("Find the instances, in the background")
        )

    def _say(self, state: RunState, text: str) -> None:
        sign = {
            Phase.DONE: "/mIconSuccess.svg" if state.found else "/mIconInfo.svg",
            Phase.CANCELLED: "/mIconInfo.svg",
            Phase.FAILED: "/mIconWarning.svg",
        }.get(state.phase)
        side = self.fontMetrics().height()
        self._state_icon.setVisible(sign is not None)
        if sign is not None:
            self._state_icon.setPixmap(QgsApplication.getThemeIcon(sign).pixmap(side, side))
        self._state_text.setText(text)
        self._state_text.setVisible(bool(text))

    def _offer(self, ways: list[WayOut]) -> None:
        while self._ways.count():
            self._ways.takeAt(0).widget().deleteLater()
        for way in ways:
            button = QPushButton(way.label)
            button.setObjectName("way_out")
            button.clicked.connect(lambda _checked=False, way=way: self.way_out_wanted.emit(way))
            self._ways.addWidget(button)

    def _fill_menu(self) -> None:
        menu = self._past.menu()
        menu.clear()
        runs = self._past_runs()
        for run in runs:
            label = tr("{when}  {layer}: {found} found{how}").format(
                when=run.time.replace("T", " "),
                layer=run.settings.layer_name,
                found=run.found,
                how="" if run.complete else tr(" (stopped early)"),
            )
            action = menu.addAction(label.replace("&", "&&"))
            action.setToolTip(as_it_is("\n".join(filter(None, (run.model_name, run.output)))))
            action.triggered.connect(lambda _checked=False, run=run: self.past_run_wanted.emit(run))
        if not runs:
            menu.addAction(tr("None yet")).setEnabled(False)
