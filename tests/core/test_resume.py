"""Runs that are broken off, and go on."""

import os
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress

import geopandas as gpd
import numpy as np
import pyogrio
import pytest
import shapely
from affine import Affine
from perfect import ColorPredictor, cover, paint, write_raster
from shapely import box

from rs4d_core.errors import BusyError, CancelledError, OptionError, OutputError, SceneChangedError
from rs4d_core.scenes.pipeline import SegmentOptions, segment_scene
from rs4d_core.scenes.resuming import journal as journal_module
from rs4d_core.scenes.resuming.journal import Journal

UTM = "EPSG:32636"
PLACE = Affine(0.5, 0, 450_000, 0, -0.5, 40_000)
OPTIONS = SegmentOptions(overlap_px=16)


def picture(seed: int = 5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shapes = [box(x, y, x + w, y + 9) for x, y, w in rng.uniform((0, 0, 8), (240, 190, 90), (30, 3))]
    return paint([cover(shape, k % 3, 250, 200) for k, shape in enumerate(shapes)], 250, 200)


@pytest.fixture
def scene(tmp_path):
    return write_raster(tmp_path / "scene.tif", picture(), UTM, PLACE, tiled=True, blockxsize=64, blockysize=64)


@pytest.fixture(autouse=True)
def commits_at_once(monkeypatch):
    monkeypatch.setattr(journal_module, "COMMIT_S", 0.0)


class Dies(Exception):
    """What no part of a run expects."""


class Company(ColorPredictor):
    """Like a real model, gives other bits to a window that has other company; and dies when it has seen enough."""

    def __init__(self, lives: int = 10**6):
        super().__init__()
        self.lives = lives

    def predict(self, images, least_scores):
        self.lives -= 1
        if self.lives < 0:
            raise Dies
        found = super().predict(images, least_scores)
        for instances in found:
            instances.scores.mul_(0.9 + 0.1 * float(images.mean()) / 255)
        return found


def features(path, layer: str = "instances") -> list:
    frame = gpd.read_file(path, layer=layer) if path.suffix == ".gpkg" else gpd.read_file(path)
    return sorted(
        (row["class"], row.score, row.area_m2, row.status, shapely.to_wkb(row.geometry, hex=True))
        for _, row in frame.iterrows()
    )


def unbroken(scene, tmp_path, options=OPTIONS, suffix=".gpkg") -> list:
    segment_scene(scene, tmp_path / f"unbroken{suffix}", Company(), options)
    return features(tmp_path / f"unbroken{suffix}")


def left_beside(path) -> set:
    return {file.name for file in path.parent.iterdir() if path.stem in file.name} - {path.name}


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb"])
def test_a_run_that_broke_off_goes_on_and_comes_to_the_same(scene, tmp_path, suffix):
    whole = unbroken(scene, tmp_path, suffix=suffix)
    output = tmp_path / f"out{suffix}"
    for _ in range(2):
        with pytest.raises(Dies):
            segment_scene(scene, output, Company(lives=1), OPTIONS)
        assert not output.exists()
        assert left_beside(output) == {f".out{suffix}.unfinished"}
    predictor, told, steps = Company(), [], []
    result = segment_scene(scene, output, predictor, OPTIONS, steps.append, told.extend)
    assert features(output) == whole
    assert len(told) == len(whole) == result.instances
    assert result.windows == result.windows_total == 20 == len(steps)
    assert predictor.images_seen < 20 - 4
    assert any("goes on with run" in note for note in result.notes)
    assert left_beside(output) == set()


def interrupted(scene, output, windows: int):
    """A run that is cancelled after some more windows."""
    steps = []
    result = segment_scene(
        scene,
        output,
        Company(),
        OPTIONS,
        steps.append,
        cancelled=lambda: bool(steps) and steps[-1].windows_done >= windows,
    )
    assert result.interrupted
    return result


def test_the_whole_takes_the_place_of_the_part_that_was_kept(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    segment_scene(scene, output, ColorPredictor(), SegmentOptions(classes=("red",)))
    other = features(output)
    parts = [interrupted(scene, output, windows) for windows in (4, 9)]
    assert parts[0].record.run == parts[1].record.run
    assert any("started again, goes on" in note for note in parts[0].notes)
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert result.record.run == parts[0].record.run
    assert features(output) == sorted(other + unbroken(scene, tmp_path))
    runs = pyogrio.read_dataframe(output, layer="runs")
    assert len(runs) == 2
    assert runs["seconds"].iloc[1] == pytest.approx(result.seconds, abs=0.5)
    assert result.seconds > parts[1].seconds > parts[0].seconds
    assert left_beside(output) == set()
    # The spatial index has gone along.
    frame = gpd.read_file(output, layer="instances")
    west, south, east, north = frame.total_bounds
    found = pyogrio.read_dataframe(output, layer="instances", bbox=(west, south, east, north))
    assert len(found) == len(frame)


def test_a_part_that_somebody_has_worked_on_stays(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    part = interrupted(scene, output, 8)
    frame = pyogrio.read_dataframe(output, layer="instances", fid_as_index=True)
    frame.loc[frame.index[0], "status"] = "accepted"
    pyogrio.write_dataframe(frame, output, layer="instances", geometry_type="MultiPolygon")
    reviewed = features(output)
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert features(output) == sorted(reviewed + unbroken(scene, tmp_path))
    assert result.record.run != part.record.run
    assert set(pyogrio.read_dataframe(output, layer="runs")["run"]) == {result.record.run, part.record.run}
    assert any(part.record.run in note and "worked on" in note for note in result.notes)


def test_cancelled_while_it_catches_up_it_leaves_what_there_is(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    interrupted(scene, output, 8)
    before = output.read_bytes()
    with pytest.raises(CancelledError):
        interrupted(scene, output, 4)
    assert output.read_bytes() == before
    segment_scene(scene, output, Company(), OPTIONS)
    assert features(output) == unbroken(scene, tmp_path)


def test_other_settings_begin_anew_and_the_old_ones_go_on_later(scene, tmp_path):
    output = tmp_path / "out.fgb"
    with pytest.raises(Dies):
        segment_scene(scene, output, Company(lives=2), OPTIONS)
    result = segment_scene(scene, output, Company(), SegmentOptions(overlap_px=16, score=0.7))
    assert any("score 0.7 instead of" in note for note in result.notes)
    assert left_beside(output) == {".out.fgb.unfinished"}
    predictor = Company()
    result = segment_scene(scene, output, predictor, OPTIONS)
    assert any("goes on with run" in note for note in result.notes)
    assert predictor.images_seen < 20 - 4
    assert features(output) == unbroken(scene, tmp_path, suffix=".fgb")
    assert left_beside(output) == set()


def test_windows_as_large_as_memory_holds_stay_as_large_as_they_were(scene, tmp_path, monkeypatch):
    output, sizes = tmp_path / "out.gpkg", iter((64, 96))
    monkeypatch.setattr("rs4d_core.scenes.options.largest_window", lambda *_: next(sizes))
    options = SegmentOptions(overlap_px=16, window_px="auto")
    with pytest.raises(Dies):
        segment_scene(scene, output, Company(lives=1), options)
    segment_scene(scene, output, Company(), options)
    assert features(output) == unbroken(scene, tmp_path)


def test_what_was_found_in_another_scene_of_that_name_is_dropped(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    with pytest.raises(Dies):
        segment_scene(scene, output, Company(lives=2), OPTIONS)
    write_raster(scene, picture(seed=6), UTM, PLACE)
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert any("was changed since" in note for note in result.notes)
    assert features(output) == unbroken(scene, tmp_path)


def test_statistics_that_qgis_leaves_beside_a_scene_do_not_change_it(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    with pytest.raises(Dies):
        segment_scene(scene, output, Company(lives=2), OPTIONS)
    (tmp_path / "scene.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert any("goes on with run" in note for note in result.notes)


@pytest.mark.parametrize("change", ["written over", "replaced"])
def test_a_scene_that_is_changed_while_it_is_read_gives_no_result(scene, tmp_path, change):
    output = tmp_path / "out.gpkg"
    other = write_raster(tmp_path / "other.tif", picture(seed=7), UTM, PLACE)

    def changes(progress):
        if progress.windows_done == 8:
            if change == "replaced":
                os.replace(other, scene)
            else:
                with scene.open("r+b") as file:
                    file.seek(-9, os.SEEK_END)
                    file.write(b"\0" * 9)
                os.utime(scene)

    with pytest.raises(SceneChangedError, match=r"scene.tif was changed while it was being read.*run the same again"):
        segment_scene(scene, output, Company(), OPTIONS, changes)
    assert not output.exists()


def test_two_runs_on_one_output(scene, tmp_path):
    output = tmp_path / "out.gpkg"

    def another(progress):
        if progress.windows_done == 9:
            with pytest.raises(BusyError, match=r"another run is writing to .*out.gpkg"):
                segment_scene(scene, output, Company(), OPTIONS)
            program = (
                f"from rs4d_core.scenes.resuming.journal import Journal, Path; Journal.open(Path({str(output)!r}))"
            )
            ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
            assert "BusyError: another run" in ended.stderr

    segment_scene(scene, output, Company(), OPTIONS, another)
    assert features(output) == unbroken(scene, tmp_path)
    assert left_beside(output) == set()


def test_a_journal_that_is_damaged_costs_no_more_than_itself(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    (tmp_path / ".out.gpkg.unfinished").write_bytes(b"nonsense" * 1000)
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert any("cannot go on" in note and "damaged: remove it" in note for note in result.notes)
    assert features(output) == unbroken(scene, tmp_path)


@pytest.mark.parametrize(
    "attack",
    [
        "UPDATE runs SET scene = '[]'",
        "UPDATE runs SET settings = x'ff', run = 5",
        "UPDATE runs SET window_px = 'wide'",
        f"UPDATE runs SET scene = '{'[' * 100_000}'",
        "DROP TABLE runs; CREATE VIEW runs AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) "
        "SELECT id, '' scene, '' settings, '' run, '' time, 1 window_px, 1 overlap_px, 1 seconds, '' part FROM n",
        "CREATE TRIGGER forgets AFTER INSERT ON windows BEGIN DELETE FROM windows; END",
    ],
)
def test_a_journal_that_somebody_has_changed_is_told_from_ours(scene, tmp_path, attack):
    output = tmp_path / "out.gpkg"
    with suppress(Dies):
        segment_scene(scene, output, Company(3), OPTIONS)
    with closing(sqlite3.connect(tmp_path / ".out.gpkg.unfinished")) as database:
        database.executescript(attack)
    result = segment_scene(scene, output, Company(), OPTIONS)
    assert any("cannot go on" in note and "remove it" in note for note in result.notes)
    assert len(features(output)) > 0


def test_a_journal_has_nothing_removed_but_what_a_run_has_left(scene, tmp_path):
    output = tmp_path / "out.gpkg"
    others = [tmp_path / name for name in ("out.txt", ".out.part", ".out.more.part.txt")]
    left = tmp_path / ".out.k3_9.part.gpkg"
    for file in (*others, left):
        file.write_text("mine")
    for part in ("", ".", "out", ".out.", ".out.more.part.txt", "../", ".out.k3_9.part"):
        with suppress(Dies):
            segment_scene(scene, output, Company(3), OPTIONS)
        with closing(sqlite3.connect(tmp_path / ".out.gpkg.unfinished")) as database:
            database.execute("UPDATE runs SET part = ?", (part,))
            database.commit()
        segment_scene(scene, output, Company(), OPTIONS)
        assert scene.exists()
        assert all(file.read_text() == "mine" for file in others)
    assert not left.exists()


@pytest.mark.parametrize("content", ["5", "'text'", "x''", "zeroblob(1000000)", "x'00' || substr(content, 2)"])
def test_windows_of_a_journal_that_somebody_has_changed_are_refused(scene, tmp_path, content):
    output = tmp_path / "out.gpkg"
    with suppress(Dies):
        segment_scene(scene, output, Company(3), OPTIONS)
    with closing(sqlite3.connect(tmp_path / ".out.gpkg.unfinished")) as database:
        database.execute(f"UPDATE windows SET content = CAST({content} AS BLOB) WHERE window = 1")
        database.execute("UPDATE windows SET content = 'text' WHERE window = 0")
        database.commit()
    with pytest.raises(OutputError, match="damaged: remove it"):
        segment_scene(scene, output, Company(), OPTIONS)
    assert not output.exists()


def test_links_and_folders_in_the_place_of_a_journal_stay_as_they_are(scene, tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("")
    journal = tmp_path / ".out.gpkg.unfinished"
    for place in (lambda: journal.symlink_to(mine), journal.mkdir, lambda: os.mkfifo(journal)):
        place()
        result = segment_scene(scene, tmp_path / "out.gpkg", Company(), OPTIONS)
        assert any("is no file of rs4d: remove it" in note for note in result.notes)
        assert mine.read_text() == ""
        journal.rmdir() if journal.is_dir() else journal.unlink()


def test_the_same_result_is_not_written_twice_if_the_end_of_a_run_was_cut_off(scene, tmp_path, monkeypatch):
    output = tmp_path / "out.gpkg"

    def cut_off(*_):
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "finish", cut_off)
        with pytest.raises(Dies):
            segment_scene(scene, output, Company(), OPTIONS)
    assert output.exists()
    predictor = Company()
    segment_scene(scene, output, predictor, OPTIONS)
    assert predictor.images_seen == 0
    assert features(output) == unbroken(scene, tmp_path)
    assert len(pyogrio.read_dataframe(output, layer="runs")) == 1


def test_too_little_memory_is_told_in_one_line(scene, tmp_path):
    def runs_out(progress):
        if progress.windows_done == 8:
            raise MemoryError

    with pytest.raises(OptionError, match=r"not enough memory: choose a smaller window.*8 finished windows kept"):
        segment_scene(scene, tmp_path / "out.gpkg", Company(), OPTIONS, runs_out)


@pytest.mark.parametrize("windows", [4, 20])
def test_a_full_disk_costs_nothing_that_was_found(scene, tiny_disk, tmp_path, windows):
    output, filler = tiny_disk / "out.gpkg", tiny_disk / "other"

    def fills(progress):
        if progress.windows_done == windows:
            with filler.open("wb", buffering=0) as file, suppress(OSError):
                while True:
                    file.write(b"x" * 4096)

    with pytest.raises(OutputError, match=r"disk is full.*finished windows? kept: run the same again") as error:
        segment_scene(scene, output, Company(), OPTIONS, fills)
    assert "\n" not in str(error.value)
    assert not output.exists()
    filler.unlink()
    predictor = Company()
    segment_scene(scene, output, predictor, OPTIONS)
    assert predictor.images_seen <= 20 - windows + 4
    assert features(output) == unbroken(scene, tmp_path)
    assert left_beside(output) == set()
