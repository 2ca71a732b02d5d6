"""A result layer, as a review leaves it, in other formats."""

import json
import shutil
import sqlite3

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pytest
import shapely
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO
from shapely.geometry import MultiPolygon, Polygon

from rs4d_core.datasets.synthetic import generate_scene, truth_features, write_scene
from rs4d_core.errors import LayerError, OptionError, OutputError, SceneError
from rs4d_core.scenes.layers.export import export_layer
from rs4d_core.scenes.writers import Feature, RunRecord, open_writer
from rs4d_core.scenes.writers.shapefile import short_names

CRS = "EPSG:32631"
STATUS = ("accepted", "rejected", "pending")


def record(scene, transform: Affine, **changes) -> RunRecord:
    run, started = RunRecord.new_id()
    fields = {
        "run": run,
        "time": started,
        "model": "perfect",
        "model_sha256": "0" * 64,
        "parameters": {"least_scores": {"ship": 0.5, "building": 0.5, "vehicle": 0.4}},
        "scene": str(scene),
        "scene_width": 300,
        "scene_height": 200,
        "scene_transform": tuple(transform)[:6],
        "device": "cpu",
    }
    return RunRecord(**fields | changes)


def edit(layer, sql: str, rows: list[tuple]) -> None:
    """Change fields, not geometry, of a GeoPackage."""
    with sqlite3.connect(layer) as database:
        # The triggers of the spatial index name functions that only GDAL has. They are not called for a mere field.
        for name in ("ST_IsEmpty", "ST_MinX", "ST_MaxX", "ST_MinY", "ST_MaxY"):
            database.create_function(name, 1, lambda _geometry: None)
        database.executemany(sql, rows)


@pytest.fixture
def reviewed(tmp_path):
    """The truth of a scene as a result layer, with a third accepted, a third rejected, and a third edited."""
    scene = generate_scene(5, 300, 200, 0.5)
    path = tmp_path / "scene.tif"
    transform = write_scene(scene, path)
    truth = truth_features(scene, transform)
    layer = tmp_path / "result.gpkg"
    with open_writer(
        layer, gpd.GeoSeries(crs=CRS).crs.to_wkt(), ("ship",), ("#ff0000",), record(path, transform)
    ) as out:
        out.add(
            [
                Feature(MultiPolygon([shape]), name, (90 - i) / 100, shape.area)
                for i, (name, shape) in enumerate(zip(truth["class"], truth.geometry, strict=True))
            ]
        )
    assert len(truth) >= 6
    rows = [(STATUS[i % 3], i % 3 == 2, i + 1) for i in range(len(truth))]
    edit(layer, "UPDATE instances SET status = ?, edited = ? WHERE fid = ?", rows)
    return layer, path, truth


def read(path) -> gpd.GeoDataFrame:
    if path.suffix == ".parquet":
        return gpd.read_parquet(path)
    return gpd.read_file(path, layer="instances" if path.suffix == ".gpkg" else None)


@pytest.mark.parametrize("suffix", [".gpkg", ".geojson", ".fgb", ".parquet"])
def test_all_fields_reach_every_format(tmp_path, reviewed, suffix):
    layer, _, truth = reviewed
    result = export_layer(layer, tmp_path / f"out{suffix}")
    written = read(result.output)
    assert result.instances == len(written) == len(truth)
    assert result.by_class == truth["class"].value_counts().to_dict()
    source = read(layer).sort_values("score").reset_index(drop=True)
    written = written.to_crs(CRS).sort_values("score").reset_index(drop=True)
    for field in ("class", "score", "status", "edited", "area_m2", "run"):
        assert list(written[field]) == list(source[field])
    # GeoJSON's seven decimals of a degree are a centimetre.
    assert written.geometry.hausdorff_distance(source.geometry).max() < 0.02
    # What was exported can be exported again, and compared.
    assert export_layer(result.output, tmp_path / "again.fgb").instances == len(truth)


