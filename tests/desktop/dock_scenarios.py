"""What a user does with the panel, played in QGIS by `driver.py`."""

import os
import signal
import time

from qgis.core import QgsCoordinateReferenceSystem, QgsPointXY, QgsRectangle, QgsVectorLayer
from qgis.PyQt.QtCore import Qt
from qgis.PyQt.QtTest import QTest
from qgis.PyQt.QtWidgets import QDockWidget, QPushButton

# Of the generated scene's 0.5 m: so many windows that a run is still on when something happens to it.
MANY_WINDOWS_M = 0.1


def _ready(desk, name="harbour"):
    """Imagery on the map, and a panel that can run."""
    desk.load(os.environ["SCENE"], name)
    desk.plugin.show_panel()
    yield lambda: desk.canvas.layers() and not desk.canvas.isDrawing()
    yield lambda: desk.text("engine_state").startswith("Engine ready")
    yield lambda: desk.widget("run").isEnabled()


def _results(desk):
    layers = desk.project.mapLayers().values()
    return [layer for layer in layers if isinstance(layer, QgsVectorLayer) and layer.providerType() == "ogr"]


def _live(desk):
    layers = desk.project.mapLayers().values()
    return [layer for layer in layers if isinstance(layer, QgsVectorLayer) and layer.providerType() == "memory"]


def _running(desk):
    """Start a long run, and wait until it has found something."""
    desk.dock.form.resolution.setValue(MANY_WINDOWS_M)
    yield lambda: "window" in desk.text("forecast") and desk.widget("run").isEnabled()
    desk.click("run")
    yield lambda: _live(desk) and _live(desk)[0].featureCount() > 0 and "windows" in desk.text("run_state")


def _told(desk, result):
    """What the report should say of a result layer."""
    return {
        "count": result.featureCount(),
        "file": result.source().split("|")[0],
        "extent": _bounds(result.extent()),
        "group": desk.project.layerTreeRoot().findLayer(result.id()).parent().name(),
        "above": desk.project.layerTreeRoot().layerOrder()[0].id() == result.id(),
        "history": result.metadata().history(),
        "renderer": result.renderer().type(),
    }


def _bounds(rectangle):
    return [rectangle.xMinimum(), rectangle.yMinimum(), rectangle.xMaximum(), rectangle.yMaximum()]


def draw_and_run(desk):
    """Load imagery, draw an extent, run, and see polygons come."""
    yield from _ready(desk)
    desk.report["before"] = desk.text("forecast")
    desk.report["reading"] = desk.text("resolution_hint")
    desk.click("draw_extent")
    desk.drag((0.3, 0.3), (0.7, 0.7))
    yield lambda: desk.widget("run").isEnabled()
    desk.report["drawn"] = list(desk.dock.form.settings().zone.bounds)
    desk.report["tool_is_back"] = not desk.widget("draw_extent").isChecked()
    yield lambda: not desk.canvas.isDrawing()
    desk.map_shot("before")
    desk.click("run")
    yield lambda: desk.dock.busy
    desk.report["run_button_while_busy"] = desk.widget("run").isEnabled()
    yield lambda: not desk.dock.busy
    yield lambda: not desk.canvas.isDrawing()
    (result,) = _results(desk)
    desk.report |= {"said": desk.text("run_state"), "result": _told(desk, result), "live": len(_live(desk))}
    yield lambda: "about" in desk.text("forecast")
    desk.report["after"] = desk.text("forecast")
    desk.report["colors"] = [
        category.symbol().symbolLayer(0).strokeColor().name() for category in result.renderer().categories()
    ]
    desk.map_shot("after")
    desk.shot("done")
    desk.click("review_result")
    yield lambda: desk.review.isVisible() and desk.review.reviewed is not None
    desk.report["reviewed"] = [desk.review.reviewed.layer.id() == result.id(), desk.review.session.left]
    desk.report["panels_lie_together"] = desk.iface.mainWindow().tabifiedDockWidgets(desk.dock) == [desk.review]
    yield lambda: not desk.canvas.isDrawing()
    desk.shot("review")


