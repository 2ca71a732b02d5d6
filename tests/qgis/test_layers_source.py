"""Raster layers in files: read in place, in the right place."""

import json
import math
import zipfile
from pathlib import Path

import pytest
from conftest import run_engine_python, write_generated_scenes
from osgeo import gdal, osr
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProject,
    QgsRasterLayer,
    QgsRasterRange,
    QgsRectangle,
    QgsReferencedRectangle,
)

from rs4d_qgis.algorithms.feedback import RunFeedback
from rs4d_qgis.layers.no_crs import real_crs
from rs4d_qgis.layers.source import ground_resolution_m, local_file, scene_source

DEGREES = 0.5 / 111_320
# Where a scene of 320 x 256 pixels lies: its CRS and transform.
PLACES = {
    "utm": ("EPSG:32631", (0.5, 0.0, 440_000.0, 0.0, -0.5, 4_640_000.0)),
    "mercator": ("EPSG:3857", (0.7, 0.0, 261_000.0, 0.0, -0.7, 5_160_000.0)),
    "degrees": ("EPSG:4326", (DEGREES / math.cos(math.radians(42)), 0.0, 2.3, 0.0, -DEGREES, 42.0)),
    "feet": ("EPSG:2263", (1.6, 0.0, 990_000.0, 0.0, -1.6, 210_000.0)),
    "rotated": ("EPSG:32631", (0.43, 0.25, 440_000.0, 0.25, -0.43, 4_640_000.0)),
}
_ENGINE_RESOLUTIONS = """
import json, sys
from rs4d_core.scenes.reading.scene import Scene
print(json.dumps([Scene.open(path).resolution_m for path in sys.argv[1:]]))
"""


