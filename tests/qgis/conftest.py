"""Fixtures of the tests with real QGIS objects and the real engine, which runs as a process of its own."""

import gc
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from qgis.analysis import QgsNativeAlgorithms
from qgis.core import (
    QgsApplication,
    QgsCoordinateTransform,
    QgsGeometry,
    QgsMapLayer,
    QgsMapRendererJob,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingUtils,
    QgsProject,
    QgsVectorLayer,
)
from qgis.PyQt import sip
from qgis.PyQt.QtCore import QCoreApplication, QEvent, QObject
from qgis.PyQt.QtWidgets import QApplication, QMainWindow

from rs4d_qgis.engine.tasks import end_tasks
from rs4d_qgis.review.keeping.keeper import let_go_of_left_edits

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".venv" / "bin" / "python"
os.environ.setdefault("RS4D_ENGINE_PYTHON", str(ENGINE_PYTHON))

_MODEL = """
import sys
from pathlib import Path
from small_model import write_untrained_model
write_untrained_model(Path(sys.argv[1]))
"""
# Generated scenes, each: path; seed, width, height, metres a pixel; CRS; transform.
_SCENES = """
import json, sys
from pathlib import Path
from affine import Affine
from rs4d_core.datasets.synthetic import generate_scene, write_scene
for path, size, crs, transform in json.load(sys.stdin):
    write_scene(generate_scene(*size), Path(path), crs, Affine(*transform))
"""


def run_engine_python(code: str, *arguments: object, stdin: str = "") -> str:
    """What `code` prints in the engine's Python, in an environment that is not QGIS's."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PROJ_"))}
    environment["PYTHONPATH"] = str(ROOT / "tests" / "core")
    return subprocess.run(
        [ENGINE_PYTHON, "-c", code, *map(str, arguments)],
        env=environment,
        check=True,
        input=stdin,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


@pytest.fixture(scope="session")
def untrained_model(tmp_path_factory) -> Path:
    """A small model file that finds noise: a few boxes in each window of 128 pixels, of ships and vehicles."""
    path = tmp_path_factory.mktemp("model") / "untrained.safetensors"
    run_engine_python(_MODEL, path)
    return path


def write_generated_scenes(scenes: list[tuple[Path, tuple, str, tuple]]) -> None:
    """GeoTIFFs, each of: its path; (seed, width, height, metres a pixel); CRS; transform a, b, c, d, e, f."""
    run_engine_python(_SCENES, stdin=json.dumps([(str(path), *rest) for path, *rest in scenes]))


@pytest.fixture(scope="session")
def utm_scene(tmp_path_factory) -> Path:
    """A generated scene of 320 x 256 pixels of 0.5 m, in EPSG:32631."""
    path = tmp_path_factory.mktemp("utm") / "scene.tif"
    place = (0.5, 0.0, 440_000.0, 0.0, -0.5, 4_640_000.0)
    write_generated_scenes([(path, (7, 320, 256, 0.5), "EPSG:32631", place)])
    return path


@pytest.fixture(scope="session")
def segment(provider, untrained_model):
    """Runs `rs4d:segment` on a layer or file with the untrained model, and gives its results and what it told."""

    def run(source, feedback=None, **parameters):
        algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:segment")
        context = QgsProcessingContext()
        context.setProject(QgsProject.instance())
        feedback = feedback or QgsProcessingFeedback()
        parameters = {"INPUT": source, "MODEL": str(untrained_model), "OUTPUT": "TEMPORARY_OUTPUT", **parameters}
        results, ok = algorithm.run(parameters, context, feedback)
        told = feedback.textLog()
        assert ok, told
        layer = QgsProcessingUtils.mapLayerFromString(results["OUTPUT"], context) if "OUTPUT" in results else None
        if layer is not None:
            context.temporaryLayerStore().takeMapLayer(layer)
        return Segmented(results, told, layer)

    return run


@pytest.fixture(autouse=True, scope="session")
def nothing_left(qgis_app, request):
    """At its exit, QGIS crashes over work that is still on, and over layers and jobs that Python deletes only then."""
    yield
    end_tasks()
    let_go_of_left_edits()
    QgsProject.instance().clear()
    for widget in QApplication.topLevelWidgets():
        if not isinstance(widget, QMainWindow):  # pytest-qgis's own
            widget.deleteLater()
    for _ in range(2):  # what is deleted may let go of more
        QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)
        QCoreApplication.processEvents()
        gc.collect()
    kinds = (QgsMapLayer, QgsMapRendererJob)
    left = [
        each
        for each in gc.get_objects()
        if (isinstance(each, kinds) or (isinstance(each, QObject) and type(each).__module__.startswith("rs4d_qgis")))
        and not sip.isdeleted(each)
        and sip.ispyowned(each)
    ]
    last = [id(value) for value in request.session.items[-1].funcargs.values()]
    # Layers may be left: QGIS keeps the traceback of an algorithm's refusal for good, and so what its frames had.
    names = [type(each).__name__ for each in left if id(each) not in last and not isinstance(each, QgsMapLayer)]
    for each in left:
        sip.delete(each)
    # The traceback of a test that has failed holds what the test had.
    assert request.session.testsfailed or not names, f"alive after the last test: {names}"


@dataclass
class Segmented:
    """What a run of `rs4d:segment` gave."""

    results: dict
    told: str
    layer: QgsVectorLayer

    @property
    def shapes(self) -> list[tuple[str, float, bytes]]:
        """Class, score and exact outline of all instances, sorted."""
        return sorted((f["class"], f["score"], bytes(f.geometry().asWkb())) for f in self.layer.getFeatures())


def assert_same_place(some: Segmented, others: Segmented, least_iou: float = 0.97) -> None:
    """Every instance of each has one of its class in the other that covers the same ground."""
    transform = QgsCoordinateTransform(others.layer.crs(), some.layer.crs(), QgsProject.instance())

    def placed(feature):
        geometry = feature.geometry()
        geometry.transform(transform)
        return feature["class"], geometry

    here = [(feature["class"], feature.geometry()) for feature in some.layer.getFeatures()]
    there = [placed(feature) for feature in others.layer.getFeatures()]
    assert len(here) == len(there) > 0
    for name, shape in here:
        ious = [iou(shape, other) for kind, other in there if kind == name and shape.intersects(other)]
        assert max(ious, default=0.0) >= least_iou


def iou(a: QgsGeometry, b: QgsGeometry) -> float:
    """Of two polygons, 0..1."""
    common = a.intersection(b).area()
    return common / (a.area() + b.area() - common)


@pytest.fixture(scope="session")
def provider(qgis_app):
    """The algorithms, as the plugin adds them to QGIS. The engine that they start ends with the tests."""
    from rs4d_qgis.engine.client import engine_client
    from rs4d_qgis.provider import RS4DProvider

    provider = RS4DProvider()
    registry = QgsApplication.processingRegistry()
    registry.addProvider(provider)
    if registry.providerById("native") is None:
        registry.addProvider(QgsNativeAlgorithms(registry))
    yield provider
    engine_client().close()
    QgsApplication.processingRegistry().removeProvider(provider)


def run_processing(name: str, parameters: dict, feedback=None) -> tuple[dict, bool, QgsProcessingContext]:
    """Runs an algorithm as the toolbox does. Layers in memory live as long as the context."""
    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    algorithm = QgsApplication.processingRegistry().algorithmById(name)
    results, ok = algorithm.run(parameters, context, feedback or QgsProcessingFeedback())
    return results, ok, context
