"""The review desk in a real QGIS desktop: an analyst with real keys, and QGIS killed while they decide."""

import random
import shutil
import sqlite3
from pathlib import Path

import numpy
import pytest
import rasterio
from pycocotools.coco import COCO
from qgis_desktop import play, play_and_kill
from rasterio.features import rasterize
from shapely import from_wkt

SCENARIOS = Path(__file__).with_name("review_scenarios.py")


@pytest.fixture(scope="module")
def review(segmented_scene, tmp_path_factory):
    """What an analyst's review came to."""
    folder = tmp_path_factory.mktemp("review")
    layer, coco = shutil.copy(segmented_scene.layer, folder / "result.gpkg"), folder / "accepted.json"
    told = play(folder, SCENARIOS, "analyst", SCENE=str(segmented_scene.scene), LAYER=str(layer), COCO=str(coco))
    return {**told, "coco": coco, "layer": layer}


def test_thirty_objects_are_decided_on_by_one_key_each_and_saved_as_they_are(review):
    ids = [item for item, _ in review["decided"]]
    assert len(set(ids)) == 30
    expected = {str(item): {"a": "accepted", "r": "rejected"}[press] for item, press in review["decided"]}
    decided = {item: status for item, status in review["after_keys"].items() if status != "pending"}
    assert decided == expected
    assert review["in_file"] == review["after_keys"]
    number = len(review["after_keys"])
    assert review["told"] == f"31 of {number} in the queue, {number - 30} left"
    assert review["slowest_ms"] < 1000


def test_three_steps_are_undone_edits_and_decisions_alike(review):
    number = len(review["after_keys"])
    assert review["merged"][1] == number - 1
    assert review["split"][1] == number
    last = str(review["decided"][-1][0])
    assert review["after_undo"] == {**review["after_keys"], last: "pending"}
    assert review["count_after_undo"] == number
    assert str(review["current_after_undo"]) == last
    assert review["count_after_redo"] == number


def test_the_cut_hides_and_changes_nothing(review):
    left, kept, waiting = review["left_by_cut"]
    assert 0 < left == kept < waiting
    assert {item: status for item, status in review["after_cut"].items() if item in review["after_keys"]} == {
        item: status for item, status in review["after_keys"].items() if item in review["after_cut"]
    }
    assert review["own_look"] == ["categorizedSymbol", "class"]


def test_the_exported_coco_file_has_the_accepted_polygons_where_they_are(review, segmented_scene):
    coco = COCO(str(review["coco"]))
    (image,) = coco.loadImgs(coco.getImgIds())
    annotations = coco.loadAnns(coco.getAnnIds())
    assert len(annotations) == len(review["accepted"]) > 15
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    with rasterio.open(segmented_scene.scene) as scene:
        assert (image["width"], image["height"]) == (scene.width, scene.height)
        size, transform = (scene.height, scene.width), scene.transform
    left = list(review["accepted"])
    for annotation in annotations:
        mask = coco.annToMask(annotation).astype(bool)

        def iou(accepted, mask=mask, annotation=annotation):
            name, wkt = accepted
            if name != names[annotation["category_id"]]:
                return 0.0
            drawn = rasterize([from_wkt(wkt)], size, transform=transform).astype(bool)
            return (mask & drawn).sum() / max(1, (mask | drawn).sum())

        best = max(left, key=iou)
        # The two rasterizers differ in pixels that an outline crosses.
        assert iou(best) > 0.8
        left.remove(best)
    areas = [from_wkt(wkt).area for _, wkt in review["accepted"]]
    assert numpy.isclose(
        sum(annotation["area"] for annotation in annotations) * abs(transform.a * transform.e), sum(areas), rtol=1e-3
    )


def test_edits_are_saved_on_demand(review):
    assert review["saved"] == "All decisions are saved."
    with sqlite3.connect(review["layer"]) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (accepted,) = file.execute("SELECT count(*) FROM instances WHERE status = 'accepted'").fetchone()
    assert accepted == len(review["accepted"])


def test_killed_at_any_moment_the_file_is_whole_and_the_queue_goes_on(segmented_scene, tmp_path):
    layer = Path(shutil.copy(segmented_scene.layer, tmp_path / "result.gpkg"))
    draw, decided = random.Random(2), 0
    for _ in range(2):
        decided += kill_while_deciding(tmp_path, layer, draw.randint(decided + 3, decided + 12))
    assert decided > 5


def kill_while_deciding(folder: Path, layer: Path, number: int) -> int:
    """Kill QGIS once so many decisions were made in all; see that none of them is lost. Returns how many more."""
    log = folder / "decisions.txt"
    before = len(log.read_text().splitlines()) if log.exists() else 0
    play_and_kill(
        folder,
        SCENARIOS,
        "decides_until_killed",
        lambda: log.exists() and len(log.read_text().splitlines()) >= number,
        LAYER=str(layer),
        DECISIONS=str(log),
    )
    ids = [int(line.split()[0]) for line in log.read_text().splitlines() if line.count(" ") == 1]
    with sqlite3.connect(layer) as file:
        assert file.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        accepted = {item for (item,) in file.execute("SELECT fid FROM instances WHERE status = 'accepted'")}
    assert accepted >= set(ids)
    assert len(ids) == len(set(ids))  # the queue went on with what was not decided yet
    return len(ids) - before
