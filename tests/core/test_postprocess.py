"""Working over layers of polygons: any CRS, any fields, valid results."""

import math

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
import pyproj
import pytest
import shapely
from hypothesis import example, given, settings
from hypothesis import strategies as st
from shapely import affinity, box
from test_regularize import as_seen

from rs4d_core.errors import CancelledError, LayerError, OptionError, OutputError
from rs4d_core.scenes.layers.postprocess import PostprocessOptions, postprocess_layer
from rs4d_core.scenes.layers.reshape import Reshaper, without_new_overlaps
from rs4d_core.scenes.polygons.ground import Ground

UTM = "EPSG:32631"
CORNER = (440_000, 4_640_000)
# A metric plane, degrees, feet, and Mercator's metres that are none (1.33 of them in a metre at this latitude).
CRSS = [UTM, "EPSG:4326", "+proj=utm +zone=31 +units=us-ft +datum=WGS84", "EPSG:3857"]


def write(path, shapes, crs=UTM, **fields):
    """A layer of shapes given in metres from `CORNER` in UTM, written in another CRS."""
    placed = [affinity.translate(shape, *CORNER) for shape in shapes]
    gpd.GeoDataFrame(fields, geometry=placed, crs=UTM).to_crs(crs).to_file(path, layer="instances", engine="pyogrio")
    return path


def worked_over(layer, tmp_path, **options):
    """The result, back in metres from `CORNER`, and what was said."""
    output = tmp_path / "worked_over.gpkg"
    result = postprocess_layer(layer, output, PostprocessOptions(**options))
    frame = gpd.read_file(output, layer="instances")
    assert len(frame) == result.instances
    assert frame.geometry.is_valid.all()
    assert set(frame.geom_type) <= {"MultiPolygon"}
    if frame.crs is not None:
        frame = frame.to_crs(UTM)
    return frame.set_geometry(frame.geometry.translate(-CORNER[0], -CORNER[1])), result


def test_without_options_nothing_changes_and_all_fields_stay(tmp_path):
    fields = {
        "class": ["ship", None],
        "score": [0.5, math.nan],
        "fid": [7, 7],
        "geom": ["a", "b"],
        "seen": pd.to_datetime(["2024-01-01", "2024-02-01"]),
        "count": [1, 2],
    }
    layer = tmp_path / "layer.geojson"
    frame = gpd.GeoDataFrame(fields, geometry=[box(2, 41, 2.1, 41.1), box(3, 41, 3.1, 41.1)], crs="EPSG:4326")
    frame.to_file(layer, engine="pyogrio")
    result = postprocess_layer(layer, tmp_path / "out.gpkg", PostprocessOptions())
    there = pyogrio.read_dataframe(tmp_path / "out.gpkg")
    assert [*fields, "geometry"] == list(there.columns)
    assert there["fid"].tolist() == [7, 7]
    assert there["geom"].tolist() == ["a", "b"]
    assert there["seen"].dt.year.tolist() == [2024, 2024]
    assert there.crs == "EPSG:4326"
    assert [shape.geoms[0].equals(old) for shape, old in zip(there.geometry, frame.geometry, strict=True)] == [
        True,
        True,
    ]
    assert result.by_class == {"ship": 1}


def test_score_and_classes_choose(tmp_path):
    layer = write(
        tmp_path / "layer.gpkg",
        [box(20 * k, 0, 20 * k + 10, 10) for k in range(5)],
        **{"class": ["ship", "ship", "car", "ship", "hut"], "score": [0.9, 0.2, 0.9, None, 0.9]},
    )
    frame, result = worked_over(layer, tmp_path, score=0.5, classes=("ship", "car", "bridge"))
    assert frame["class"].tolist() == ["ship", "car", "ship"]
    assert result.by_class == {"ship": 2, "car": 1}
    assert any("nothing of class bridge in it; it has car, hut, ship" in note for note in result.notes)
    assert any("1 without a score kept" in note for note in result.notes)