def live_then_cancel(desk):
    """Polygons come while the run goes on; Cancel stops it soon, and keeps them."""
    yield from _ready(desk)
    yield from _running(desk)
    desk.report["while_running"] = {"said": desk.text("run_state"), "live": _live(desk)[0].featureCount()}
    desk.shot("running")
    clicked = time.monotonic()
    desk.click("cancel")
    desk.report["said_at_once"] = desk.text("run_state")
    yield lambda: not desk.dock.busy
    desk.report["cancel_s"] = time.monotonic() - clicked
    (result,) = _results(desk)
    desk.report |= {"said": desk.text("run_state"), "result": _told(desk, result), "live": len(_live(desk))}
    desk.shot("cancelled")


def project_closed(desk):
    """Another project is opened in a run, and one more after it."""
    yield from _ready(desk)
    yield from _running(desk)
    desk.project.clear()
    yield lambda: not desk.dock.busy
    desk.report["said"] = desk.text("run_state")
    desk.project.clear()
    desk.report["said_then"] = desk.text("run_state")


def engine_killed(desk):
    """The engine dies in a run: what was found is kept, and the next run works."""
    yield from _ready(desk)
    yield from _running(desk)
    found = _live(desk)[0].featureCount()
    os.kill(desk.engine_pid(), signal.SIGKILL)
    yield lambda: not desk.dock.busy
    desk.report |= {"found": found, "said": desk.text("run_state"), "live": len(_live(desk))}
    desk.report["kept"] = [layer.featureCount() for layer in _results(desk)]
    # Told a moment later, after QGIS's own word on the task.
    yield lambda: any(item.title() == "RS4D" for item in desk.iface.messageBar().items())
    desk.report["bar"] = [item.text() for item in desk.iface.messageBar().items()]
    desk.shot("killed")
    yield lambda: desk.text("engine_state").startswith("Engine ready")
    desk.dock.form.resolution.clear()
    yield lambda: desk.widget("run").isEnabled() and "as it is" in desk.text("resolution_hint")
    desk.click("run")
    yield lambda: desk.dock.busy
    yield lambda: not desk.dock.busy
    desk.report["next"] = desk.text("run_state")
    desk.report["results"] = len(_results(desk))


def no_engine(desk):
    """Without an engine there is no error, but a hint, and the way to the set-up."""
    desk.load(os.environ["SCENE"])
    started = time.monotonic()
    desk.plugin.show_panel()
    desk.report["panel_s"] = time.monotonic() - started
    yield lambda: desk.canvas.layers() and not desk.canvas.isDrawing()
    yield lambda: "not" in desk.text("engine_state")
    desk.report |= {
        "engine": desk.text("engine_state"),
        "forecast": desk.text("forecast"),
        "setup": desk.widget("engine_setup").isVisible(),
        "run": desk.widget("run").isEnabled(),
        "messages": [item.text() for item in desk.iface.messageBar().items()],
    }
    desk.shot("no_engine")


def quit_while_running(desk):
    """QGIS is closed in a run, as its menu does."""
    yield from _ready(desk)
    yield from _running(desk)
    desk.report |= {"engine_pid": desk.engine_pid(), "quit_at": time.time()}


def quit_rudely(desk):
    """QGIS ends in a run, without a question, as when the session of the desktop ends."""
    yield from quit_while_running(desk)
    desk.quits_rudely = True


def nothing_found(desk):
    """A run that finds nothing offers ways out, one click each; another map CRS does not move the extent."""
    yield from _ready(desk)
    desk.canvas.setDestinationCrs(QgsCoordinateReferenceSystem("EPSG:4326"))
    desk.canvas.zoomToFullExtent()
    yield lambda: not desk.canvas.isDrawing()
    desk.click("draw_extent")
    desk.drag((0.4, 0.4), (0.6, 0.6))
    desk.dock.form.score.setValue(1.0)
    yield lambda: desk.widget("run").isEnabled()
    desk.report["zone"] = desk.dock.form.settings().zone.to_json()
    desk.click("run")
    yield lambda: desk.dock.busy
    yield lambda: not desk.dock.busy
    buttons = desk.dock.findChildren(QPushButton, "way_out")
    desk.report |= {"said": desk.text("run_state"), "ways": [button.text() for button in buttons]}
    desk.report["layers"] = len(desk.project.mapLayers())
    desk.report["groups"] = len(desk.project.layerTreeRoot().findGroups())
    desk.shot("nothing")
    next(button for button in buttons if "whole layer" in button.text()).click()
    yield lambda: desk.dock.busy
    desk.report["extent_now"] = desk.dock.form.extents.kind
    desk.click("cancel")
    yield lambda: not desk.dock.busy


