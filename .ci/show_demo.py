"""Runs inside QGIS, for `./run.sh --qgis`: the demo scene on the map, and the panel open beside it."""

import os
from pathlib import Path

from qgis.core import QgsProject, QgsRasterLayer
from qgis.utils import iface, plugins

scene = QgsRasterLayer(os.environ["RS4D_DEMO_SCENE"], Path(os.environ["RS4D_DEMO_SCENE"]).stem)
QgsProject.instance().addMapLayer(scene)
iface.setActiveLayer(scene)
iface.mapCanvas().setDestinationCrs(scene.crs())
iface.zoomToActiveLayer()
plugins["rs4d_qgis"].show_panel()
