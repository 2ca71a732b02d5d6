"""Many scenes: tiles are one scene, scenes of other grids are merged by the seam rules, and each may have a layer."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from perfect import ColorPredictor, cover, paint, write_raster
from rasterio.shutil import copy
from rasterio.warp import Resampling, reproject
from shapely import affinity, box

from rs4d_core.cli import main
from rs4d_core.errors import CancelledError, OptionError, OutputError, SceneError
from rs4d_core.scenes.many.jobs import plan_jobs
from rs4d_core.scenes.many.mosaic import mosaics
from rs4d_core.scenes.many.runs import ScenesResult, segment_jobs
from rs4d_core.scenes.many.scene_list import list_scenes
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.reading.header import read_header
from rs4d_core.scenes.reading.scene import Scene
from rs4d_core.scenes.windows.plan import Window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

UTM = "EPSG:32636"
PLACE = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)
WIDTH, HEIGHT = 300, 200

SHAPES = {
    "red": [
        box(20, 20, 270, 120) - box(40, 35, 250, 105),
        *(box(10 + 14 * k, 150, 22 + 14 * k, 180) for k in range(12)),
    ],
    "green": [affinity.rotate(box(60, 54, 230, 62), 8), shapely.Point(150, 88).buffer(9), box(270, 170, 300, 200)],
    "blue": [shapely.Point(240, 155).buffer(30, quad_segs=32)],
}
PICTURE = paint(
    [cover(shape, label, WIDTH, HEIGHT) for label, shapes in enumerate(SHAPES.values()) for shape in shapes],
    WIDTH,
    HEIGHT,
)


def cut(folder: Path, picture: np.ndarray, columns: list[int], rows: list[int], overlap: int = 0, **options) -> Path:
    """Tiles of a picture from each of these columns and rows to the next, and `overlap` pixels beyond."""
    folder.mkdir(exist_ok=True)
    _, height, width = picture.shape
    for top, bottom in zip(rows, [*rows[1:], height], strict=True):
        for left, right in zip(columns, [*columns[1:], width], strict=True):
            tile = picture[:, top : bottom + overlap, left : right + overlap]
            place = PLACE @ Affine.translation(left, top)
            write_raster(folder / f"tile_{top:04}_{left:04}.tif", tile, UTM, place, **options)
    return folder


def segment(
    given: list,
    output: Path | str,
    predictor=None,
    told: list | None = None,
    cancelled=lambda: False,
    while_merging=lambda: False,
    **options,
) -> ScenesResult:
    """All of it, as the command line does it."""
    predictor, options = predictor or ColorPredictor(), SegmentOptions(**options)
    jobs = plan_jobs([str(name) for name in given], str(output))

    def one(scene: str, layer: Path):
        return segment_scene(scene, layer, predictor, options, cancelled=cancelled)

    tell = (told if told is not None else []).append
    return segment_jobs(jobs, one, predictor, options, tell, while_merging)


def polygons(path: Path) -> list[tuple]:
    layer = gpd.read_file(path, layer="instances")
    rows = zip(layer["class"], layer["score"], layer["area_m2"], shapely.to_wkb(layer.geometry), strict=True)
    return sorted(rows)


def runs(path: Path) -> list[tuple]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute("SELECT run, scene, parameters FROM runs ORDER BY scene").fetchall()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write_raster(tmp_path_factory.mktemp("whole") / "whole.tif", PICTURE, UTM, PLACE)


@pytest.fixture(scope="module")
def found_in_whole(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "whole.gpkg"
    segment([whole], path)
    return polygons(path)


@pytest.mark.parametrize("overlap", [0, 24])
def test_tiles_give_the_polygons_of_the_whole_scene(found_in_whole, tmp_path, overlap):
    folder = cut(tmp_path / "tiles", PICTURE, [0, 71, 200], [0, 97, 130], overlap)
    result = segment([folder], tmp_path / "out.gpkg")
    assert polygons(tmp_path / "out.gpkg") == found_in_whole
    assert result.output == tmp_path / "out.gpkg"
    ((_, scene, _),) = runs(tmp_path / "out.gpkg")
    # The mosaic stays with the result, for whoever wants to see what it was found in.
    with rasterio.open(scene) as mosaic:
        assert (mosaic.read() == PICTURE).all()
        assert mosaic.crs == UTM


def test_tiles_of_a_real_scene_are_read_as_the_whole(data_folder, tmp_path):
    path = data_folder / "buildings/kampala/scene_epsg3857.tif"
    with rasterio.open(path) as file:
        for number, (left, right) in enumerate(((0, 700), (700, 1901), (1901, file.width))):
            part = ((0, file.height), (left, right))
            place = file.transform @ Affine.translation(left, 0)
            write_raster(tmp_path / f"{number}.tif", file.read(window=part), file.crs, place)
    (mosaic,) = mosaics([read_header(name) for name in list_scenes([str(tmp_path)]).names])
    # As the default model reads it: four scene pixels become one. Whatever model sees it, it sees the same.
    vrt = mosaic.write_beside(tmp_path / "out.gpkg")
    with Scene.open(path, None, (0.3, 0.5)) as whole, Scene.open(vrt, None, (0.3, 0.5)) as tiles:
        assert (tiles.width, tiles.height, tiles.crs_wkt) == (whole.width, whole.height, whole.crs_wkt)
        assert tiles.transform.almost_equals(whole.transform, 1e-9)
        for window in (Window(0, 0, 384, 384), Window(whole.width - 512, 100, 512, 384)):
            assert all((one == other).all() for one, other in zip(whole.read(window), tiles.read(window), strict=True))


cuts = st.lists(st.integers(1, 299), max_size=3, unique=True).map(lambda cuts: [0, *sorted(cuts)])
rows_ = st.lists(st.integers(1, 199), max_size=2, unique=True).map(lambda cuts: [0, *sorted(cuts)])


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts, rows_, st.sampled_from([0, 1, 17]), st.randoms())
def test_tiles_of_any_size_show_the_pixels_of_the_whole(tmp_path_factory, columns, rows, overlap, random):
    folder = cut(tmp_path_factory.mktemp("cut"), PICTURE, columns, rows, overlap)
    names = [str(path) for path in folder.glob("*.tif")]
    random.shuffle(names)
    (mosaic,) = mosaics([read_header(name) for name in names])
    with Scene.open(mosaic.write_beside(folder / "out.gpkg")) as scene:
        image, valid = scene.read(Window(0, 0, WIDTH, HEIGHT))
        assert (scene.width, scene.height, scene.transform) == (WIDTH, HEIGHT, PLACE)
    assert valid.all()
    assert (image == PICTURE).all()


@pytest.mark.parametrize("kind", ["bare", "nodata", "alpha", "mask"])
def test_where_no_tile_lies_there_is_no_data(tmp_path, kind):
    # Three tiles of four, one pixel wide and high at the corner, and in one of them a hole.
    hole = np.s_[:, 10:20, 10:20]
    options = {"nodata": 0} if kind == "nodata" else {}
    folder = cut(tmp_path / "tiles", PICTURE.clip(1), [0, 150], [0, 100], **options)
    (folder / "tile_0100_0150.tif").unlink()
    expected = np.ones((HEIGHT, WIDTH), dtype=bool)
    expected[100:, 150:] = False
    for path in folder.glob("*.tif"):
        if kind == "nodata" and path.name == "tile_0000_0000.tif":
            with rasterio.open(path, "r+") as file:
                tile = file.read()
                tile[hole] = 0
                file.write(tile)
        if kind in ("alpha", "mask"):
            with rasterio.open(path) as file:
                tile, profile = file.read(), file.profile
            mask = np.full(tile.shape[1:], 255, dtype=np.uint8)
            if path.name == "tile_0000_0000.tif":
                mask[hole[1:]] = 0
            profile.update(photometric="RGB", count=4 if kind == "alpha" else 3)
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "w", **profile) as file:
                file.write(tile, indexes=[1, 2, 3])
                if kind == "alpha":
                    file.write(mask, 4)
                    file.colorinterp = [*file.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
                else:
                    file.write_mask(mask)
    if kind != "bare":
        expected[10:20, 10:20] = False
    (mosaic,) = mosaics([read_header(name) for name in list_scenes([str(folder)]).names])
    with Scene.open(mosaic.write_beside(tmp_path / "out.gpkg")) as scene:
        image, valid = scene.read(Window(0, 0, WIDTH, HEIGHT))
    assert (valid == expected).all()
    assert (image == np.where(expected, PICTURE.clip(1), 0)).all()


def test_a_later_tile_lies_on_top_where_it_has_data(tmp_path):
    ones, twos = np.full((3, 10, 10), 1, np.uint8), np.full((3, 10, 10), 2, np.uint8)
    twos[:, :, :3] = 0
    first = write_raster(tmp_path / "first.tif", ones, UTM, PLACE, nodata=0)
    second = write_raster(tmp_path / "second.tif", twos, UTM, PLACE @ Affine.translation(5, 0), nodata=0)
    for order, shown in (([first, second], [1] * 8 + [2] * 7), ([second, first], [1] * 10 + [2] * 5)):
        (mosaic,) = mosaics([read_header(str(path)) for path in order])
        with Scene.open(mosaic.write_beside(tmp_path / "out.gpkg")) as scene:
            image, valid = scene.read(Window(0, 0, 15, 10))
        assert valid.all()
        assert image[0, 0].tolist() == shown


def test_rasters_that_differ_or_lie_apart_are_scenes_of_their_own(tmp_path):
    picture = PICTURE[:, :50, :50]
    right, far = PLACE @ Affine.translation(50, 0), PLACE @ Affine.translation(500, 0)
    names = [
        write_raster(tmp_path / "a.tif", picture, UTM, PLACE),
        write_raster(tmp_path / "b.tif", picture, UTM, far),
        write_raster(tmp_path / "c.tif", picture, UTM, right @ Affine.scale(1.01)),
        write_raster(tmp_path / "d.tif", picture, UTM, right, nodata=0),
        write_raster(tmp_path / "e.tif", picture.astype(np.uint16), UTM, right),
        write_raster(tmp_path / "f.tif", picture, "EPSG:32637", right),
        write_raster(tmp_path / "g.tif", picture, UTM, PLACE @ Affine.translation(0, 50.3)),
    ]
    found = mosaics([read_header(str(name)) for name in names])
    assert [[Path(tile.name).stem for tile in mosaic.tiles] for mosaic in found] == [["a", "g"], *map(list, "bcdef")]
    assert found[0].off_grid_px == pytest.approx(0.3)


def test_the_same_mosaic_has_the_same_file(tmp_path):
    folder = cut(tmp_path / "tiles", PICTURE, [0, 100], [0])
    (mosaic,) = mosaics([read_header(name) for name in list_scenes([str(folder)]).names])
    first = mosaic.write_beside(tmp_path / "out.gpkg")
    before = first.stat()
    assert mosaic.write_beside(tmp_path / "out.gpkg") == first
    assert first.stat() == before


# Two scenes of the same ground.


def warped(path: Path, whole: Path, crs: str, pixel: float, part: tuple[float, float, float, float]) -> Path:
    """A part (west, south, east, north in UTM) of the whole scene in another CRS, with nodata around it."""
    with rasterio.open(whole) as file:
        west, south, east, north = rasterio.warp.transform_bounds(UTM, crs, *part)
        width, height = round((east - west) / pixel), round((north - south) / pixel)
        place = Affine(pixel, 0, west, 0, -pixel, north)
        picture = np.zeros((3, height, width), np.uint8)
        reproject(
            file.read().clip(1),
            picture,
            src_transform=file.transform,
            src_crs=UTM,
            dst_transform=place,
            dst_crs=crs,
            resampling=Resampling.bilinear,
            dst_nodata=0,
            src_nodata=0,
        )
    return write_raster(path, picture, crs, place, nodata=0)


def assert_each_once(path: Path, tolerance_px: float) -> None:
    layer = gpd.read_file(path, layer="instances")
    assert layer.geometry.is_valid.all()
    for class_name, truths in SHAPES.items():
        found = np.array(
            layer[layer["class"] == class_name].geometry.affine_transform((~PLACE).to_shapely()), dtype=object
        )
        assert len(found) == len(truths)
        for truth in truths:
            best = found[shapely.area(shapely.intersection(found, truth)).argmax()]
            assert shapely.hausdorff_distance(best.boundary, truth.boundary) < tolerance_px


@pytest.mark.parametrize(("crs", "pixel"), [(UTM, 0.4), ("EPSG:4326", 4.4e-6), ("EPSG:32637", 0.5)])
def test_two_scenes_of_other_grids_give_each_object_once(whole, tmp_path, crs, pixel):
    """Both end in the middle of the large ring, of the long bar and of the row of houses."""
    with rasterio.open(whole) as file:
        picture = file.read(window=((0, HEIGHT), (0, 190))).clip(1)
    left = write_raster(tmp_path / "left.tif", picture, UTM, PLACE, nodata=0)
    right = warped(tmp_path / "right.tif", whole, crs, pixel, (450_050, 39_900, 450_150, 40_000))
    told = []
    result = segment([left, right], tmp_path / "out.gpkg", told=told)
    assert_each_once(tmp_path / "out.gpkg", 2.5)
    assert [Path(scene).name for _, scene, _ in runs(tmp_path / "out.gpkg")] == ["left.tif", "right.tif"]
    layer = gpd.read_file(tmp_path / "out.gpkg", layer="instances")
    assert set(layer["run"]) == {run for run, _, _ in runs(tmp_path / "out.gpkg")}
    assert layer["area_m2"].to_numpy() == pytest.approx(layer.geometry.area.to_numpy(), rel=2e-3)
    assert result.instances == len(layer) == sum(result.by_class.values())
    assert told == ["scene 1 of 2: " + str(left), "scene 2 of 2: " + str(right)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["left.tif", "out.gpkg", "right.tif"]


def test_what_one_scene_alone_shows_is_as_it_is_without_the_other(whole, found_in_whole, tmp_path):
    far = write_raster(tmp_path / "far.tif", PICTURE, UTM, PLACE @ Affine.translation(1000, 0))
    segment([far], tmp_path / "far.gpkg")
    segment([whole, far], tmp_path / "out.gpkg")
    assert polygons(tmp_path / "out.gpkg") == sorted(found_in_whole + polygons(tmp_path / "far.gpkg"))


@pytest.fixture
def overlapping(whole, tmp_path):
    """Two scenes of the same ground, of two grids."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    with rasterio.open(whole) as file:
        picture = file.read(window=((0, HEIGHT), (0, 190)))
    write_raster(folder / "left.tif", picture, UTM, PLACE)
    warped(folder / "right.tif", whole, UTM, 0.4, (450_050, 39_900, 450_150, 40_000))
    return folder


