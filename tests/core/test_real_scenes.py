"""Real scenes from file to layer: valid outlines in the scene's CRS, with the right area, and none where no data is."""

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import rasterio.features
import torch
from perfect import ColorPredictor, instances
from pyproj import CRS, Geod

from rs4d_core.models.instances import Instances, MaskPatch
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene

RADIUS_PX = 25


class Discs(ColorPredictor):
    """Finds a disc in the middle of every window, whatever the window shows."""

    def predict(self, images: torch.Tensor, least_scores: torch.Tensor) -> list[Instances]:
        y, x = np.mgrid[: 2 * RADIUS_PX, : 2 * RADIUS_PX] + 0.5 - RADIUS_PX
        disc = torch.from_numpy(np.clip(RADIUS_PX - np.hypot(x, y) + 0.5, 0, 1).astype(np.float32))
        height, width = images.shape[2:]
        left, top = width / 2 - RADIUS_PX, height / 2 - RADIUS_PX
        box = (left, top, left + 2 * RADIUS_PX, top + 2 * RADIUS_PX)
        return [instances([MaskPatch(disc, box)], [0], np.array([0.9])) for _ in images]


@pytest.mark.parametrize(
    ("name", "resolution_m"),
    [
        ("buildings/kampala/scene_epsg3857.tif", 0.5),
        ("scenes/naip_nd_2020.tif", 1.25),
        ("scenes/rasterio_RGB.byte.tif", 300.0),
        ("scenes/umbra_mount_yasur.tiff", 1.0),
    ],
)
def test_a_real_scene_becomes_a_layer(data_folder, tmp_path, name, resolution_m):
    output = tmp_path / "found.gpkg"
    predictor = Discs(window_px=160, overlap_px=16, resolution_m=(resolution_m, resolution_m))
    result = segment_scene(data_folder / name, output, predictor, SegmentOptions())
    layer = gpd.read_file(output, layer="instances")
    assert len(layer) == result.instances > 0
    assert layer.geometry.is_valid.all()
    with rasterio.open(data_folder / name) as scene:
        assert layer.crs == CRS.from_wkt(scene.crs.to_wkt())
        mask = scene.dataset_mask()
        transform = scene.transform
    # A disc that no edge and no missing data cuts has its area on the ground, whatever the CRS makes of it.
    whole = np.pi * (RADIUS_PX * resolution_m) ** 2
    assert layer["area_m2"].max() == pytest.approx(whole, rel=0.03)
    ellipsoid = Geod(ellps="WGS84")
    measured = layer.to_crs("EPSG:4326").geometry.map(lambda shape: abs(ellipsoid.geometry_area_perimeter(shape)[0]))
    assert layer["area_m2"].to_numpy() == pytest.approx(measured.to_numpy(), rel=2e-3)
    # An outline may run half a grid pixel beyond the data, and a grid pixel is up to two of the scene's.
    inner = layer.buffer(-2 * max(abs(transform.a), abs(transform.e)))
    inside = rasterio.features.geometry_mask(inner, mask.shape, transform, invert=True)
    assert inside.any()
    assert mask[inside].all()
