"""A result layer in a real QGIS desktop, on a virtual screen."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

# Runs inside QGIS. The map shows the scene below and the instances above, in a colour that no scene has.
SCRIPT = """
import json
from qgis.core import QgsFillSymbol, QgsProject, QgsRasterLayer, QgsSingleSymbolRenderer, QgsVectorLayer
from qgis.utils import iface

scene = QgsRasterLayer({scene!r}, "scene")
layer = QgsVectorLayer({layer!r} + "|layername=instances", "instances", "ogr")
symbol = QgsFillSymbol.createSimple({{"color": "255,0,255", "outline_style": "no"}})
layer.setRenderer(QgsSingleSymbolRenderer(symbol))
QgsProject.instance().addMapLayers([layer, scene])  # the first on top
canvas = iface.mapCanvas()
canvas.setDestinationCrs(layer.crs())
canvas.setExtent(scene.extent())


def finish():
    # The layers reach the canvas some events later than the project, and are drawn in the background.
    if len(canvas.layers()) < 2 or canvas.isDrawing():
        return
    canvas.mapCanvasRefreshed.disconnect(finish)
    canvas.grab().save({picture!r})
    extent = canvas.extent()
    with open({report!r}, "w") as file:
        json.dump(
            {{
                "valid": scene.isValid() and layer.isValid(),
                "features": layer.featureCount(),
                "crs": layer.crs().authid(),
                "covered": sum(feature.geometry().area() for feature in layer.getFeatures()),
                "shown": extent.width() * extent.height(),
            }},
            file,
        )
    QgsProject.instance().clear()
    iface.actionExit().trigger()


canvas.mapCanvasRefreshed.connect(finish)
canvas.refresh()
"""


@pytest.fixture
def qgis_command() -> list[str]:
    missing = [name for name in ("qgis", "xvfb-run") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: ./test.sh desktop installs it")
    return ["xvfb-run", "-a", "-s", "-screen 0 1400x900x24", "qgis", "--nologo", "--noversioncheck"]


def test_the_polygons_of_a_result_are_drawn(tmp_path: Path, qgis_command, segmented_scene):
    picture, report, script = tmp_path / "map.png", tmp_path / "report.json", tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(
            scene=str(segmented_scene.scene), layer=str(segmented_scene.layer), picture=str(picture), report=str(report)
        )
    )
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJ_", "QT_"))}
    done = subprocess.run(
        [*qgis_command, "--profiles-path", tmp_path / "profiles", "--profile", "default", "--code", script],
        env={**environment, "XDG_RUNTIME_DIR": str(runtime)},
        timeout=240,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(report.read_text())
    assert seen["valid"]
    assert seen["features"] == segmented_scene.result["instances"] > 0
    assert seen["crs"] == "EPSG:32631"
    with Image.open(picture) as image:
        colors = image.convert("RGB").getcolors(image.width * image.height)
    magenta = sum(count for count, (red, green, blue) in colors if red > 200 and green < 60 and blue > 200)
    share = magenta / sum(count for count, _ in colors)
    # The border pixels of small objects blend with the ground, and are not counted.
    expected = seen["covered"] / seen["shown"]
    assert 0.5 * expected < share < 1.1 * expected
    assert len(colors) > 1000  # the scene is there too