def test_a_run_that_is_broken_off_goes_on_with_the_scenes_that_are_left(overlapping, tmp_path):
    segment([overlapping], tmp_path / "unbroken.gpkg")
    predictor = ColorPredictor()
    output = tmp_path / "out.gpkg"
    # In the second scene: the first has 4 x 4 windows of 64 pixels.
    result = segment([overlapping], output, predictor, cancelled=lambda: predictor.images_seen > 20)
    assert (result.interrupted, result.written, output.exists()) == (True, False, False)
    with pytest.raises(CancelledError):
        segment([overlapping], output, while_merging=lambda: True)
    told, predictor = [], ColorPredictor()
    segment([overlapping], output, predictor, told=told)
    assert (told, predictor.images_seen) == ([], 0)
    assert polygons(output) == polygons(tmp_path / "unbroken.gpkg")
    assert not list(tmp_path.glob(".*"))


def test_a_part_whose_journal_is_gone_counts_once(overlapping, tmp_path):
    segment([overlapping], tmp_path / "unbroken.gpkg")
    predictor, output, parts = ColorPredictor(), tmp_path / "out.gpkg", tmp_path / ".out.gpkg.scenes"
    segment([overlapping], output, predictor, cancelled=lambda: predictor.images_seen > 20)
    # The first as if it had been killed right before it was marked as done, the second without its journal.
    (done,) = parts.glob("*.done.gpkg")
    done.rename(parts / done.name.replace(".done", ""))
    (journal,) = parts.glob(".*.unfinished")
    journal.unlink()
    segment([overlapping], output)
    assert polygons(output) == polygons(tmp_path / "unbroken.gpkg")
    assert not list(tmp_path.glob(".*"))


