"""`rs4d:segment` as QGIS runs it: by itself, in models, more than once, cancelled."""

import json
import time

import pytest
from conftest import run_processing
from qgis.core import (
    QgsApplication,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeedback,
    QgsProcessingModelAlgorithm,
    QgsProcessingModelChildAlgorithm,
    QgsProcessingModelChildParameterSource,
    QgsProcessingModelOutput,
    QgsProcessingModelParameter,
    QgsProcessingOutputLayerDefinition,
    QgsProcessingParameterRasterLayer,
    QgsProcessingUtils,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)

from rs4d_qgis.algorithms import ALGORITHMS
from rs4d_qgis.algorithms.feedback import RunFeedback


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_explains_itself(provider, kind):
    algorithm = QgsApplication.processingRegistry().algorithmById(f"rs4d:{kind().name()}")
    assert algorithm.canExecute() == (True, "")
    assert algorithm.shortHelpString()
    assert algorithm.shortDescription()
    assert len(algorithm.tags()) > 5
    assert not algorithm.icon().isNull()
    assert algorithm.group()
    for parameter in algorithm.parameterDefinitions():
        assert len(parameter.help()) > 20, parameter.name()
    assert not algorithm.flags() & QgsProcessingAlgorithm.Flag.FlagNoThreading
    assert algorithm.flags() & QgsProcessingAlgorithm.Flag.FlagSupportsBatch
    assert algorithm.flags() & QgsProcessingAlgorithm.Flag.FlagCanCancel


def test_without_an_engine_it_refuses_and_says_why(provider, monkeypatch, tmp_path):
    monkeypatch.setenv("RS4D_ENGINE_PYTHON", str(tmp_path / "python"))
    algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:segment")
    able, reason = algorithm.canExecute()
    assert not able
    assert str(tmp_path / "python") in reason


def test_a_result_has_the_fields_and_types_of_the_engine_s(utm_scene, segment, tmp_path):
    path = tmp_path / "result.gpkg"
    result = segment(str(utm_scene), OUTPUT=str(path))
    types = {field.name(): field.typeName() for field in result.layer.fields()}
    assert types == {
        "fid": "Integer64",
        "class": "String",
        "score": "Real",
        "status": "String",
        "edited": "Boolean",
        "area_m2": "Real",
        "run": "String",
    }
    for feature in result.layer.getFeatures():
        assert (feature["status"], feature["edited"]) == ("pending", False)
        assert feature["run"] == result.results["RUN"]
        assert feature["area_m2"] == pytest.approx(feature.geometry().area(), rel=2e-3)
    runs = QgsVectorLayer(f"{path}|layername=runs", "runs", "ogr")
    (run,) = runs.getFeatures()
    assert run["run"] == result.results["RUN"]
    assert run["scene"] == str(utm_scene)
    assert json.loads(run["parameters"])["resolution_m"] == pytest.approx(0.5, rel=1e-3)


def test_feedback_tells_polygons_as_they_are_found(utm_scene, segment):
    feedback, events = RunFeedback(False), []
    feedback.layerReady.connect(lambda place: events.append(("layer", place)))
    feedback.instancesFound.connect(lambda features: events.append(("found", features)))
    feedback.progressTold.connect(lambda told: events.append(("progress", told)))
    feedback.runFinished.connect(lambda told: events.append(("finished", told)))
    result = segment(str(utm_scene), feedback)
    kinds = [kind for kind, _ in events if kind != "progress"]
    assert kinds[0] == "layer"
    assert kinds[-1] == "finished"
    assert kinds.count("found") > 1
    fields, crs = events[kinds.index("layer") + [kind for kind, _ in events].index("layer")][1]
    assert crs.authid() == "EPSG:32631"
    assert fields.names() == ["class", "score", "status", "edited", "area_m2", "run"]
    found = [feature for kind, features in events if kind == "found" for feature in features]
    told = sorted((f["class"], f["score"], bytes(f.geometry().asWkb())) for f in found)
    assert told == result.shapes
    fractions = [told["fraction"] for kind, told in events if kind == "progress"]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_only_what_lies_in_an_area_is_found(utm_scene, segment):
    scene = QgsRasterLayer(str(utm_scene), "scene").extent()
    # Two overlapping polygons, in another CRS, as a layer in memory.
    area = QgsVectorLayer("Polygon?crs=EPSG:4326", "area", "memory")
    to_degrees = QgsCoordinateTransform(QgsCoordinateReferenceSystem("EPSG:32631"), area.crs(), QgsProject.instance())
    shapes = []
    for x in (30, 60):
        shape = QgsGeometry.fromPointXY(QgsPointXY(scene.xMinimum() + x, scene.center().y())).buffer(30, 16)
        shapes.append(QgsGeometry(shape))
        shape.transform(to_degrees)
        feature = QgsFeature()
        feature.setGeometry(shape)
        area.dataProvider().addFeatures([feature])
    inside = QgsGeometry.unaryUnion(shapes)
    result = segment(str(utm_scene), AREA=area)
    found = [feature.geometry() for feature in result.layer.getFeatures()]
    assert found
    assert all(shape.intersection(inside).area() > 0.4 * shape.area() for shape in found)
    assert result.layer.featureCount() < segment(str(utm_scene)).layer.featureCount()