@pytest.mark.parametrize("crs", CRSS)
def test_least_areas_are_those_on_the_ground(tmp_path, crs):
    layer = write(tmp_path / "layer.gpkg", [box(0, 0, 10, 9.9), box(20, 0, 30, 10.2)], crs)
    frame, _ = worked_over(layer, tmp_path, min_area_m2=100.0)
    assert [shape.bounds[0] for shape in frame.geometry] == pytest.approx([20], abs=1e-3)


@pytest.mark.parametrize("crs", CRSS)
def test_tolerances_are_metres_on_the_ground(tmp_path, crs):
    def notched(depth):
        return shapely.Polygon([(0, 0), (20, 0), (20, 20), (10, 20 - depth), (0, 20)])

    shapes = [notched(0.9), affinity.rotate(notched(0.9), 90), notched(1.1)]
    shapes = [affinity.translate(shape, 40 * k, 0) for k, shape in enumerate(shapes)]
    layer = write(tmp_path / "layer.gpkg", shapes, crs)
    frame, _ = worked_over(layer, tmp_path, simplify_m=1.0)
    assert [len(shape.geoms[0].exterior.coords) - 1 for shape in frame.geometry] == [4, 4, 5]
    kept = frame.geometry.iloc[0].symmetric_difference(box(0, 0, 20, 20))
    assert kept.area < 0.01


@pytest.mark.parametrize("crs", CRSS)
def test_right_angles_are_right_on_the_ground_and_curves_stay(tmp_path, crs):
    roof = affinity.rotate(box(0, 0, 24, 16), 23, origin=(0, 0))
    seen = affinity.scale(as_seen(affinity.scale(roof, 2, 2, origin=(0, 0)), 1), 0.5, 0.5, origin=(0, 0))
    classes = ["building", "ship", None]
    shapes = [affinity.translate(seen, 60 * k, 0) for k in range(3)]
    layer = write(tmp_path / "layer.gpkg", shapes, crs, **{"class": classes, "area_m2": [1.0, 1.0, 1.0]})
    frame, result = worked_over(layer, tmp_path, regularize=True)
    for shape in frame.geometry[[0, 2]]:
        corners = np.array(shape.geoms[0].exterior.coords)
        assert len(corners) == 5
        sides = np.diff(corners, axis=0)
        angles = np.degrees(np.arctan2(sides[:, 1], sides[:, 0]))
        assert np.abs((angles - angles[0] + 45) % 90 - 45).max() < 0.05
    assert frame.geometry[1].geoms[0].hausdorff_distance(shapes[1]) < 1e-3
    assert frame["area_m2"].to_numpy() == pytest.approx([384, 1, 384], rel=0.03)
    assert any("at 0.5 m a pixel" in note for note in result.notes)


def test_outlines_are_straightened_by_the_pixels_of_their_run(tmp_path, small_scene, untrained_model):
    from rs4d_core.models.checkpoint import load_model
    from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene

    layer = tmp_path / "layer.gpkg"
    segment_scene(small_scene, layer, load_model(untrained_model, "cpu"), SegmentOptions())
    frame, result = worked_over(layer, tmp_path, regularize=True)
    assert not any("does not tell" in note for note in result.notes)
    assert set(frame["run"]) == set(pyogrio.read_dataframe(tmp_path / "worked_over.gpkg", layer="runs")["run"])


