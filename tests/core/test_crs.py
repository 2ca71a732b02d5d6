"""The same ground gives the same polygons on the ground, whatever grid and CRS a scene comes in."""

import geopandas as gpd
import numpy as np
import pytest
import shapely
from affine import Affine
from perfect import ColorPredictor, write_raster
from pyproj import CRS, Transformer
from shapely import affinity, box

from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

GROUND = "EPSG:26918"  # metres; truth is drawn here
WEST, NORTH = 585_800.0, 4_512_000.0
SIDE_M = 200.0
SITE_GRID = """PROJCS["site grid",GEOGCS["site",DATUM["site",SPHEROID["GRS 1980",6378137,298.257222101]],
PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Transverse_Mercator"],
PARAMETER["latitude_of_origin",40.7],PARAMETER["central_meridian",-73.9],PARAMETER["scale_factor",1],
PARAMETER["false_easting",1000],PARAMETER["false_northing",5000],UNIT["metre",1]]"""

# On the ground, one a class: a court wider than a window, a turned roof, a tank.
SHAPES = [
    affinity.translate(box(20, -185, 180, -95) - box(50, -160, 150, -120), WEST, NORTH),
    affinity.translate(affinity.rotate(box(40, -80, 120, -30), 30), WEST, NORTH),
    affinity.translate(shapely.Point(155, -45).buffer(28, quad_segs=32), WEST, NORTH),
]


def grids() -> dict[str, tuple[str, float, float, float]]:
    """CRS, width and height of a pixel in its units, and by how many degrees the grid is turned."""
    return {
        "utm": (GROUND, 0.5, 0.5, 0.0),
        "degrees": ("EPSG:4326", 5e-6, 5e-6, 0.0),
        "feet": ("EPSG:2263", 1.5, 1.5, 0.0),
        "rotated": (GROUND, 0.5, 0.5, 25.0),
        "custom": (SITE_GRID, 0.6, 0.6, 0.0),
    }


def scene_on(grid: tuple[str, float, float, float], path):
    """The ground, sampled 3 x 3 times a pixel of the grid."""
    crs, pixel_width, pixel_height, angle = grid
    to_crs = Transformer.from_crs(GROUND, crs, always_xy=True)
    edge = shapely.segmentize(box(WEST, NORTH - SIDE_M, WEST + SIDE_M, NORTH), 20).exterior.coords
    x, y = to_crs.transform(*np.array(edge).T)
    turn = Affine.rotation(angle, (x.mean(), y.mean()))
    u, v = ~turn @ (x, y)
    transform = turn @ Affine.translation(u.min(), v.max()) @ Affine.scale(pixel_width, -pixel_height)
    width, height = int((u.max() - u.min()) / pixel_width) + 1, int((v.max() - v.min()) / pixel_height) + 1
    column, row = np.meshgrid((np.arange(width * 3) + 0.5) / 3, (np.arange(height * 3) + 0.5) / 3)
    ground_x, ground_y = Transformer.from_crs(crs, GROUND, always_xy=True).transform(*(transform @ (column, row)))
    covered = [shapely.contains_xy(shape, ground_x, ground_y).reshape(height, 3, width, 3) for shape in SHAPES]
    picture = np.stack([255 * share.mean(axis=(1, 3)) for share in covered]).astype(np.uint8)
    return write_raster(path, picture, crs, transform)


@pytest.mark.parametrize("name", grids())
def test_the_same_ground_gives_the_same_polygons(name, tmp_path):
    scene = scene_on(grids()[name], tmp_path / "scene.tif")
    predictor = ColorPredictor(window_px=256, overlap_px=64, resolution_m=(0.5, 0.5))
    segment_scene(scene, tmp_path / "found.gpkg", predictor, SegmentOptions())
    found = gpd.read_file(tmp_path / "found.gpkg", layer="instances")
    assert found.crs == CRS(grids()[name][0])
    assert found.geometry.is_valid.all()
    found = found.to_crs(GROUND).set_index("class").loc[list(predictor.classes)]
    for truth, geometry, area_m2 in zip(SHAPES, found.geometry, found["area_m2"], strict=True):
        assert truth.symmetric_difference(geometry).area < 0.01 * truth.area
        assert area_m2 == pytest.approx(truth.area, rel=0.01)
