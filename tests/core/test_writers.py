"""Writing results: every format whole or not at all, and an older result never lost."""

import json
import math
import os
import shutil
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import CRS

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.scenes.writers import SUFFIXES, Feature, RunRecord, open_writer
from rs4d_core.scenes.writers.coco import without_holes
from rs4d_core.scenes.writers.replacement import Replacement, remove_parts

CLASSES, COLORS = ("ship", "building"), ("#1f78b4", "#e31a1c")
UTM = CRS("EPSG:32633").to_wkt()
NO_CODE = CRS("+proj=tmerc +lat_0=45.1 +lon_0=15.2 +k=0.9999 +x_0=1000 +y_0=2000 +ellps=bessel +units=us-ft").to_wkt()
PIXEL = Affine(0.5, 0.0, 500_000.0, 0.0, -0.5, 5_000_000.0)


def record(run="first", **changes):
    fields = RunRecord(
        run=run,
        time="2024-05-01T10:00:00Z",
        model="rs4d-tiny",
        model_sha256="ab" * 32,
        parameters={"overlap_px": 64, "stretch": None},
        scene="/data/harbour.tif",
        scene_width=400,
        scene_height=300,
        scene_transform=tuple(PIXEL)[:6],
        device="cpu",
    )
    return replace(fields, **changes)


def squares(count, offset=0.0, name="building"):
    """Squares of 10 m, 5 of them 4 m apart with a hole of 4 m."""
    features = []
    for number in range(count):
        x, y = 500_000 + 14.0 * (number % 50) + offset, 4_999_900 - 14.0 * (number // 50)
        hole = [(x + 3, y + 3), (x + 3, y + 7), (x + 7, y + 7), (x + 7, y + 3)]
        shape = shapely.Polygon([(x, y), (x + 10, y), (x + 10, y + 10), (x, y + 10)], [hole])
        features.append(Feature(shapely.MultiPolygon([shape]), name, 0.25 + number / 8 % 0.75, 84.0))
    return features


def write(path, features, run=None, crs=UTM):
    with open_writer(path, crs, CLASSES, COLORS, run or record()) as writer:
        writer.add(features)


def read(path):
    return gpd.read_parquet(path) if path.suffix == ".parquet" else gpd.read_file(path, layer=0)


def runs(path):
    return pyogrio.read_dataframe(path, layer="runs")


def files(folder):
    return sorted(file.name for file in Path(folder).iterdir())


# Formats --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".geojson", ".parquet"])
@pytest.mark.parametrize("crs", [UTM, NO_CODE], ids=["utm", "no code"])
def test_every_format_holds_every_instance(tmp_path, suffix, crs):
    features = squares(6)
    path = tmp_path / f"result{suffix}"
    write(path, features, crs=crs)
    frame = read(path).sort_values("score", ignore_index=True)  # FlatGeobuf sorts by place
    assert list(frame.columns.drop("geometry")) == ["class", "score", "status", "edited", "area_m2", "run"]
    assert frame["class"].tolist() == ["building"] * 6
    assert frame["score"].tolist() == [feature.score for feature in features]
    assert frame["status"].tolist() == ["pending"] * 6
    assert frame["edited"].tolist() == [False] * 6
    assert frame["run"].tolist() == ["first"] * 6
    assert set(frame.geom_type) == {"MultiPolygon"}
    if suffix == ".geojson":
        assert frame.crs == "EPSG:4326"
        frame = frame.to_crs(crs)
    assert frame.crs.equals(CRS(crs), ignore_axis_order=True)
    expected = gpd.GeoSeries([feature.geometry for feature in features], crs=frame.crs)
    assert expected.symmetric_difference(frame.geometry).area.max() < 1.0
    assert files(tmp_path) == [path.name]


def test_the_geopackage_is_version_1_2_indexed_and_keeps_the_run(tmp_path):
    path = tmp_path / "result.gpkg"
    before = squares(1)
    write(path, [replace(before[0], area_m2=math.nan)])
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (10200,)
        kinds = dict(database.execute("SELECT table_name, data_type FROM gpkg_contents"))
        assert kinds == {"instances": "features", "runs": "attributes"}
        assert database.execute("SELECT COUNT(*) FROM rtree_instances_geom").fetchone() == (1,)
        assert database.execute("SELECT area_m2 IS NULL FROM instances").fetchone() == (1,)
    (run,) = runs(path).to_dict("records")
    assert run.pop("seconds") >= 0
    assert json.loads(run.pop("parameters")) == {"overlap_px": 64, "stretch": None}
    assert run == {
        "run": "first",
        "time": "2024-05-01T10:00:00Z",
        "model": "rs4d-tiny",
        "model_sha256": "ab" * 32,
        "scene": "/data/harbour.tif",
        "device": "cpu",
    }


def test_coco_is_in_the_scenes_own_pixels(tmp_path):
    x, y = PIXEL @ (40, 60)
    plain = Feature(shapely.MultiPolygon([shapely.box(x, y - 10, x + 20, y)]), "ship", 0.75, 200.0)
    path = tmp_path / "result.json"
    write(path, [plain, *squares(3)])
    content = json.loads(path.read_text())
    assert content["images"] == [{"id": 1, "file_name": "harbour.tif", "width": 400, "height": 300}]
    assert [(entry["id"], entry["name"], entry["color"]) for entry in content["categories"]] == [
        (1, "ship", "#1f78b4"),
        (2, "building", "#e31a1c"),
    ]
    assert content["info"]["run"]["run"] == "first"
    ship, *holed = content["annotations"]
    assert (ship["id"], ship["image_id"], ship["category_id"], ship["iscrowd"]) == (1, 1, 1, 0)
    assert (ship["bbox"], ship["area"], ship["score"]) == ([40, 60, 40, 20], 800, 0.75)
    assert sorted(zip(ship["segmentation"][0][::2], ship["segmentation"][0][1::2], strict=True)) == [
        (40, 60), (40, 80), (80, 60), (80, 80),
    ]  # fmt: skip
    for annotation in holed:
        pieces = [shapely.Polygon(np.reshape(ring, (-1, 2))) for ring in annotation["segmentation"]]
        assert sum(piece.area for piece in pieces) == pytest.approx(annotation["area"]) == 84 * 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 8)), min_size=0, max_size=12, unique=True))