@pytest.mark.parametrize("crs", CRSS)
def test_what_touches_becomes_one(tmp_path, crs):
    shapes = [
        box(0, 0, 10, 10), box(10, 0, 20, 10), box(19, 5, 30, 15),  # a chain
        box(12, 10, 14, 12),  # touches it, of another class
        box(40, 0, 50, 10), box(50.2, 0, 60, 10),  # near, not touching
        box(70, 0, 80, 10), box(75, 0, 85, 10),  # rejected in review: left alone
    ]  # fmt: skip
    fields = {
        "class": ["hut", "hut", "hut", "ship", "hut", "hut", "hut", "hut"],
        "score": [0.3, 0.8, 0.5, 0.9, 0.5, 0.5, 0.9, 0.4],
        "status": ["pending"] * 6 + ["rejected", "pending"],
        "name": list("abcdefgh"),
        "area_m2": [100.0] * 8,
    }
    frame, result = worked_over(write(tmp_path / "layer.gpkg", shapes, crs, **fields), tmp_path, merge=True)
    assert frame["name"].tolist() == list("bdefgh")
    chain = frame.geometry[0]
    assert len(chain.geoms) == 1
    assert chain.symmetric_difference(shapely.union_all(shapes[:3])).area < 0.1
    assert frame["score"][0] == 0.8
    assert frame["area_m2"].to_numpy() == pytest.approx([305, 100, 100, 100, 100, 100], rel=2e-3)
    assert result.by_class == {"hut": 5, "ship": 1}


@pytest.mark.filterwarnings("ignore:'crs' was not provided")
def test_without_a_crs_metres_are_refused_and_the_rest_works(tmp_path):
    frame = gpd.GeoDataFrame({"class": ["a", "a"]}, geometry=[box(0, 0, 1, 1), box(1, 0, 2, 1)])
    frame.to_file(tmp_path / "layer.gpkg", engine="pyogrio")
    layer = tmp_path / "layer.gpkg"
    for options in ({"simplify_m": 1.0}, {"min_area_m2": 1.0}, {"regularize": True}):
        with pytest.raises(LayerError, match="no CRS"):
            postprocess_layer(layer, tmp_path / "out.gpkg", PostprocessOptions(**options))
    assert postprocess_layer(layer, tmp_path / "out.gpkg", PostprocessOptions(merge=True)).instances == 1


def test_what_cannot_be_done_leaves_nothing(tmp_path):
    layer = write(tmp_path / "layer.gpkg", [box(0, 0, 1, 1)], name=["a"])
    there = tmp_path / "there.gpkg"
    there.write_bytes(b"something")
    out = tmp_path / "out.gpkg"
    before = sorted(tmp_path.iterdir())
    for source, output, options, error, words in (
        (layer, there, {}, OutputError, "there already"),
        (layer, tmp_path / "out.geojson", {}, OptionError, "end in .gpkg"),
        (layer, tmp_path / "no" / "out.gpkg", {}, OutputError, "does not exist"),
        (layer, out, {"score": 0.5}, LayerError, "no field 'score'; it has name"),
        (layer, out, {"classes": ("a",)}, LayerError, "no field 'class'"),
        (tmp_path / "missing.gpkg", out, {}, LayerError, "no such file"),
    ):
        with pytest.raises(error, match=words):
            postprocess_layer(source, output, PostprocessOptions(**options))
    for options in ({"score": 2}, {"simplify_m": -1}, {"min_area_m2": math.nan}):
        with pytest.raises(OptionError, match="must"):
            PostprocessOptions(**options)
    with pytest.raises(CancelledError):
        postprocess_layer(layer, out, PostprocessOptions(simplify_m=1.0), cancelled=lambda: True)
    assert sorted(tmp_path.iterdir()) == before
    assert there.read_bytes() == b"something"


def test_an_empty_layer_gives_an_empty_layer(tmp_path):
    layer = write(tmp_path / "layer.gpkg", [box(0, 0, 1, 1)], **{"class": ["a"], "score": [0.5]})
    everything = {"score": 0.9, "merge": True, "regularize": True, "simplify_m": 1.0, "min_area_m2": 1.0}
    frame, _ = worked_over(layer, tmp_path, **everything)
    assert list(frame["class"]) == []


