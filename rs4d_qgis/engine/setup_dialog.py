"""The dialog "Set up engine...": shows what would be made, and makes it when told to."""

from __future__ import annotations

import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import Qt, QTimer, pyqtSignal
from qgis.PyQt.QtGui import QFontDatabase
from qgis.PyQt.QtWidgets import (
    QComboBox,
    QDialog,
    QDialogButtonBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPlainTextEdit,
    QProgressBar,
    QSizePolicy,
    QVBoxLayout,
)

from rs4d_qgis import settings
from rs4d_qgis.bundled import bundled, plugin_version
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.environment import UNFINISHED, environment_python
from rs4d_qgis.engine.errors import EngineNotFound
from rs4d_qgis.engine.locate import checkout_folder, locate_engine, managed_folder
from rs4d_qgis.engine.proxy import proxy_variables, proxy_words
from rs4d_qgis.engine.pythons import Python, find_pythons, probe
from rs4d_qgis.engine.setup_plan import LEAST_GB, MOST_GB, SetupOptions, plan
from rs4d_qgis.engine.setup_run import set_up
from rs4d_qgis.engine.setup_source import Source, package, problem, problem_of_wheels
from rs4d_qgis.engine.tasks import EngineTask
from rs4d_qgis.plain_text import PlainLabel
from rs4d_qgis.translation import tr

_LOG_LINES = 5000


class SetupTask(EngineTask):
    """A set-up in the background. Signal `said`: one line of its log."""

    said = pyqtSignal(str)

    def __init__(self, options: SetupOptions, variables: dict[str, str]) -> None:
        super().__init__(
            tr("Set up the RS4D engine"), lambda task: set_up(options, task.said.emit, task.isCanceled, variables)
        )