def test_polygons_without_holes_cover_the_same(cells):
    polygon = shapely.box(0, 0, 30, 30)
    polygon = polygon.difference(shapely.union_all([shapely.box(3 * x, 3 * y, 3 * x + 2, 3 * y + 2) for x, y in cells]))
    pieces = without_holes(polygon)
    assert not any(piece.interiors for piece in pieces)
    assert sum(piece.area for piece in pieces) == pytest.approx(polygon.area)
    assert shapely.union_all(pieces).symmetric_difference(polygon).area < 1e-9


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_found_is_a_result_too(tmp_path, suffix):
    path = tmp_path / f"result{suffix}"
    write(path, [])
    if suffix == ".json":
        assert json.loads(path.read_text())["annotations"] == []
    else:
        assert len(read(path)) == 0
    assert files(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_without_a_crs(tmp_path, suffix):
    path = tmp_path / f"result{suffix}"
    write(path, squares(2), crs=None)
    if suffix == ".json":
        return
    frame = read(path)
    assert frame.geometry.total_bounds.tolist() == [500_000, 4_999_900, 500_024, 4_999_910]
    if suffix != ".geojson":  # which has no way to say so
        assert frame.crs is None
    if suffix == ".gpkg":
        write(path, squares(1), record("second"), crs=None)
        assert len(read(path)) == 3


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_crs_of_a_building_site_leaves_coordinates_as_they_are(tmp_path, suffix):
    path = tmp_path / f"result{suffix}"
    write(path, squares(2), crs='LOCAL_CS["site",UNIT["metre",1]]')
    if suffix != ".json":
        assert read(path).geometry.total_bounds.tolist() == [500_000, 4_999_900, 500_024, 4_999_910]


def test_more_than_a_batch(tmp_path):
    path = tmp_path / "result.gpkg"
    with open_writer(path, UTM, CLASSES, COLORS, record()) as writer:
        for _ in range(5):
            writer.add(squares(900))
        assert writer.count == 4500
    assert len(read(path)) == 4500


def test_unknown_formats_are_refused_with_the_known_ones(tmp_path):
    with pytest.raises(OptionError, match=r"\.gpkg, \.geojson, \.fgb, \.parquet, \.json"):
        open_writer(tmp_path / "result.shp", UTM, CLASSES, COLORS, record())


# Adding to a GeoPackage -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crs", [UTM, NO_CODE], ids=["utm", "no code"])
def test_a_second_run_is_added_and_the_first_kept(tmp_path, crs):
    path = tmp_path / "result.gpkg"
    write(path, squares(3), crs=crs)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE gpkg_contents SET description = 'mine' WHERE table_name = 'instances'")
        database.execute("CREATE TABLE notes (text TEXT)")
    frame = read(path)
    frame.loc[0, "status"] = "accepted"
    frame["remark"] = "checked"
    os.unlink(path)
    pyogrio.write_dataframe(frame, path, layer="instances", geometry_type="MultiPolygon")
    write(path, squares(2, offset=1000.0, name="ship"), record("second"), crs=crs)
    result = read(path)
    assert result["run"].tolist() == ["first"] * 3 + ["second"] * 2
    assert result["status"].tolist() == ["accepted"] + ["pending"] * 4
    assert result["remark"].tolist()[:3] == ["checked"] * 3
    assert runs(path)["run"].tolist() == ["second"]
    write(path, squares(1), record("third"), crs=crs)
    assert runs(path)["run"].tolist() == ["second", "third"]
    assert files(tmp_path) == ["result.gpkg"]


def test_changes_made_while_a_run_goes_on_are_kept(tmp_path):
    """Another program has the file open in write-ahead mode, as QGIS does, and edits it meanwhile."""
    path = tmp_path / "result.gpkg"
    write(path, squares(3))
    editor = sqlite3.connect(path, isolation_level=None)
    editor.execute("PRAGMA journal_mode=WAL")
    with open_writer(path, UTM, CLASSES, COLORS, record("second")) as writer:
        writer.add(squares(2, offset=1000.0))
        editor.execute("UPDATE runs SET device = 'edited' WHERE run = 'first'")
    editor.close()
    assert len(read(path)) == 5
    assert runs(path)["device"].tolist() == ["edited", "cpu"]
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_geopackage_of_rasters_gets_a_layer_and_keeps_its_tiles(tmp_path):
    path = tmp_path / "ortho.gpkg"
    planes = np.full((3, 64, 64), 90, np.uint8)
    options = {"driver": "GPKG", "width": 64, "height": 64, "count": 3, "dtype": "uint8"}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=PIXEL, **options) as file:
        file.write(planes)
    write(path, squares(2))
    assert len(read(path)) == 2
    with rasterio.open(path) as file:
        assert (file.read([1, 2, 3]) == planes).all()