def test_only_what_was_accepted(tmp_path, reviewed):
    layer, _, truth = reviewed
    result = export_layer(layer, tmp_path / "out.fgb", accepted=True)
    assert result.instances == -(-len(truth) // 3)
    assert set(read(result.output)["status"]) == {"accepted"}


def test_a_shapefile_tells_what_it_cannot_hold(tmp_path, reviewed):
    layer, _, truth = reviewed
    frame = read(layer)
    frame["classification"], frame["Classificateur"], frame["Größenklasse"] = "a", 1.5, "über 100 m²"
    frame["remark"] = "é" * 200
    frame["seen"] = pd.Timestamp("2026-05-01T12:00:00")
    wide = tmp_path / "wide.gpkg"
    pyogrio.write_dataframe(frame, wide, layer="instances")
    result = export_layer(wide, tmp_path / "out.shp")
    assert result.instances == len(truth)
    written = gpd.read_file(tmp_path / "out.shp")
    assert list(written.columns[6:9]) == ["classifica", "Classifi_1", "Größenkl"]
    assert (written["Größenkl"] == "über 100 m²").all()
    assert (written["remark"] == "é" * 127).all()
    assert written["seen"][0] == "2026-05-01T12:00:00"
    assert written["class"].tolist() == frame["class"].tolist()
    assert written["edited"].astype(bool).tolist() == frame["edited"].tolist()
    assert written.crs == CRS
    assert written.geometry.hausdorff_distance(frame.geometry).max() < 1e-6
    notes = " ".join(result.notes)
    for said in ("classification is classifica", "Classificateur is Classifi_1", "of remark cut to 254 bytes"):
        assert said in notes
    assert sorted(path.name for path in tmp_path.glob("*out*")) == [
        f"out.{part}" for part in ["cpg", "dbf", "prj", "shp", "shx"]
    ]


@given(st.lists(st.text(min_size=1, max_size=14), unique_by=str.casefold, max_size=30))
def test_short_names_fit_differ_and_keep_what_fits(names):
    short = short_names(names)
    assert list(short) == names
    assert all(0 < len(new.encode()) <= 10 for new in short.values())
    assert len({new.casefold() for new in short.values()}) == len(names)
    assert all(short[name] == name for name in names if len(name.encode()) <= 10)


def test_a_geopackage_keeps_the_record_of_its_runs(tmp_path, reviewed):
    layer, scene, _ = reviewed
    export_layer(layer, tmp_path / "out.gpkg", accepted=True)
    before, after = (pyogrio.read_dataframe(path, layer="runs") for path in (layer, tmp_path / "out.gpkg"))
    pd.testing.assert_frame_equal(before, after)
    assert after["scene"].tolist() == [str(scene)]
    assert pyogrio.list_layers(tmp_path / "out.gpkg").tolist() == [["instances", "MultiPolygon"], ["runs", None]]


def test_coco_in_pixels_of_the_scene(tmp_path, reviewed):
    layer, scene, _ = reviewed
    # A courtyard is cut open, since COCO's polygons have no holes.
    result = export_layer(layer, tmp_path / "out.json")
    coco = json.loads(result.output.read_text())
    assert (coco["images"][0]["width"], coco["images"][0]["height"]) == (300, 200)
    assert [category["name"] for category in coco["categories"]][:3] == ["ship", "building", "vehicle"]
    assert coco["info"]["run"]["scene"] == str(scene)
    names = {category["id"]: category["name"] for category in coco["categories"]}
    source = read(layer)
    index = COCO(result.output)
    for annotation, (_, row) in zip(coco["annotations"], source.iterrows(), strict=True):
        assert names[annotation["category_id"]] == row["class"]
        assert (annotation["status"], annotation["edited"]) == (row["status"], row["edited"])
        assert annotation["area"] == pytest.approx(row.geometry.area / 0.25, rel=1e-3)
        assert index.annToMask(annotation).sum() == pytest.approx(annotation["area"], abs=30, rel=0.2)


def test_coco_of_a_scene_that_was_moved(tmp_path, reviewed):
    layer, scene, truth = reviewed
    moved = tmp_path / "moved.tif"
    shutil.move(scene, moved)
    with pytest.raises(SceneError, match=r"scene\.tif"):
        export_layer(layer, tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
    assert export_layer(layer, tmp_path / "out.json", scene=moved).instances == len(truth)
    elsewhere = tmp_path / "elsewhere.tif"
    write_scene(generate_scene(5, 300, 200, 0.5), elsewhere, transform=Affine(0.5, 0, 0, 0, -0.5, 0))
    with pytest.raises(LayerError, match=f"{len(truth)} of {len(truth)} instances outside"):
        export_layer(layer, tmp_path / "out.json", scene=elsewhere)


def test_what_was_drawn_by_hand_may_lack_values(tmp_path, reviewed):
    layer, _, truth = reviewed
    frame = read(layer)
    x, y = frame.geometry[0].centroid.coords[0]
    bow_tie = Polygon([(x, y), (x + 2, y + 2), (x + 2, y), (x, y + 2)])
    drawn = gpd.GeoDataFrame({"class": [None, None]}, geometry=[bow_tie, None], crs=CRS)
    pyogrio.write_dataframe(drawn, layer, layer="instances", append=True, promote_to_multi=True)
    result = export_layer(layer, tmp_path / "out.fgb")
    assert result.instances == len(truth) + 1
    assert any("repaired" in note for note in result.notes)
    written = read(result.output)
    (by_hand,) = written[written["class"].isna()].to_dict("records")
    assert (by_hand["status"], by_hand["edited"]) == ("pending", False)
    assert np.isnan(by_hand["score"])
    assert shapely.is_valid(by_hand["geometry"])
    with pytest.raises(LayerError, match="1 instance without a class"):
        export_layer(layer, tmp_path / "out.json")


def test_a_layer_of_nothing_is_written_all_the_same(tmp_path, reviewed):
    layer, _, _ = reviewed
    edit(layer, "UPDATE instances SET status = ?", [("rejected",)])
    for suffix in (".gpkg", ".geojson", ".fgb", ".parquet", ".json"):
        assert export_layer(layer, tmp_path / f"out{suffix}", accepted=True).instances == 0


def test_refusals(tmp_path, reviewed):
    layer, _, truth = reviewed
    foreign = tmp_path / "foreign.gpkg"
    truth.to_file(foreign)
    with pytest.raises(LayerError, match="lacks score, status"):
        export_layer(foreign, tmp_path / "out.fgb")
    with pytest.raises(OptionError, match=r"'\.dxf'"):
        export_layer(layer, tmp_path / "out.dxf")
    (tmp_path / "half.dbf").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"half\.dbf is there already"):
        export_layer(layer, tmp_path / "half.shp")
    assert sorted(path.name for path in tmp_path.glob("*half*")) == ["half.dbf"]
    with pytest.raises(OutputError, match="does not exist"):
        export_layer(layer, tmp_path / "nowhere" / "out.fgb")
    export_layer(layer, tmp_path / "out.geojson")
    with pytest.raises(LayerError, match="no record of its runs"):
        export_layer(tmp_path / "out.geojson", tmp_path / "out.json")
    # Its pixels are all that is asked of a scene: a layer that no run has made can go by one that is named.
    named = export_layer(tmp_path / "out.geojson", tmp_path / "out.json", scene=reviewed[1])
    assert named.instances == len(truth)
    image = json.loads(named.output.read_text())["images"][0]
    assert (image["file_name"], image["width"], image["height"]) == ("scene.tif", 300, 200)
    before = foreign.read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        export_layer(layer, foreign)
    assert foreign.read_bytes() == before
