"""One writer for all formats: instances go to a temporary GeoPackage; the result is made of it when all is there."""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import shapely

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.scenes.writers import coco, formats, geopackage
from rs4d_core.scenes.writers.records import Feature, RunRecord
from rs4d_core.scenes.writers.replacement import Replacement, check_replaceable, output_errors
from rs4d_core.wording import counted

SUFFIXES = (".gpkg", ".geojson", ".fgb", ".parquet", ".json")


class EarlierPart(Protocol):
    """What is known of the part of a run that an interrupted attempt has put into the output.

    Attributes:
        written: digests, of which it has one if nobody has worked on it since; none where there was no attempt.
    """

    written: tuple[str, ...]

    def note_written(self, digest: str) -> None:
        """Called with the digest of what will be in the output once it is replaced, before it is."""


# A GeoPackage that others keep changing is merged anew this many times.
MERGE_ATTEMPTS = 5


class ResultWriter:
    """Takes instances as they are found. Made by `open_writer`.

    As a context manager it closes at the end of the block, and discards if the block was left by an exception: nothing
    is left behind then, and a file that was there before is as it was. An interrupted run that wants to keep what it
    has calls `close` itself.

    All formats are staged in a GeoPackage, as it alone can be appended to in batches; memory holds one batch. An
    existing GeoPackage is read when the run ends, not when it starts: it may be edited in QGIS meanwhile.

    Attributes:
        count: instances taken so far.
        run: as it is written; has another id than it was given where the part of it that an earlier attempt had
            written was changed since, and stays.
        notes: once it is closed, what the user should know of the file.
    """

    def __init__(
        self,
        replacement: Replacement,
        suffix: str,
        crs_wkt: str | None,
        classes: Sequence[str],
        colors: Sequence[str],
        run: RunRecord,
        earlier: EarlierPart | None,
    ):
        self.run = run
        self.count = 0
        self.notes: tuple[str, ...] = ()
        self._replacement = replacement
        self._suffix = suffix
        self._crs_wkt = crs_wkt
        self._classes = tuple(classes)
        self._colors = tuple(colors)
        self._earlier = earlier
        self._not_read: list[shapely.Polygon] = []
        self._buffer: list[Feature] = []
        self._started = time.monotonic()
        self._open = True
        self._staged = replacement.part(".gpkg")

    def add(self, features: Sequence[Feature]) -> None:
        """Take instances. Raises OutputError, and discards all, where they cannot be written."""
        self._buffer.extend(features)
        self.count += len(features)
        if len(self._buffer) >= geopackage.BATCH:
            self._flush()

    def not_read(self, polygons: Sequence[shapely.Polygon]) -> None:
        """Take the parts of the scene that could not be read. Only a GeoPackage holds them."""
        self._not_read.extend(polygons)

    def close(self, seconds: float | None = None) -> None:
        """Put the finished file in its place. `seconds`: what the run took, by default since the writer was opened.

        Raises:
            OutputError: it cannot be written; nothing is left behind, and a file that was there before is intact.
        """
        if not self._open:
            return
        seconds = time.monotonic() - self._started if seconds is None else seconds
        self._flush()
        try:
            with output_errors(self._replacement.path):
                geopackage.add_run(self._staged, self.run, seconds)
                self._expect(geopackage.count_features(self._staged, self.run.run))
                self._finish(seconds)
        finally:
            self.discard()

    def discard(self) -> None:
        """Forget everything that was taken."""
        if self._open:
            self._open = False
            self._buffer.clear()
            self._replacement.clear()

    def __enter__(self) -> "ResultWriter":
        return self

    def __exit__(self, kind, *_rest) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def _create(self) -> None:
        with output_errors(self._replacement.path):
            geopackage.create_layer(self._staged, self._crs_wkt)
            if self._appends():
                geopackage.check_can_append(self._replacement.path, self._staged)

    def _flush(self) -> None:
        if not self._buffer:
            return
        try:
            with output_errors(self._replacement.path):
                geopackage.append_features(self._staged, self._crs_wkt, self._buffer, self.run.run)
        except BaseException:
            self.discard()
            raise
        self._buffer.clear()

    def _appends(self) -> bool:
        path = self._replacement.path
        return self._suffix == ".gpkg" and path.exists() and path.stat().st_size > 0

    def _finish(self, seconds: float) -> None:
        if self._suffix == ".gpkg":
            if self._appends():
                self._append_to_existing(seconds)
            else:
                self._mark_not_read(self._staged)
                self._note(self._staged)
                self._replacement.take_place(self._staged)
            return
        target = self._replacement.part(self._suffix)
        if self._suffix == ".json":
            coco.write_coco(self._staged, target, self._classes, self._colors, self.run)
            self._expect(coco.count_coco(target))
        elif self._suffix == ".parquet":
            formats.write_geoparquet(self._staged, target)
            self._expect(formats.count_geoparquet(target))
        else:
            write = formats.write_geojson if self._suffix == ".geojson" else formats.write_flatgeobuf
            write(self._staged, target)
            self._expect(formats.count_ogr(target))
        self._replacement.take_place(target)

    def _append_to_existing(self, seconds: float) -> None:
        path = self._replacement.path
        merged = self._replacement.part(".merged.gpkg")
        before_us, notes = () if self._earlier is None else self._earlier.written, ()
        for _ in range(MERGE_ATTEMPTS):
            geopackage.check_can_append(path, self._staged)
            before = geopackage.state(path)
            geopackage.snapshot(path, merged)
            notes = self._make_room(merged, before_us) or notes
            geopackage.merge(self._staged, merged, self.run.run)
            geopackage.add_run(merged, self.run, seconds)
            self._mark_not_read(merged)
            self._expect(geopackage.count_features(merged, self.run.run))
            runs, instances = geopackage.count_all(merged)
            self._note(merged)
            if geopackage.state(path) == before:
                self._replacement.take_place(merged)
                geopackage.drop_log(path)
                held = f"{counted(runs, 'run')}, {counted(instances, 'instance')} in all"
                self.notes = (*notes, f"{path} was there already: it now holds {held}")
                return
            os.unlink(merged)
        raise OutputError(f"{path} is being changed by another program: close it there, or write to another file")

    def _make_room(self, merged: Path, written: tuple[str, ...]) -> tuple[str, ...]:
        """Take out the part of this run that an earlier attempt has written, unless somebody has worked on it."""
        there = geopackage.run_digest(merged, self.run.run)
        if there is None:
            return ()
        if there in written:
            geopackage.remove_run(merged, self.run.run)
            return ("the part that was kept when this run was interrupted is replaced by the whole",)
        before, (run, _) = self.run.run, RunRecord.new_id()
        self.run = replace(self.run, run=run)
        return (
            f"the part of this run that was kept when it was interrupted (run {before}) has been worked on since and "
            f"stays beside the whole (run {run}): remove one of them",
        )

    def _mark_not_read(self, path: Path) -> None:
        if self._not_read:
            geopackage.add_not_read(path, self._crs_wkt, self._not_read, self.run.run)

    def _note(self, path: Path) -> None:
        if self._earlier is not None:
            digest = geopackage.run_digest(path, self.run.run)
            if digest is not None:
                self._earlier.note_written(digest)

    def _expect(self, found: int) -> None:
        if found != self.count:
            raise OSError(f"{found} of {counted(self.count, 'instance')} reached the file")