def foreign_files(folder):
    text = folder / "text.gpkg"
    text.write_text("not a database")
    other_crs = folder / "crs.gpkg"
    write(other_crs, squares(2), crs=CRS("EPSG:32634").to_wkt())
    fields = folder / "fields.gpkg"
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM).to_file(fields, layer="instances")
    table = folder / "table.gpkg"
    gpd.GeoDataFrame({"name": ["a"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=UTM).to_file(table, layer="runs")
    disguised = folder / "disguised.gpkg"
    disguised.write_text('{"type": "FeatureCollection", "features": []}')
    return {
        text: "is no GeoPackage",
        disguised: "is no GeoPackage",
        other_crs: "EPSG:32634, and these are in EPSG:32633",
        fields: "lacks class, score",
        table: "lacks run, time",
    }


def test_files_that_cannot_be_added_to_are_refused_at_once_and_intact(tmp_path):
    for path, words in foreign_files(tmp_path).items():
        before = path.read_bytes()
        with pytest.raises(OutputError, match=words) as error:
            open_writer(path, UTM, CLASSES, COLORS, record())
        assert "\n" not in str(error.value)
        assert path.read_bytes() == before
    assert files(tmp_path) == ["crs.gpkg", "disguised.gpkg", "fields.gpkg", "table.gpkg", "text.gpkg"]


# All or nothing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_run_that_fails_leaves_all_as_it_was(tmp_path, suffix):
    path = tmp_path / f"result{suffix}"
    write(path, squares(2))
    before = path.read_bytes()
    with suppress(KeyboardInterrupt), open_writer(path, UTM, CLASSES, COLORS, record("second")) as writer:
        writer.add(squares(2500))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert files(tmp_path) == [path.name]


def test_nothing_appears_under_the_name_before_the_end(tmp_path):
    path = tmp_path / "result.gpkg"
    writer = open_writer(path, UTM, CLASSES, COLORS, record())
    writer.add(squares(2500))
    assert not path.exists()
    writer.close(seconds=12.5)
    assert runs(path)["seconds"].tolist() == [12.5]
    writer.discard()
    writer.close()
    assert len(read(path)) == 2500


def test_other_formats_replace_an_older_result(tmp_path):
    path = tmp_path / "result.fgb"
    write(path, squares(5))
    write(path, squares(2), record("second"))
    assert read(path)["run"].tolist() == ["second"] * 2


def test_who_clears_up_after_a_kill_knows_of_temporary_files_before_they_are_there(tmp_path):
    told = []
    replacement = Replacement(tmp_path / "out.gpkg", lambda name: told.append((name, os.listdir(tmp_path))))
    part = replacement.part(".gpkg")
    part.touch()
    ((name, there),) = told
    assert there == []
    assert all(file.startswith(name) for file in os.listdir(tmp_path))
    remove_parts(tmp_path, name)
    assert os.listdir(tmp_path) == []


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "result.geojson"
    link.symlink_to(tmp_path / "far" / "real.geojson")
    write(link, squares(1))
    assert link.is_symlink()
    assert len(read(tmp_path / "far" / "real.geojson")) == 1


def test_places_that_cannot_be_written_to_are_refused_at_once(tmp_path):
    (tmp_path / "folder.gpkg").mkdir()
    (tmp_path / "file").touch()
    for path, words in (
        (tmp_path / "missing" / "result.gpkg", "does not exist"),
        (tmp_path / "file" / "result.gpkg", "does not exist"),
        (tmp_path / "folder.gpkg", "is a folder"),
        (tmp_path / ("long" * 100) / "result.gpkg", "does not exist"),
        (tmp_path / f"{'long' * 100}.gpkg", "cannot write"),
        (Path("/proc/result.gpkg"), "cannot write"),
    ):
        with pytest.raises(OutputError, match=words):
            open_writer(path, UTM, CLASSES, COLORS, record())


def test_a_read_only_file_or_folder_is_refused_at_once(tmp_path):
    path = tmp_path / "result.gpkg"
    path.touch(mode=0o400)
    if os.access(path, os.W_OK):
        pytest.skip("this user may write to anything")
    with pytest.raises(OutputError, match="read-only"):
        open_writer(path, UTM, CLASSES, COLORS, record())
    path.unlink()
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot write"):
        open_writer(path, UTM, CLASSES, COLORS, record())


def test_parameters_that_json_cannot_hold_are_refused_before_the_run():
    with pytest.raises(ValueError, match="JSON"):
        record(parameters={"score": math.nan})


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("existing", [False, True])
def test_a_full_disk(tiny_disk, suffix, existing):
    path = tiny_disk / f"result{suffix}"
    if existing:
        write(path, squares(20))
    before = {file.name: file.read_bytes() for file in tiny_disk.iterdir()}
    with pytest.raises(OutputError, match="the disk is full") as error:
        write(path, squares(10_000), record("second"))
    assert "\n" not in str(error.value)
    assert {file.name: file.read_bytes() for file in tiny_disk.iterdir()} == before


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".gpkg"])
def test_a_disk_that_is_full_at_the_very_end(tiny_disk, suffix):
    """Room for the instances, none for the file that is made of them."""
    writer = open_writer(tiny_disk / f"result{suffix}", UTM, CLASSES, COLORS, record())
    writer.add(squares(2500))
    (tiny_disk / "other").write_bytes(b"x" * (shutil.disk_usage(tiny_disk).free - 4096))
    with pytest.raises(OutputError, match="the disk is full"):
        writer.close()
    assert files(tiny_disk) == ["other"]
