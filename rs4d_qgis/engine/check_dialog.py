"""The dialog "Check engine...": which engine there is, how it was found, what works in it, and what mends the rest."""

from __future__ import annotations

import html

from qgis.core import Qgis, QgsApplication
from qgis.gui import QgsFileWidget
from qgis.PyQt.QtCore import pyqtSignal
from qgis.PyQt.QtGui import QGuiApplication
from qgis.PyQt.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QTextBrowser,
    QVBoxLayout,
)

from rs4d_qgis import settings
from rs4d_qgis.bundled import plugin_version
from rs4d_qgis.engine.client import engine_client
from rs4d_qgis.engine.doctor import Finding, Report, describe_models, examine, source_words
from rs4d_qgis.engine.errors import EngineError, EngineNotFound
from rs4d_qgis.engine.locate import EngineLocation, locate_engine
from rs4d_qgis.engine.tasks import EngineTask
from rs4d_qgis.plain_text import PlainLabel
from rs4d_qgis.translation import tr


class CheckDialog(QDialog):
    """Looks when it is shown, and whenever the interpreter is changed.

    Signals:
        setup_wanted: the user asks for the set-up.
        engine_changed: another interpreter was chosen.
    """

    setup_wanted = pyqtSignal()
    engine_changed = pyqtSignal()

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self.setWindowTitle(tr("RS4D: check engine"))
        self._task: EngineTask | None = None
        self._report_text = ""

        self._mark = QLabel()
        self._headline = PlainLabel()
        self._headline.setWordWrap(True)
        font = self._headline.font()
        font.setBold(True)
        self._headline.setFont(font)
        self._interpreter = QgsFileWidget()
        self._interpreter.setStorageMode(QgsFileWidget.StorageMode.GetFile)
        self._interpreter.setDialogTitle(tr("Python of the RS4D engine"))
        self._interpreter.lineEdit().setPlaceholderText(tr("empty: found automatically"))
        self._interpreter.setToolTip(
            tr("The Python of an environment with the package rs4d, such as .../bin/python or ...\\Scripts\\python.exe")
        )
        self._busy = QProgressBar()
        self._busy.setRange(0, 0)
        self._busy.setTextVisible(False)
        self._busy.setMaximumHeight(6)
        keep = self._busy.sizePolicy()
        keep.setRetainSizeWhenHidden(True)  # so that nothing jumps
        self._busy.setSizePolicy(keep)
        self._text = QTextBrowser()
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        self._again = buttons.addButton(tr("Check again"), QDialogButtonBox.ButtonRole.ActionRole)
        self._copy = buttons.addButton(tr("Copy report"), QDialogButtonBox.ButtonRole.ActionRole)
        self._setup = buttons.addButton(tr("Set up engine..."), QDialogButtonBox.ButtonRole.ActionRole)

        for button in buttons.buttons():
            button.setAutoDefault(False)  # Enter in the field takes the interpreter, and presses nothing

        top = QHBoxLayout()
        top.addWidget(self._mark)
        top.addWidget(self._headline, 1)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow(tr("Interpreter"), self._interpreter)
        layout = QVBoxLayout(self)
        layout.addLayout(top)
        layout.addLayout(form)
        layout.addWidget(self._busy)
        layout.addWidget(self._text, 1)
        layout.addWidget(buttons)
        self.resize(46 * self.fontMetrics().averageCharWidth() * 2, 30 * self.fontMetrics().lineSpacing())

        self._interpreter.lineEdit().editingFinished.connect(self._apply_interpreter)
        self._interpreter.fileChanged.connect(self._browsed)
        self._again.clicked.connect(self.check)
        self._copy.clicked.connect(self._copy_report)
        self._setup.clicked.connect(self.setup_wanted)
        buttons.rejected.connect(self.close)

    def showEvent(self, event) -> None:
        """Look anew each time that the dialog comes up."""
        super().showEvent(event)
        if not event.spontaneous():
            self._interpreter.setFilePath(settings.interpreter())
            self.check()

    def check(self) -> None:
        """Look for the engine, and ask it in the background what works."""
        self.stop()
        try:
            location = locate_engine()
        except EngineNotFound as error:
            self._show_missing(str(error))
            return
        self._say("mIconInfo", tr("Checking, which takes some seconds ..."))
        self._text.setHtml(_table((_interpreter(location),), marked=False))
        self._copy.setEnabled(False)
        self._busy.show()
        folders = settings.model_folders()
        task = self._task = EngineTask(tr("Check the RS4D engine"), lambda task: _examine(task, location, folders))
        # A check that was overtaken by the next one has nothing to say any more.
        task.succeeded.connect(lambda report: self._show_report(report) if task is self._task else None)
        task.failed.connect(lambda message: self._show_failure(message) if task is self._task else None)
        task.start()

    def stop(self) -> None:
        """Give up a check that is under way."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def _browsed(self) -> None:
        # While the user types, each letter is a change.
        if not self._interpreter.lineEdit().hasFocus():
            self._apply_interpreter()

    def _apply_interpreter(self) -> None:
        path = self._interpreter.filePath().strip()
        if path != settings.interpreter():
            settings.set_interpreter(path)
            engine_client().look_again()
            self.engine_changed.emit()
            self.check()

    def _say(self, mark: str, text: str) -> None:
        size = self.fontMetrics().height() + 4
        self._mark.setPixmap(QgsApplication.getThemeIcon(f"/{mark}.svg").pixmap(size, size))
        self._headline.setText(text)

    def _show_missing(self, message: str) -> None:
        self._done()
        self._say("mIconWarning", tr("There is no engine."))
        self._report_text = f"{_heading()}\nno engine: {message}\n"
        ways = (
            tr("<b>Set up engine...</b> below makes it, and shows all that it does before it starts."),
            tr("With an engine on this machine: choose its Python above."),
            tr("By hand, in an environment of its own: {}; then choose {} above.").format(
                f"<code>{html.escape(_BY_HAND.format(source_words()))}</code>",
                "<code>engine/bin/python</code>",
            ),
        )
        intro = tr("What computes is a Python package of its own, outside of QGIS. There are three ways to it:")
        items = "".join(f"<li>{way}</li>" for way in ways)
        self._text.setHtml(f"<p>{html.escape(message)}</p><p>{intro}</p><ol>{items}</ol>")

    def _show_report(self, report: Report) -> None:
        self._done()
        self._report_text = report.text(_heading())
        if report.ok:
            self._say("mIconSuccess", tr("The engine works."))
        else:
            self._say("mIconWarning", tr("The engine does not work as it should. What mends it stands below."))
        self._text.setHtml(_table((_interpreter(report.location), *report.findings)))

    def _show_failure(self, message: str) -> None:
        self._done()
        self._say("mIconWarning", message or tr("The check was stopped."))

    def _done(self) -> None:
        self._task = None
        self._busy.hide()
        self._copy.setEnabled(True)

    def _copy_report(self) -> None:
        QGuiApplication.clipboard().setText(self._report_text)


def _examine(task: EngineTask, location: EngineLocation, folders: list[str]) -> Report:
    """In the background: what the doctor says, and whether the engine answers requests."""
    report = examine(location, task.isCanceled)
    if not report.ok:
        return report
    try:
        hello = engine_client().request("hello", {"model_folders": folders}, cancelled=task.isCanceled)
    except EngineError as error:
        return Report(location, (*report.findings, Finding("requests", False, str(error), "check again")))
    return Report(location, (*report.findings, *describe_models(hello)))


_BY_HAND = "python3 -m venv engine && engine/bin/python -m pip install {}"


def _heading() -> str:
    return f"RS4D {plugin_version()} in QGIS {Qgis.QGIS_VERSION}"


def _interpreter(location: EngineLocation) -> Finding:
    return Finding("interpreter", True, f"{location.python}, {location.words}")


def _table(findings: tuple[Finding, ...], marked: bool = True) -> str:
    rows = []
    for finding in findings:
        if finding.absent:
            mark, color = "&#8211;", "#808080"
        else:
            mark, color = ("&#10003;", "#2e8b57") if finding.ok else ("&#10007;", "#c0392b")
        mark = mark if marked else ""
        value = html.escape(finding.value)
        if finding.mend:
            words = tr("If you want it:") if finding.absent else f"<b>{tr('To mend:')}</b>"
            value += f"<br>{words} {html.escape(finding.mend)}"
        rows.append(
            f'<tr><td style="color:{color}">{mark}</td><td style="padding-right:12px;white-space:nowrap">'
            f"{html.escape(finding.name)}</td><td>{value}</td></tr>"
        )
    return f'<table cellpadding="3">{"".join(rows)}</table>'