def past_run_again(desk):
    """After `draw_and_run` in an earlier session: its settings, place, imagery and result come back."""
    desk.plugin.show_panel()
    yield lambda: desk.text("engine_state").startswith("Engine ready")
    menu = desk.widget("past_runs").menu()
    menu.aboutToShow.emit()
    desk.report["menu"] = [action.text() for action in menu.actions()]
    menu.actions()[0].trigger()
    yield lambda: desk.widget("run").isEnabled()
    yield lambda: desk.canvas.layers() and not desk.canvas.isDrawing()
    settings = desk.dock.form.settings()
    desk.report |= {
        "drawn": list(settings.zone.bounds),
        "layer": settings.layer_name,
        "results": [(_told(desk, layer)["count"], _told(desk, layer)["group"]) for layer in _results(desk)],
        "view": _bounds(desk.canvas.extent()),
    }
    desk.shot("past")
    for layer in desk.project.mapLayers().values():
        layer.setCustomProperty("skipMemoryLayersCheck", 1)


def pictures(desk):
    """The README's pictures: a run that goes on, its result from near, and the result under review."""
    window = desk.iface.mainWindow()
    window.resize(1240, 780)
    desk.project.write(os.environ["RS4D_DESK_FOLDER"] + "/suburb.qgz")
    yield from _ready(desk, "suburb")
    for dock in window.findChildren(QDockWidget):
        if dock.windowTitle() == "Browser":
            dock.close()
    window.resizeDocks(window.findChildren(QDockWidget, "Layers"), [210], Qt.Orientation.Horizontal)
    window.resizeDocks([desk.dock], [350], Qt.Orientation.Horizontal)
    yield lambda: not desk.canvas.isDrawing()
    desk.canvas.setExtent(QgsRectangle(440_100, 4_639_610, 440_490, 4_639_990))
    yield lambda: not desk.canvas.isDrawing()
    desk.click("draw_extent")
    desk.drag((0.03, 0.05), (0.97, 0.75))
    yield lambda: desk.widget("run").isEnabled()
    desk.click("run")
    yield lambda: desk.widget("progress").value() >= 300
    pause = time.monotonic() + 0.2
    yield lambda: time.monotonic() > pause and not desk.canvas.isDrawing()
    desk.iface.messageBar().clearWidgets()
    desk.shot("running")
    yield lambda: not desk.dock.busy
    (result,) = _results(desk)
    desk.canvas.setExtent(desk.canvas.extent().scaled(0.36, QgsPointXY(440_300, 4_639_880)))
    yield lambda: not desk.canvas.isDrawing()
    pause = time.monotonic() + 0.8
    yield lambda: time.monotonic() > pause and not desk.canvas.isDrawing()
    desk.iface.messageBar().clearWidgets()
    desk.report["found"] = result.featureCount()
    desk.shot("result")
    desk.click("review_result")
    yield lambda: desk.review.isVisible() and desk.review.reviewed is not None
    window.resizeDocks([desk.review], [380], Qt.Orientation.Horizontal)
    yield lambda: not desk.canvas.isDrawing()
    for press in "aaaraaaara":
        QTest.keyClicks(desk.canvas, press)
        yield lambda: not desk.canvas.isDrawing()
    pause = time.monotonic() + 0.8
    yield lambda: time.monotonic() > pause and not desk.canvas.isDrawing()
    desk.iface.messageBar().clearWidgets()
    desk.shot("reviewed")