def test_a_scene_whose_files_were_changed_is_looked_at_again(whole, tmp_path):
    tile = write_raster(tmp_path / "tile.tif", PICTURE, UTM, PLACE)
    copy(tile, tmp_path / "a.vrt", driver="VRT")
    far = write_raster(tmp_path / "far.tif", PICTURE, UTM, PLACE @ Affine.translation(1000, 0))
    output = tmp_path / "out.gpkg"
    with pytest.raises(CancelledError):
        segment([tmp_path / "a.vrt", far], output, while_merging=lambda: True)
    write_raster(tile, PICTURE[:, ::-1], UTM, PLACE)
    told = []
    segment([tmp_path / "a.vrt", far], output, told=told)
    assert told == [f"scene 1 of 2: {tmp_path / 'a.vrt'}"]
    segment([tile, far], tmp_path / "anew.gpkg")
    assert polygons(output) == polygons(tmp_path / "anew.gpkg")


def test_a_file_of_others_is_added_to_or_refused_before_the_first_scene(overlapping, tmp_path, monkeypatch):
    segment([overlapping], tmp_path / "alone.gpkg")
    points = gpd.GeoDataFrame({"name": ["here"]}, geometry=[shapely.Point(0, 0)], crs=UTM)
    points.to_file(tmp_path / "points.gpkg", layer="points")
    segment([overlapping], tmp_path / "points.gpkg")
    assert polygons(tmp_path / "points.gpkg") == polygons(tmp_path / "alone.gpkg")
    assert len(gpd.read_file(tmp_path / "points.gpkg", layer="points")) == 1
    (tmp_path / "text.gpkg").write_text("no GeoPackage")
    elsewhere = write_raster(tmp_path / "elsewhere.tif", PICTURE, "EPSG:32637", PLACE)
    segment([elsewhere], tmp_path / "elsewhere.gpkg")
    monkeypatch.chdir(tmp_path)
    for name, words in (("text.gpkg", "is no GeoPackage"), ("elsewhere.gpkg", "holds instances in EPSG:32637")):
        predictor = ColorPredictor()
        with pytest.raises(OutputError, match=words):
            segment([overlapping], name, predictor)
        assert predictor.images_seen == 0
    assert not list(tmp_path.glob(".*"))