class SetupDialog(QDialog):
    """Nothing starts before its button is pressed. A set-up goes on while the dialog is closed, until QGIS ends.

    Signals:
        check_wanted: the user asks for the check.
        engine_changed: there is a new engine, or another one is chosen.
    """

    check_wanted = pyqtSignal()
    engine_changed = pyqtSignal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("RS4D: set up engine"))
        self._task: SetupTask | None = None
        self._search: EngineTask | None = None
        self._started = 0.0
        self._clock = QTimer(self)
        self._clock.setInterval(1000)

        intro = QLabel(
            tr(
                "The engine is a Python package with PyTorch. It gets an environment of its own: neither QGIS nor "
                "another Python of this machine is changed, and removing the folder removes all of it. Nothing is "
                "downloaded before you press <b>Set up</b>."
            )
        )
        intro.setWordWrap(True)
        self._folder = QLineEdit(str(managed_folder()))
        self._folder.setReadOnly(True)
        self._folder.setFocusPolicy(Qt.FocusPolicy.ClickFocus)
        self._python, self._package = _combo(), _combo()
        self._torch_index = QLineEdit()
        self._torch_index.setPlaceholderText(
            tr("empty: as pip finds it; else the address of an index, as PyTorch's site names them")
        )
        self._package_file = QgsFileWidget()
        self._wheels = QgsFileWidget()
        self._wheels.setStorageMode(QgsFileWidget.StorageMode.GetDirectory)
        self._wheels.lineEdit().setPlaceholderText(tr("empty: download; else a folder with all wheels"))
        self._proxy = PlainLabel()
        self._caption = QLabel()
        self._log = QPlainTextEdit()
        self._log.setReadOnly(True)
        self._log.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self._log.setMaximumBlockCount(_LOG_LINES)
        self._bar = QProgressBar()
        self._bar.setRange(0, 1)
        self._bar.setTextVisible(False)
        self._bar.setMaximumHeight(6)
        self._status = PlainLabel()
        self._status.setWordWrap(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self._start = buttons.addButton(tr("Set up"), QDialogButtonBox.ButtonRole.ActionRole)
        self._cancel = buttons.addButton(tr("Cancel"), QDialogButtonBox.ButtonRole.ActionRole)
        self._use = buttons.addButton(tr("Use this engine"), QDialogButtonBox.ButtonRole.ActionRole)
        self._check = buttons.addButton(tr("Check engine..."), QDialogButtonBox.ButtonRole.ActionRole)

        for button in buttons.buttons():
            button.setAutoDefault(False)  # a stray Enter starts nothing

        source = QHBoxLayout()
        source.addWidget(self._package, 1)
        source.addWidget(self._package_file, 1)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow(tr("Folder"), self._folder)
        form.addRow(tr("Made with"), self._python)
        form.addRow(tr("Install"), source)
        form.addRow(tr("PyTorch from"), self._torch_index)
        form.addRow(tr("Without internet"), self._wheels)
        form.addRow(tr("Proxy"), self._proxy)
        layout = QVBoxLayout(self)
        layout.addWidget(intro)
        layout.addLayout(form)
        layout.addWidget(self._caption)
        layout.addWidget(self._log, 1)
        layout.addWidget(self._bar)
        layout.addWidget(self._status)
        layout.addWidget(buttons)
        self.resize(96 * self.fontMetrics().averageCharWidth(), 36 * self.fontMetrics().lineSpacing())

        self._fill()
        self._python.activated.connect(self._python_chosen)
        self._package.currentIndexChanged.connect(self._package_chosen)
        for changed in (self._package_file.fileChanged, self._wheels.fileChanged, self._torch_index.textChanged):
            changed.connect(self._show_plan)
        self._clock.timeout.connect(self._tick)
        self._start.clicked.connect(self.start)
        self._cancel.clicked.connect(self.cancel)
        self._use.clicked.connect(self._use_this)
        self._check.clicked.connect(self.check_wanted)
        buttons.rejected.connect(self.close)

    def showEvent(self, event) -> None:
        """Look for Pythons, and show the plan, each time that the dialog comes up before a set-up."""
        super().showEvent(event)
        if not event.spontaneous() and self._task is None:
            self._proxy.setText(proxy_words())
            self._package_chosen()
            self._find_pythons()

    def options(self) -> SetupOptions | None:
        """What is chosen, None where something is still missing."""
        if self._missing() is not None:
            return None
        source = self._package.currentData()
        wheels = self._wheels.filePath().strip()
        return SetupOptions(
            folder=managed_folder(),
            python=self._python.currentData().path,
            package=package(source, self._package_file.filePath().strip()) if isinstance(source, Source) else source,
            wheels=Path(wheels) if wheels else None,
            constraints=bundled("constraints.txt"),
            torch_index=self._torch_index.text().strip(),
            system=platform.system(),
        )

    def start(self) -> None:
        """Begin, or go on with, the set-up that is shown."""
        options = self.options()
        if options is None or self._task is not None:
            return
        client = engine_client()
        if client.busy():
            self._status.setText(tr("The engine is at work: wait for the run, or cancel it, then start this again."))
            return
        client.close()  # its files are about to change
        self._log.clear()
        self._caption.setText(tr("Log"))
        task = self._task = SetupTask(options, proxy_variables())
        task.said.connect(self._log.appendPlainText)
        task.succeeded.connect(self._succeeded)
        task.failed.connect(self._failed)
        self._started = time.monotonic()
        self._clock.start()
        self._bar.setRange(0, 0)
        self._tick()
        self._show_state()
        task.start()

    def cancel(self) -> None:
        """Stop the set-up. What is made stays, for the next one to go on from."""
        if self._task is not None:
            self._status.setText(tr("Stopping ..."))
            self._clock.stop()
            self._task.cancel()

    def stop(self) -> None:
        """Give up whatever goes on in the background."""
        self.cancel()
        search, self._search = self._search, None
        if search is not None:
            search.cancel()

    def _fill(self) -> None:
        version = plugin_version()
        checkout = checkout_folder()
        if checkout is not None:
            self._package.addItem(tr("RS4D of this checkout, {}").format(checkout), str(checkout))
        self._package.addItem(tr("a folder with the source ..."), Source.FOLDER)
        self._package.addItem(tr("a wheel file ..."), Source.WHEEL)
        self._package.addItem(tr("RS4D {} from the folder of wheels below").format(version), Source.WHEELS)

    def _find_pythons(self) -> None:
        self._look(lambda task: find_pythons(task.isCanceled), self._show_pythons)
        self._python.clear()
        self._python.addItem(tr("looking for Pythons ..."))
        self._show_plan()

    def _show_pythons(self, pythons: list[Python]) -> None:
        self._search = None
        self._python.clear()
        for python in pythons:
            self._python.addItem(_words(python), python)
        if not pythons:
            self._python.addItem(tr("none found"))
        self._python.addItem(tr("another ..."), "")
        self._show_plan()

    def _python_chosen(self, index: int) -> None:
        if self._python.itemData(index) == "":
            self._python.setCurrentIndex(0)
            path, _filter = QFileDialog.getOpenFileName(self, tr("A Python, 3.10 or newer"))
            if path:
                self._look(lambda _task: probe(path), self._add_python)
        self._show_plan()

    def _add_python(self, python: Python) -> None:
        self._search = None
        self._python.insertItem(0, _words(python), python)
        self._python.setCurrentIndex(0)
        self._show_plan()

    def _look(self, work: Callable[[EngineTask], object], then: Callable[[object], None]) -> None:
        task = self._search = EngineTask(tr("Look for Pythons"), work)
        task.succeeded.connect(lambda found: then(found) if task is self._search else None)
        task.start()

    def _package_chosen(self) -> None:
        source = self._package.currentData()
        mode = QgsFileWidget.StorageMode
        self._package_file.setVisible(source in (Source.FOLDER, Source.WHEEL))
        self._package_file.setStorageMode(mode.GetFile if source is Source.WHEEL else mode.GetDirectory)
        self._package_file.setFilter("Wheels (*.whl)" if source is Source.WHEEL else "")
        self._show_plan()

    def _show_plan(self) -> None:
        if self._task is not None:
            return
        options = self.options()
        folder = managed_folder()
        existing = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        free_gb = shutil.disk_usage(existing).free / 1e9
        self._caption.setText(tr("These commands will run ({:.0f} GB are free there):").format(free_gb))
        self._status.clear()
        if options is None:
            self._log.setPlainText("")
            self._status.setText(self._missing() or "")
        else:
            self._log.setPlainText("\n\n".join(f"# {s.title}\n{s.text(options.system)}" for s in plan(options)))
            if (folder / UNFINISHED).exists():
                self._status.setText(tr("An earlier set-up was not finished. This one goes on from there."))
            elif environment_python(folder).is_file():
                self._status.setText(tr("There is an engine already. This brings it up to date, or repairs it."))
            else:
                words = tr(
                    "It takes {} GB on disk, or {} GB with a PyTorch that brings CUDA; two minutes, and the download."
                )
                self._status.setText(words.format(LEAST_GB, MOST_GB))
        self._show_state()

    def _missing(self) -> str | None:
        """What is still to be chosen; "" while Pythons are looked for, None where nothing is."""
        python = self._python.currentData()
        if self._search is not None:
            return ""
        if not isinstance(python, Python):
            return tr("No Python 3.10 or newer was found: install one (python.org), or choose one above.")
        if python.problem:
            return tr("{} cannot be taken: {}.").format(python.path, python.problem)
        source = self._package.currentData()
        wheels = self._wheels.filePath().strip()
        if isinstance(source, Source):
            return problem(source, self._package_file.filePath().strip(), wheels)
        return problem_of_wheels(wheels)

    def _show_state(self) -> None:
        running = self._task is not None
        for widget in (self._python, self._package, self._package_file, self._torch_index, self._wheels):
            widget.setEnabled(not running)
        self._start.setEnabled(not running and self.options() is not None)
        self._cancel.setEnabled(running)
        self._use.setVisible(False)

    def _tick(self) -> None:
        minutes, seconds = divmod(int(time.monotonic() - self._started), 60)
        self._status.setText(
            tr("Setting up: {}:{:02d} min so far. This dialog may be closed meanwhile.").format(minutes, seconds)
        )

    def _succeeded(self, _nothing: object) -> None:
        self._ended()
        engine_client().look_again()
        other = self._comes_before()
        if other is None:
            self._status.setText(tr("The engine is ready."))
        else:
            self._status.setText(tr("The engine is ready, but another one comes before it: {}.").format(other))
            self._use.setVisible(True)
        self.engine_changed.emit()

    def _comes_before(self) -> str | None:
        """What is taken for the engine instead of the one that was made, None where that is taken."""
        try:
            used = locate_engine()
        except EngineNotFound:
            return settings.interpreter()  # named by the user, and not there
        made = str(environment_python(managed_folder()))
        return None if used.python == made else f"{used.python}, {used.words}"

    def _failed(self, message: str) -> None:
        self._ended()
        self._status.setText(message or tr("Stopped. What is made so far stays: Set up goes on from there."))

    def _ended(self) -> None:
        self._task = None
        self._clock.stop()
        self._bar.setRange(0, 1)
        self._show_state()

    def _use_this(self) -> None:
        settings.set_interpreter(str(environment_python(managed_folder())))
        engine_client().look_again()
        self.engine_changed.emit()
        self._use.setVisible(False)
        self._status.setText(tr("The engine is ready, and chosen in the settings."))


def _combo() -> QComboBox:
    """As wide as the dialog lets it be, whatever is in it."""
    combo = QComboBox()
    combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    combo.setMinimumContentsLength(16)
    combo.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
    return combo


def _words(python: Python) -> str:
    if not python.version:
        return python.path
    words = tr("Python {}, {}").format(python.version, python.path)
    own = platform.system() != "Linux" and Path(python.path).is_relative_to(sys.base_exec_prefix)
    return tr("{} (QGIS's own: the program is used, its packages are not)").format(words) if own else words