@pytest.fixture(scope="module")
def placed_scenes(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("placed")
    paths = {name: folder / f"{name}.tif" for name in PLACES}
    write_generated_scenes([(paths[name], (7, 320, 256, 0.5), *place) for name, place in PLACES.items()])
    return paths


@pytest.fixture(params=PLACES)
def placed_scene(request, placed_scenes) -> Path:
    return placed_scenes[request.param]


def raster(source: object) -> QgsRasterLayer:
    layer = QgsRasterLayer(str(source), "scene")
    assert layer.isValid()
    return layer


def on_the_ground(path: Path, shape) -> bool:
    """Whether a polygon lies on the pixels of a file, save for what the model's grid sticks out of it."""
    dataset = gdal.Open(str(path))
    inverse = gdal.InvGeoTransform(dataset.GetGeoTransform())
    return all(
        -0.01 <= col <= dataset.RasterXSize + 1.5 and -0.01 <= row <= dataset.RasterYSize + 1.5
        for col, row in (gdal.ApplyGeoTransform(inverse, vertex.x(), vertex.y()) for vertex in shape.vertices())
    )


def test_polygons_lie_on_the_scene_in_any_crs(placed_scene, segment):
    layer = raster(placed_scene)
    result = segment(layer, RESOLUTION=0.5)
    assert result.layer.featureCount() > 0
    assert result.layer.crs() == layer.crs()
    assert all(on_the_ground(placed_scene, f.geometry()) for f in result.layer.getFeatures())
    areas = [(f["area_m2"], f.geometry()) for f in result.layer.getFeatures()]
    assert all(0 < area < 320 * 256 * 0.25 for area, _ in areas)


def test_the_resolution_is_the_engine_s(placed_scenes, qgis_app):
    engines = json.loads(run_engine_python(_ENGINE_RESOLUTIONS, *placed_scenes.values()))
    for (name, path), engine_m in zip(placed_scenes.items(), engines, strict=True):
        # QGIS shows a turned raster on an upright grid, whose pixels are a little different.
        tolerance = 0.15 if name == "rotated" else 1e-3
        assert ground_resolution_m(raster(path)) == pytest.approx(engine_m, rel=tolerance)


def test_the_resolution_is_that_of_the_extent(qgis_app, tmp_path):
    path = str(tmp_path / "world.tif")
    dataset = gdal.GetDriverByName("GTiff").Create(path, 360, 160, 1)
    dataset.SetGeoTransform([-180.0, 1.0, 0.0, 80.0, 0.0, -1.0])
    dataset.SetProjection(_wkt(4326))
    dataset = None
    layer = raster(path)
    north = ground_resolution_m(layer, QgsRectangle(9, 59, 11, 61))
    assert north == pytest.approx(ground_resolution_m(layer) * math.sqrt(0.5), rel=0.01)
    mercator = QgsRectangle(1_000_000, 8_200_000, 1_200_000, 8_400_000)
    assert ground_resolution_m(layer, mercator, QgsCoordinateReferenceSystem("EPSG:3857")) < 0.8 * 111_000


def test_files_are_read_where_they_are(utm_scene, tmp_path):
    assert scene_source(raster(utm_scene), tmp_path).path == str(utm_scene)
    vrt = tmp_path / "on disk.vrt"
    gdal.Translate(str(vrt), str(utm_scene), format="VRT").FlushCache()
    assert scene_source(raster(vrt), tmp_path).path == str(vrt)
    archive = tmp_path / "scene.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(utm_scene, "scene.tif")
    inside = f"/vsizip/{archive}/scene.tif"
    assert scene_source(raster(inside), tmp_path).path == inside
    assert sorted(path.name for path in tmp_path.iterdir()) == ["on disk.vrt", "scene.zip"]


def test_parts_of_files_and_archives_give_the_same_polygons(utm_scene, segment, tmp_path):
    expected = segment(str(utm_scene)).shapes
    archive, package = tmp_path / "scene.zip", tmp_path / "scenes.gpkg"
    with zipfile.ZipFile(archive, "w") as file:
        file.write(utm_scene, "scene.tif")
    assert segment(raster(f"/vsizip/{archive}/scene.tif")).shapes == expected
    for table in ("one", "two"):
        gdal.Translate(
            str(package),
            str(utm_scene),
            format="GPKG",
            creationOptions=[f"RASTER_TABLE={table}", "APPEND_SUBDATASET=YES", "TILE_FORMAT=PNG"],
        ).FlushCache()
    assert segment(raster(f"GPKG:{package}:two")).shapes == expected


def test_what_is_no_file_is_not_read_in_place(qgis_app):
    gdal.GetDriverByName("GTiff").Create("/vsimem/some.tif", 8, 8, 1).FlushCache()
    assert local_file(raster("/vsimem/some.tif")) is None
    gdal.Unlink("/vsimem/some.tif")
    xyz = QgsRasterLayer("type=xyz&url=http://127.0.0.1:9/%7Bz%7D/%7Bx%7D/%7By%7D.png&zmax=19&zmin=0", "tiles", "wms")
    assert local_file(xyz) is None
    assert ground_resolution_m(xyz) is None


def test_a_crs_set_in_qgis_is_honoured(utm_scene, segment):
    layer = raster(utm_scene)
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32632"))
    result = segment(layer)
    assert result.layer.crs().authid() == "EPSG:32632"
    assert [shape for *_, shape in result.shapes] == [shape for *_, shape in segment(str(utm_scene)).shapes]
    assert "EPSG:32632" in result.told


def test_a_crs_given_to_a_picture_without_place_is_honoured(utm_scene, segment, tmp_path):
    picture = tmp_path / "picture.png"
    gdal.Translate(str(picture), str(utm_scene), format="PNG")
    Path(f"{picture}.aux.xml").unlink()
    placeless = segment(raster(picture))
    stored = segment(raster(picture), OUTPUT=str(tmp_path / "placeless.gpkg"))
    assert not real_crs(stored.layer.crs()).isValid()
    assert stored.shapes == placeless.shapes
    assert not placeless.layer.crs().isValid()
    assert raster(picture).extent().buffered(0.01).contains(placeless.layer.extent())
    layer = raster(picture)
    layer.setCrs(QgsCoordinateReferenceSystem("EPSG:32631"))
    placed = segment(layer)
    assert placed.layer.crs().authid() == "EPSG:32631"
    assert layer.extent().buffered(0.01).contains(placed.layer.extent())


def test_a_nodata_value_set_in_qgis_is_honoured(qgis_app, tmp_path):
    path, folder = str(tmp_path / "grey.tif"), tmp_path / "run"
    folder.mkdir()
    gdal.GetDriverByName("GTiff").Create(path, 8, 8, 1).FlushCache()
    layer = raster(path)
    layer.dataProvider().setUserNoDataValue(1, [QgsRasterRange(0.0, 0.0)])
    source = scene_source(layer, folder)
    assert source.temporary
    assert gdal.Open(source.path).GetRasterBand(1).GetNoDataValue() == 0.0


def test_a_scene_placed_by_control_points_lies_where_the_map_shows_it(utm_scene, segment, tmp_path):
    path = tmp_path / "points.tif"
    # A quadratic map, which no affine one follows.
    points = [
        gdal.GCP(440_000 + 0.5 * col + 4e-4 * col * row, 4_640_000 - 0.5 * row - 3e-4 * row * row, 0, col, row)
        for col in (0, 160, 320)
        for row in (0, 128, 256)
    ]
    gdal.Translate(str(path), str(utm_scene), GCPs=points, outputSRS=_wkt(32631))
    layer = raster(path)
    assert layer.crs().authid() == "EPSG:32631"
    result = segment(layer)
    assert result.layer.crs().authid() == "EPSG:32631"
    assert result.layer.featureCount() > 0
    assert layer.extent().buffered(1.0).contains(result.layer.extent())


def test_an_extent_in_another_crs_finds_its_place(utm_scene, segment):
    layer = raster(utm_scene)
    pixels = {"col": 100, "row": 60, "width": 120, "height": 100}
    west, north = 440_000.0 + 50.0, 4_640_000.0 - 30.0
    wanted = QgsRectangle(west, north - 50.0, west + 60.0, north)
    for crs in ("EPSG:32631", "EPSG:4326", "EPSG:3857"):
        shown = QgsCoordinateReferenceSystem(crs)
        there = QgsCoordinateTransform(layer.crs(), shown, QgsProject.instance()).transformBoundingBox(wanted)
        feedback, seen = RunFeedback(False), []
        feedback.runFinished.connect(seen.append)
        segment(layer, feedback, EXTENT=QgsReferencedRectangle(there, shown))
        # The rectangle around a rectangle that is turned by a degree or so is a little larger.
        assert seen[0]["record"]["parameters"]["scene_pixels"] == pytest.approx(pixels, abs=5)


def _wkt(code: int) -> str:
    srs = osr.SpatialReference()
    srs.ImportFromEPSG(code)
    return srs.ExportToWkt()