def known_suffix(path: Path | str) -> str:
    """The suffix of a result, in small letters. Raises OptionError where it stands for no format."""
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"{path}: no format is known by the ending {suffix!r}: use one of {', '.join(SUFFIXES)}")
    return suffix


def check_output(path: Path | str) -> None:
    """See, before a long run, that a result can be written there. Raises OptionError or OutputError."""
    known_suffix(path)
    check_replaceable(Path(path))


def open_writer(
    path: Path | str,
    crs_wkt: str | None,
    classes: Sequence[str],
    colors: Sequence[str],
    run: RunRecord,
    earlier: EarlierPart | None = None,
    announce: Callable[[str], None] = lambda name: None,
) -> ResultWriter:
    """A writer whose format follows from the suffix of `path`.

    `.gpkg` is added to if it exists, any other format is replaced. All keep the scene's CRS, save GeoJSON (EPSG:4326)
    and COCO (`.json`: the scene's own pixels).

    Args:
        path: where the result goes; its folder must exist.
        crs_wkt: of the geometries; None for none.
        classes, colors: of the model, "#rrggbb"; COCO's categories.
        run: what is known of the run.
        earlier: what an interrupted attempt of the same run has left, of which the whole takes the place.
        announce: see `Replacement`.

    Raises:
        OptionError: no such format.
        OutputError: the result could not be written there in the end.
    """
    suffix = known_suffix(path)
    writer = ResultWriter(Replacement(Path(path), announce), suffix, crs_wkt, classes, colors, run, earlier)
    try:
        writer._create()
    except BaseException:
        writer.discard()
        raise
    return writer