def shared(one, other):
    # Both put on a grid first: GEOS (3.14) may be far off for outlines that differ by rounding only. Intersecting on a
    # grid alone is still 0.0015 m2 off where a coordinate is 5e-324 in one and 0 in the other.
    return shapely.intersection(*shapely.set_precision([one, other], 2.0**-20)).area


SHAPES = st.lists(
    st.tuples(
        st.floats(0, 60), st.floats(0, 60), st.floats(6, 30), st.floats(6, 30), st.floats(0, 90), st.integers(0, 99)
    ),
    min_size=2,
    max_size=8,
)


@settings(max_examples=25)
@example(
    [(0.0, 0.0, 6.0, 6.0, 0.0, 0), (0.0, 1.0, 6.0, 6.0, 1.0, 0), (5e-324, 0.0, 6.0, 6.0, 0.0, 0)], CRSS[0], (True, 0.0)
)
@given(SHAPES, st.sampled_from(CRSS), st.sampled_from([(True, 0.0), (False, 0.7), (True, 1.5)]))
def test_reshaping_makes_no_overlap_inside_a_class_worse(tmp_path_factory, seeds, crs, how):
    tmp_path = tmp_path_factory.mktemp("overlaps")
    shapes = [
        affinity.translate(as_seen(affinity.rotate(box(0, 0, w, h), angle, origin=(0, 0)), seed), x, y)
        for x, y, w, h, angle, seed in seeds
    ]
    fields = {
        "class": ["hut" if k % 3 else "tank" for k in range(len(shapes))],
        "score": np.linspace(0.9, 0.1, len(shapes)),
    }
    layer = write(tmp_path / "layer.gpkg", shapes, crs, number=range(len(shapes)), **fields)
    frame, _ = worked_over(layer, tmp_path, regularize=how[0], simplify_m=how[1])
    assert frame["number"].tolist() == list(range(len(shapes)))
    for i in range(len(shapes)):
        for j in range(i):
            if fields["class"][i] == fields["class"][j]:
                was, now = (shared(pair[i], pair[j]) for pair in (shapes, frame.geometry))
                assert now <= was + 1e-3


def test_a_polygon_is_not_swallowed_by_its_neighbour():
    before = np.array([shapely.MultiPolygon([box(0, 0, 10, 10)]), shapely.MultiPolygon([box(10, 4, 11, 6)])])
    after = before.copy()
    after[0] = shapely.MultiPolygon([box(0, 0, 10.9, 10)])
    kept = without_new_overlaps(before, after, np.zeros(2), np.arange(2), lambda: None)
    assert list(kept) == list(before)
    after[0] = shapely.MultiPolygon([box(0, 0, 10.2, 10)])
    kept = without_new_overlaps(before, after, np.zeros(2), np.arange(2), lambda: None)
    assert kept[0] is after[0]
    assert kept[1].symmetric_difference(box(10.2, 4, 11, 6)).area < 1e-4
    other_kinds = without_new_overlaps(before, after, np.arange(2), np.arange(2), lambda: None)
    assert other_kinds[1] is before[1]


def test_a_unit_of_degrees_has_two_lengths():
    across, up = Ground(pyproj.CRS("EPSG:4326").to_wkt()).metres_a_unit((2, 59.99, 2.01, 60.01))
    geod = pyproj.Geod(ellps="WGS84")
    assert across == pytest.approx(geod.inv(2, 60, 2.01, 60)[2] / 0.01, rel=1e-4)
    assert up == pytest.approx(geod.inv(2, 59.99, 2, 60.01)[2] / 0.02, rel=1e-6)


@pytest.mark.parametrize("pixel_m", [1e-300, 3e-5, 1e300])
def test_pixels_that_cannot_be_right_straighten_nothing(pixel_m):
    house = shapely.MultiPolygon([affinity.rotate(box(500_000, 5_000_000, 500_050, 5_000_025), 3)])
    assert Reshaper(Ground(pyproj.CRS("EPSG:32633").to_wkt()), 0.0).reshape(house, pixel_m) is house