def test_classes_score_and_bands_reach_the_engine(utm_scene, segment):
    everything = segment(str(utm_scene)).shapes
    ships = segment(str(utm_scene), CLASSES="Ship").shapes
    assert {shape[0] for shape in ships} == {"ship"}
    score = sorted(shape[1] for shape in everything)[len(everything) // 2]
    assert all(shape[1] >= score for shape in segment(str(utm_scene), SCORE=score).shapes)
    assert segment(str(utm_scene), BANDS=[3, 2, 1]).shapes != everything
    assert segment(str(utm_scene), BANDS=[1, 2, 3]).shapes == everything


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"WINDOW": 100}, "multiple of 32"),
        ({"WINDOW": 64, "OVERLAP": 64}, "not smaller"),
        ({"BANDS": [1, 2]}, "three"),
        ({"MODEL": "/nowhere/model.safetensors"}, "no file /nowhere/model.safetensors"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_before_the_run(provider, utm_scene, wrong, says):
    algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:segment")
    parameters = {"INPUT": str(utm_scene), "OUTPUT": "TEMPORARY_OUTPUT", **wrong}
    ok, reason = algorithm.checkParameterValues(parameters, QgsProcessingContext())
    assert not ok
    assert says in reason


def test_the_engine_s_refusal_is_told_in_its_words(provider, utm_scene, untrained_model):
    feedback = QgsProcessingFeedback()
    _, ok, _ = run_processing(
        "rs4d:segment",
        {"INPUT": str(utm_scene), "MODEL": str(untrained_model), "CLASSES": "zebra", "OUTPUT": "TEMPORARY_OUTPUT"},
        feedback,
    )
    assert not ok
    assert "class 'zebra' is not known to model untrained: it finds ship, vehicle" in feedback.textLog()


class CancelInTheMiddle(RunFeedback):
    """Cancels the run when a third of its windows is done."""

    def __init__(self):
        super().__init__(False)
        self.cancelled_at = 0.0
        self.progressTold.connect(self._stop)

    def _stop(self, told):
        if not self.isCanceled() and told.get("windows_done", 0) > told.get("windows", 0) / 3:
            self.cancelled_at = time.monotonic()
            self.cancel()


def test_a_cancelled_run_answers_soon_and_keeps_what_it_found(utm_scene, segment, tmp_path, soon_s):
    path, feedback, seen = tmp_path / "partial.gpkg", CancelInTheMiddle(), []
    feedback.runFinished.connect(seen.append)
    result = segment(str(utm_scene), feedback, OUTPUT=str(path), WINDOW=64, OVERLAP=32)
    assert time.monotonic() - feedback.cancelled_at < soon_s
    assert seen[0]["interrupted"]
    assert 0 < seen[0]["windows"] < seen[0]["windows_total"]
    kept = QgsVectorLayer(str(path), "kept", "ogr")
    assert kept.featureCount() == seen[0]["instances"] == result.results["INSTANCES"] > 0


def test_what_a_cancelled_run_found_in_memory_is_saved(utm_scene, segment):
    result = segment(str(utm_scene), CancelInTheMiddle(), WINDOW=64, OVERLAP=32)
    (line,) = [line for line in result.told.splitlines() if "what was found so far is in" in line]
    saved = QgsVectorLayer(line.split(" is in ")[1], "saved", "ogr")
    assert saved.featureCount() == result.layer.featureCount() > 0


def test_runs_one_after_the_other_as_in_batch_mode(utm_scene, segment, tmp_path):
    first = segment(str(utm_scene), OUTPUT=str(tmp_path / "one.gpkg"))
    second = segment(str(utm_scene), OUTPUT=str(tmp_path / "two.shp"))
    assert second.layer.featureCount() == len(first.shapes)
    assert first.results["RUN"] != second.results["RUN"]


def test_as_a_step_of_a_model(utm_scene, untrained_model, segment):
    """A model that keeps the ships of what our algorithm finds in the model's input."""
    model = QgsProcessingModelAlgorithm("ships", "test")
    model.addModelParameter(QgsProcessingParameterRasterLayer("SCENE"), QgsProcessingModelParameter("SCENE"))
    source = QgsProcessingModelChildParameterSource
    find = QgsProcessingModelChildAlgorithm("rs4d:segment")
    find.setChildId("find")
    find.addParameterSources("INPUT", [source.fromModelParameter("SCENE")])
    find.addParameterSources("MODEL", [source.fromStaticValue(str(untrained_model))])
    model.addChildAlgorithm(find)
    filtered = QgsProcessingModelChildAlgorithm("native:extractbyexpression")
    filtered.setChildId("choose")
    filtered.addParameterSources("INPUT", [source.fromChildOutput("find", "OUTPUT")])
    filtered.addParameterSources("EXPRESSION", [source.fromStaticValue("\"class\" = 'ship'")])
    output = QgsProcessingModelOutput("ships")
    output.setChildOutputName("OUTPUT")
    filtered.setModelOutputs({"ships": output})
    model.addChildAlgorithm(filtered)

    context = QgsProcessingContext()
    context.setProject(QgsProject.instance())
    feedback = QgsProcessingFeedback()
    results, ok = model.run({"SCENE": str(utm_scene), "choose:ships": "TEMPORARY_OUTPUT"}, context, feedback)
    assert ok, feedback.textLog()
    ships = QgsProcessingUtils.mapLayerFromString(results["choose:ships"], context)
    expected = [shape for shape in segment(str(utm_scene)).shapes if shape[0] == "ship"]
    found = sorted((f["class"], f["score"], bytes(f.geometry().asWkb())) for f in ships.getFeatures())
    assert found == expected


def test_a_loaded_result_is_styled_grouped_and_knows_its_run(utm_scene, segment, untrained_model):
    """What the toolbox does when it has run an algorithm."""
    from processing.gui.Postprocessing import handleAlgorithmResults

    project = QgsProject.instance()
    parameters = {
        "INPUT": str(utm_scene),
        "MODEL": str(untrained_model),
        "OUTPUT": QgsProcessingOutputLayerDefinition("TEMPORARY_OUTPUT", project),
    }
    context, feedback = QgsProcessingContext(), QgsProcessingFeedback()
    context.setProject(project)
    algorithm = QgsApplication.processingRegistry().algorithmById("rs4d:segment")
    results, ok = algorithm.run(parameters, context, feedback)
    assert ok, feedback.textLog()
    assert handleAlgorithmResults(algorithm, context, feedback, parameters=parameters)
    try:
        layer = project.mapLayer(results["OUTPUT"])
        categories = {c.value(): c.symbol().symbolLayer(0).strokeColor().name() for c in layer.renderer().categories()}
        assert categories["ship"] == "#e41a1c"
        assert layer.labeling().settings().minimumScale == 1000
        group = project.layerTreeRoot().findLayer(layer.id()).parent()
        assert group.name().startswith("scene, ")
        assert layer.name().startswith("scene instances ")
        assert layer.metadata().identifier() == results["RUN"]
        assert any("SHA-256" in line for line in layer.metadata().history())
    finally:
        project.clear()