def test_a_layer_that_is_there_keeps_its_runs_and_other_formats_hold_all(overlapping, tmp_path):
    segment([overlapping], tmp_path / "out.gpkg")
    once = polygons(tmp_path / "out.gpkg")
    result = segment([overlapping], tmp_path / "out.gpkg")
    assert polygons(tmp_path / "out.gpkg") == sorted(2 * once)
    assert len(runs(tmp_path / "out.gpkg")) == 4
    assert any("was there already" in note for note in result.notes)
    segment([overlapping], tmp_path / "out.geojson")
    assert len(gpd.read_file(tmp_path / "out.geojson")) == len(once)
    with pytest.raises(OptionError, match="COCO file holds the pixels of one scene"):
        segment([overlapping], tmp_path / "out.json")


def test_a_folder_gets_a_layer_for_each_scene(whole, found_in_whole, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    again = write_raster(other / "WHOLE.tif", PICTURE[:, :, :100], UTM, PLACE)
    damaged = write_raster(tmp_path / "damaged.tif", PICTURE, UTM, PLACE)
    jobs = plan_jobs([str(whole), str(again)], f"{tmp_path / 'layers'}/")
    assert "touch" in jobs.notes[-1]
    assert "goes to WHOLE-2.gpkg" in jobs.notes[0]
    result = segment([whole, again], f"{tmp_path / 'layers'}/")
    assert sorted(path.name for path in (tmp_path / "layers").iterdir()) == ["WHOLE-2.gpkg", "whole.gpkg"]
    assert polygons(tmp_path / "layers" / "whole.gpkg") == found_in_whole
    assert [summary.output.name for summary in result.scenes] == ["whole.gpkg", "WHOLE-2.gpkg"]
    # A scene that is lost between the plan and its turn does not stop the others.
    jobs = plan_jobs([str(damaged), str(whole)], str(tmp_path / "layers"))
    damaged.unlink()
    predictor, options = ColorPredictor(), SegmentOptions()
    result = segment_jobs(jobs, lambda *way: segment_scene(*way, predictor, options), predictor, options, [].append)
    assert [summary.output.name for summary in result.scenes] == ["whole.gpkg"]
    assert "damaged.tif does not exist" in result.failed[0]


def test_what_is_not_a_scene_is_left_out_or_told(whole, tmp_path):
    folder = cut(tmp_path / "tiles", PICTURE, [0, 150], [0])
    (folder / "readme.txt").write_text("tiles")
    (folder / "broken.tif").write_bytes(b"II*\0 and nothing")
    (folder / "index.vrt").write_text("<VRTDataset/>")
    (folder / ".hidden.tif").write_bytes(b"")
    (folder / "more").mkdir()
    jobs = plan_jobs([str(folder)], str(tmp_path / "out.gpkg"))
    (job,) = jobs.scenes
    assert [Path(tile.name).name for tile in job.mosaic.tiles] == ["tile_0000_0000.tif", "tile_0000_0150.tif"]
    told = " ".join(jobs.notes)
    assert all(word in told for word in ("broken.tif", "index.vrt", "1 folder in it"))
    assert "readme" not in told
    with pytest.raises(SceneError, match=r"broken\.tif"):  # whoever names it wants it
        plan_jobs([str(folder / "broken.tif"), str(whole)], str(tmp_path / "out.gpkg"))
    empty = tmp_path / "empty"
    (empty / "inner").mkdir(parents=True)
    with pytest.raises(SceneError, match=r"no image in the folder .*, only 1 folder: name what holds the images"):
        plan_jobs([str(empty)], str(tmp_path / "out.gpkg"))


def test_a_list_names_scenes_one_a_line(whole, tmp_path):
    cut(tmp_path / "tiles", PICTURE, [0, 150], [0])
    names = tmp_path / "scenes.txt"
    names.write_text(f"\ufeff# the tiles\r\ntiles\r\n\r\ntiles/tile_0000_0000.tif\r\n{whole}\r\n", encoding="utf-8")
    listed = list_scenes([f"@{names}", str(whole)])
    assert [Path(name).name for name in listed.names] == ["tile_0000_0000.tif", "tile_0000_0150.tif", "whole.tif"]
    for content, words in ((b"", "names no scene"), (b"\xff\xfe\x00", "no list of names")):
        names.write_bytes(content)
        with pytest.raises(SceneError, match=words):
            list_scenes([f"@{names}"])
    with pytest.raises(SceneError, match="@ alone names no list"):
        list_scenes(["@"])
    with pytest.raises(SceneError, match="cannot be read"):
        list_scenes([f"@{tmp_path / 'no.txt'}"])


def test_pictures_without_a_place_share_no_layer(whole, tmp_path):
    first = write_raster(tmp_path / "first.tif", PICTURE, None, Affine.identity())
    second = write_raster(tmp_path / "second.tif", PICTURE, None, Affine.identity())
    for names in ([first, second], [whole, first]):
        with pytest.raises(OptionError, match="no place on the map"):
            plan_jobs([str(name) for name in names], str(tmp_path / "out.gpkg"))
    folder = tmp_path / "product"
    cut(folder, PICTURE, [0], [0])
    first.rename(folder / "quicklook.tif")
    jobs = plan_jobs([str(folder)], str(tmp_path / "out.gpkg"))
    assert [job.label for job in jobs.scenes] == [str(folder / "tile_0000_0000.tif")]
    assert "quicklook.tif has no place" in jobs.notes[0]


def test_a_box_chooses_among_scenes(whole, tmp_path):
    far = write_raster(tmp_path / "far.tif", PICTURE, UTM, PLACE @ Affine.translation(1000, 0))
    result = segment([whole, far], tmp_path / "out.gpkg", bbox=(450_000, 39_900, 450_150, 40_000))
    assert len(runs(tmp_path / "out.gpkg")) == 1
    assert "far.tif passed over" in " ".join(result.notes)


def test_the_command_takes_many_scenes_and_tells_of_each(small_scene, untrained_model, tmp_path, capsys):
    with rasterio.open(small_scene) as file:
        picture, place, crs = file.read(), file.transform, file.crs
    write_raster(tmp_path / "a.tif", picture[:, :, :128], crs, place)
    write_raster(tmp_path / "b.tif", picture[:, :, 128:], crs, place @ Affine.translation(128, 0))
    options = ["--model", str(untrained_model), "--json"]
    for names, output, scenes in (
        ([small_scene], "whole.gpkg", None),
        ([tmp_path / "a.tif", tmp_path / "b.tif"], "tiles.gpkg", None),
        ([tmp_path / "a.tif", tmp_path / "b.tif"], "layers/", ["a.gpkg", "b.gpkg"]),
    ):
        picture = tmp_path / f"{Path(output).stem}.png"
        command = ["segment", *map(str, names), "-o", f"{tmp_path}/{output}", "--picture", str(picture), *options]
        assert main(command) == 0
        told = json.loads(capsys.readouterr().out)
        assert [note for note in told["notes"] if "tiles" in note] == [
            f"the tiles are read as one scene, {path.name}: keep that beside the layer"
            for path in tmp_path.glob(f"{Path(output).stem}.*.vrt")
        ]
        assert Path(told["output"]) == tmp_path / output
        assert picture.exists() == (scenes is None) != any("no picture" in note for note in told["notes"])
        assert told["instances"] == sum(told["by_class"].values()) > 0
        assert scenes == ([Path(scene["output"]).name for scene in told["scenes"]] if "scenes" in told else None)
    assert polygons(tmp_path / "tiles.gpkg") == polygons(tmp_path / "whole.gpkg")
