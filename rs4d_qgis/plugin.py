"""The plugin's place in QGIS: its toolbox provider, its button and its menu.

QGIS starts with the plugin on, whether or not there is an engine, so nothing here looks for one, starts a process, or
imports a panel before it is asked for.
"""

from __future__ import annotations

from qgis.core import QgsApplication, QgsVectorLayer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtWidgets import QDialog, QDockWidget

from rs4d_qgis.bundled import icon
from rs4d_qgis.compat import QAction
from rs4d_qgis.provider import RS4DProvider
from rs4d_qgis.translation import tr

MENU = "RS4D"


class RS4DPlugin:
    """What `classFactory` gives to QGIS. `iface` is None where there is no user interface, as in `qgis_process`."""

    def __init__(self, iface) -> None:
        self._iface = iface
        self._provider: RS4DProvider | None = None
        self._actions: list[QAction] = []
        self._panel_action: QAction | None = None
        self._review_action: QAction | None = None
        self._dock = None
        self._review_dock = None
        self._dialogs: dict[str, QDialog] = {}
        self._quitting = False

    def initProcessing(self) -> None:
        """Add the algorithms. The only one of these that `qgis_process` calls."""
        self._provider = RS4DProvider()
        QgsApplication.processingRegistry().addProvider(self._provider)

    def initGui(self) -> None:
        """Add the algorithms, the button and the menu."""
        self.initProcessing()
        if self._iface is None:
            return
        QgsApplication.instance().aboutToQuit.connect(self._quit)
        self._panel_action = self._action("rs4dSegment", tr("Segment..."), self.show_panel)
        self._panel_action.setIcon(icon())
        self._panel_action.setToolTip(tr("RS4D: find instances in a raster layer"))
        self._panel_action.setCheckable(True)
        self._iface.addToolBarIcon(self._panel_action)
        self._review_action = self._action("rs4dReview", tr("Review..."), self.show_review)
        self._review_action.setIcon(icon("rs4d-review"))
        self._review_action.setToolTip(tr("RS4D: review, correct and export instances"))
        self._review_action.setCheckable(True)
        self._iface.addToolBarIcon(self._review_action)
        self._action("rs4dCheckEngine", tr("Check engine..."), self.show_check)
        self._action("rs4dSetUpEngine", tr("Set up engine..."), self.show_setup)

    def unload(self) -> None:
        """Take everything away again, and end the engine."""
        self._end_work()
        if self._iface is not None:
            QgsApplication.instance().aboutToQuit.disconnect(self._quit)
        for dialog in self._dialogs.values():
            dialog.close()
            dialog.deleteLater()
        self._dialogs.clear()
        for dock in filter(None, (self._review_dock, self._dock)):
            self._iface.removeDockWidget(dock)
            dock.deleteLater()
        if self._review_dock is not None and not self._quitting:
            from rs4d_qgis.review.keeping.keeper import let_go_of_left_edits

            let_go_of_left_edits()
        self._review_dock = self._dock = None
        for action in self._actions:
            self._iface.removePluginRasterMenu(MENU, action)
            self._iface.removeToolBarIcon(action)
            action.deleteLater()
        self._actions.clear()
        self._panel_action = self._review_action = None
        if self._provider is not None:
            QgsApplication.processingRegistry().removeProvider(self._provider)
            self._provider = None

    def show_panel(self, shown: bool = True) -> None:
        """Show or hide the segment panel, which is made the first time."""
        if self._dock is None:
            if not shown:
                return
            from rs4d_qgis.dock.panel import SegmentDock

            self._dock = SegmentDock(self._iface)
            self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._dock)
            self._dock.visibilityChanged.connect(self._panel_action.setChecked)
            self._dock.setup_wanted.connect(self.show_setup)
            self._dock.check_wanted.connect(self.show_check)
            self._dock.review_wanted.connect(self.review)
            self._together(self._dock, self._review_dock)
        self._dock.setUserVisible(shown)

    def show_review(self, shown: bool = True) -> None:
        """Show or hide the review panel, which is made the first time, with a layer if it is clear which."""
        if self._review_dock is None:
            if not shown:
                return
            from rs4d_qgis.review.panel import ReviewDock

            self._review_dock = ReviewDock(self._iface)
            self._iface.addDockWidget(Qt.DockWidgetArea.RightDockWidgetArea, self._review_dock)
            self._review_dock.visibilityChanged.connect(self._review_action.setChecked)
            self._together(self._review_dock, self._dock)
        if not shown:
            self._review_dock.close()  # only hidden, it would leave the layer as it looks under review
            return
        self._review_dock.setUserVisible(True)
        if self._review_dock.reviewed is None:
            self._review_dock.review()

    def review(self, layer: QgsVectorLayer) -> None:
        """Show the review panel with this layer."""
        self.show_review()
        self._review_dock.review(layer)

    def show_check(self) -> None:
        """Show what the engine is, and whether it works."""
        if "check" not in self._dialogs:
            from rs4d_qgis.engine.check_dialog import CheckDialog

            self._dialogs["check"] = CheckDialog(self._iface.mainWindow())
            self._dialogs["check"].setup_wanted.connect(self.show_setup)
            self._dialogs["check"].engine_changed.connect(self._tell_panel)
        self._raise("check")

    def show_setup(self) -> None:
        """Show how the engine's environment would be made."""
        if "setup" not in self._dialogs:
            from rs4d_qgis.engine.setup_dialog import SetupDialog

            self._dialogs["setup"] = SetupDialog(self._iface.mainWindow())
            self._dialogs["setup"].check_wanted.connect(self.show_check)
            self._dialogs["setup"].engine_changed.connect(self._tell_panel)
        self._raise("setup")

    def _quit(self) -> None:
        """QGIS is closing. `unload` may come later, when there is no project and no map any more."""
        self._quitting = True
        self._end_work()

    def _end_work(self) -> None:
        """Have nothing at work any more, in panels and dialogs, in the background, and in the engine."""
        for dialog in self._dialogs.values():
            dialog.stop()
        for dock in filter(None, (self._review_dock, self._dock)):
            dock.tear_down()
        from rs4d_qgis.engine.tasks import end_tasks

        end_tasks()

    def _together(self, dock: QDockWidget, other: QDockWidget | None) -> None:
        """Two panels beside the map would leave no map: one lies behind the other."""
        window = self._iface.mainWindow()
        if other is not None and not other.isFloating() and window.dockWidgetArea(other) == window.dockWidgetArea(dock):
            window.tabifyDockWidget(other, dock)

    def _tell_panel(self) -> None:
        if self._dock is not None:
            self._dock.engine.look()

    def _action(self, name: str, text: str, run) -> QAction:
        action = QAction(text, self._iface.mainWindow())
        action.setObjectName(name)
        action.triggered.connect(run)
        self._iface.addPluginToRasterMenu(MENU, action)
        self._actions.append(action)
        return action

    def _raise(self, name: str) -> None:
        dialog = self._dialogs[name]
        dialog.show()
        dialog.raise_()
        dialog.activateWindow()
