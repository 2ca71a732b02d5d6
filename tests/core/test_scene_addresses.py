"""Scenes at an address: only what is looked at travels, trouble is told in one line, and no secret is told at all."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from perfect import ColorPredictor, cover, paint, write_raster
from range_server import RangeServer
from shapely import box

from rs4d_core.errors import SceneError
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.reading import addresses
from rs4d_core.scenes.reading.scene import Scene

UTM = "EPSG:32636"
PLACE = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)
SIDE = 2048
# Metres from the upper left corner: 200 x 150 pixels.
PART = (450_300.0, 39_625.0, 450_400.0, 39_700.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Cloud Optimized GeoTIFF that cannot be compressed, with one red square in the part, and copies of it."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "page.html").write_text("<p>Please sign in.")
    picture = np.random.default_rng(0).integers(0, 60, (3, SIDE, SIDE), dtype=np.uint8)
    picture[:, 600:750, 600:800] = paint([cover(box(640, 640, 700, 690), 0, SIDE, SIDE)], SIDE, SIDE)[
        :, 600:750, 600:800
    ]
    plain = write_raster(folder / "plain.tif", picture, UTM, PLACE)
    rasterio.shutil.copy(plain, folder / "cog.tif", driver="COG", compress="deflate")
    plain.unlink()
    return folder


@pytest.fixture(scope="module")
def running_server(folder):
    with RangeServer(folder) as server:
        yield server


@pytest.fixture
def server(running_server):
    running_server.behave()
    return running_server


def test_a_part_of_a_scene_at_an_address_costs_a_small_share_of_the_file(server, folder, tmp_path):
    address = f"{server.url}/cog.tif"
    result = segment_scene(address, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(bbox=PART))
    assert result.by_class["red"] == 1
    assert result.record.scene == address
    assert 0 < server.sent_bytes < 0.15 * (folder / "cog.tif").stat().st_size
    # Nothing else was asked for: no folder, and none of the files that may lie beside a raster.
    assert {asked.split()[1] for asked in server.asked} == {"/cog.tif"}


def test_the_stretch_of_a_whole_scene_comes_from_its_overviews(server, folder, tmp_path):
    with rasterio.open(folder / "cog.tif") as file:
        picture = file.read().astype(np.uint16) * 100
    write_raster(tmp_path / "plain.tif", picture, UTM, PLACE)
    rasterio.shutil.copy(tmp_path / "plain.tif", folder / "wide.tif", driver="COG", compress="deflate")
    with Scene.open(f"{server.url}/wide.tif") as scene:
        assert scene.stretch.high[0] > scene.stretch.low[0]
    assert 0 < server.sent_bytes < 0.15 * (folder / "wide.tif").stat().st_size


@pytest.mark.parametrize("name", ["{url}/cog.tif", "/vsicurl/{url}/cog.tif", "{url}/moved/cog.tif"])
def test_an_address_may_be_written_in_several_ways(server, name):
    with Scene.open(name.format(url=server.url)) as scene:
        assert (scene.width, scene.height) == (SIDE, SIDE)


def test_a_server_that_is_busy_is_asked_again(server, monkeypatch):
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.1")
    server.behave(failing=2)
    with Scene.open(f"{server.url}/cog.tif?busy=1") as scene:
        assert scene.width == SIDE


@pytest.mark.parametrize(
    ("path", "behaviour", "words"),
    [
        ("no.tif", {}, "404.*check the address"),
        ("page.html", {}, "what is there is no raster: check the address"),
        ("loop/cog.tif", {}, "redirects.*check the address"),
        ("cog.tif?whole", {"ranges": False}, "whole files only: download it"),
        ("cog.tif?late", {"delay_s": 3.0}, "too slow"),
        ("cog.tif?down", {"failing": 1000}, "503"),
    ],
)
def test_trouble_is_told_in_one_line_that_keeps_secrets(server, monkeypatch, path, behaviour, words):
    monkeypatch.setenv("GDAL_HTTP_LOW_SPEED_TIME", "1")
    monkeypatch.setenv("GDAL_HTTP_RETRY_DELAY", "0.1")
    server.behave(**behaviour)
    mark = "&" if "?" in path else "?"
    with pytest.raises(SceneError, match=words) as raised:
        Scene.open(f"http://me:hush@{server.host}/{path}{mark}X-Amz-Signature=hush")
    assert "hush" not in str(raised.value)
    assert f"http://{server.host}/{path.split('?')[0]} " in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_is_told(server):
    with pytest.raises(SceneError, match=r"Could not resolve host: no.such.host.invalid.*check the address"):
        Scene.open("https://no.such.host.invalid/scene.tif")


def test_a_result_keeps_no_secret_of_its_scene(server, tmp_path):
    address = f"http://me:hush@{server.host}/cog.tif?X-Amz-Signature=hush"
    segment_scene(address, tmp_path / "out.gpkg", ColorPredictor(), SegmentOptions(bbox=PART))
    with closing(sqlite3.connect(tmp_path / "out.gpkg")) as database:
        scene, parameters = database.execute("SELECT scene, parameters FROM runs").fetchone()
    assert scene == f"http://{server.host}/cog.tif"
    assert "hush" not in json.dumps(json.loads(parameters))
    # Nor does the journal of one that is broken off.
    predictor = ColorPredictor()
    broken = tmp_path / "broken.gpkg"
    segment_scene(address, broken, predictor, SegmentOptions(bbox=PART), cancelled=lambda: predictor.images_seen > 4)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 2
    assert not [path for path in files if b"hush" in path.read_bytes()]


@pytest.mark.parametrize(
    ("name", "gdal"),
    [
        ("https://host/a.tif", "/vsicurl/https://host/a.tif"),
        ("HTTP://host/a.tif?x=1", "/vsicurl/http://host/a.tif?x=1"),
        ("s3://bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("gs://bucket/a.tif", "/vsigs/bucket/a.tif"),
        ("az://box/a.tif", "/vsiaz/box/a.tif"),
        ("/vsis3/bucket/a.tif", "/vsis3/bucket/a.tif"),
        ("zip://a.zip!b.tif", "zip://a.zip!b.tif"),
        ("folder/a.tif", "folder/a.tif"),
    ],
)
def test_addresses_are_told_to_gdal_by_its_own_names(name, gdal):
    assert addresses.gdal_name(name) == gdal
    assert addresses.is_remote(name) == ("vsi" in gdal)
    scheme, _, place = name.partition("://")
    if not name.startswith("/vsi"):
        assert addresses.address(gdal) == (f"{scheme.lower()}://{place}" if place else name)
    assert addresses.without_secrets(f"'{gdal}' is no raster").count("/vsi") == 0


words = st.text("abcXYZ019-_.~%@:!$&*+,;= ", max_size=12)


@given(words, words, st.sampled_from(["https://", "/vsicurl/http://", "s3://", "/vsizip//vsicurl/https://"]), words)
def test_nothing_before_the_host_or_after_the_path_is_shown(user, password, scheme, query):
    secret = f"{user}<{password}"
    name = f"{scheme}{secret.replace('<', '')}SECRET@host.org/a/b.tif?{query}=SECRET"
    assert addresses.shown(name) == f"{scheme}host.org/a/b.tif"
