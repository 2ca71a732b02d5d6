"""A reviewed layer leaves the desk: as training data, as a report, and with its errors, in the real desktop."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from pycocotools.coco import COCO
from qgis_desktop import play
from shapely import Polygon, union_all

from rs4d_core.datasets.synthetic import generate_scene, truth_features
from rs4d_core.evaluation.layer_metrics import evaluate_layers

SCENARIOS = Path(__file__).with_name("outcome_scenarios.py")


@pytest.fixture(scope="module")
def handed_over(segmented_scene, tmp_path_factory):
    """What was told, and the folder of what was written."""
    folder = tmp_path_factory.mktemp("outcome")
    layer = shutil.copy(segmented_scene.layer, folder / "result.gpkg")
    with rasterio.open(segmented_scene.scene) as scene:
        generated = generate_scene(seed=2_000_000_002, width=640, height=512, resolution_m=0.5)
        truth = truth_features(generated, scene.transform).set_crs(scene.crs, allow_override=True)
    truth.to_crs("EPSG:4326").to_file(folder / "truth.geojson")
    places = {"SCENE": str(segmented_scene.scene), "LAYER": str(layer), "TRUTH": str(folder / "truth.geojson")}
    return play(folder, SCENARIOS, "hands_over", OUT=str(folder), **places), folder


def test_the_exported_chips_hold_the_accepted_polygons(handed_over):
    told, folder = handed_over
    coco = COCO(folder / "chips" / "annotations.json")
    assert told["exported"].startswith("8 objects are in")
    assert told["scene"] == "the one of the run"
    names = {category["id"]: category["name"] for category in coco.dataset["categories"]}
    pieces: dict[tuple[int, str], list] = {}
    for annotation in coco.loadAnns(coco.getAnnIds(iscrowd=False)):
        (image,) = coco.loadImgs(annotation["image_id"])
        assert coco.annToMask(annotation).sum() == pytest.approx(annotation["area"], rel=0.1, abs=15)
        for ring in annotation["segmentation"]:
            corners = [Affine(*image["transform"]) @ tuple(point) for point in np.reshape(ring, (-1, 2))]
            pieces.setdefault((annotation["object"], names[annotation["category_id"]]), []).append(Polygon(corners))
    exported = sorted((name, union_all(parts).area) for (_, name), parts in pieces.items())
    assert [name for name, _ in exported] == [name for name, _ in told["accepted"]]
    assert [area for _, area in exported] == pytest.approx([area for _, area in told["accepted"]], rel=0.01)


def test_the_report_and_the_summary_are_there(handed_over):
    told, folder = handed_over
    assert "report.pdf" in told["reported"]
    assert (folder / "report.pdf").read_bytes().startswith(b"%PDF")
    last = (folder / "summary.csv").read_text(encoding="utf-8-sig").splitlines()[-1].split(",")
    assert last[:5] == ["(all)", "8", str(sum(c.get("pending", 0) for c in told["counts"].values())), "2", last[4]]


def test_the_figures_are_those_of_the_command_line(handed_over):
    told, folder = handed_over
    metrics = evaluate_layers(folder / "result.gpkg", folder / "truth.geojson").overall
    figures = (metrics.ap50, metrics.precision, metrics.recall, metrics.f1, metrics.mean_iou)
    assert told["figures"] == ["All", *(f"{100 * figure:.0f}" for figure in figures), str(metrics.reference)]
    assert [line.split(" ")[0] for line in told["walk"]] == ["1", "2", "3"]
    assert told["kept"] == []  # the errors can be made again: nobody is asked about them
