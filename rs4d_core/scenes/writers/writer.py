"""One writer for all formats: instances go to a temporary GeoPackage; the result is made of it when all is there."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.scenes.writers import coco, formats, geopackage
from rs4d_core.scenes.writers.records import Feature, RunRecord
from rs4d_core.scenes.writers.replacement import Replacement, output_errors
from rs4d_core.wording import counted

SUFFIXES = (".gpkg", ".geojson", ".fgb", ".parquet", ".json")

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
    ):
        self.count = 0
        self.notes: tuple[str, ...] = ()
        self._replacement = replacement
        self._suffix = suffix
        self._crs_wkt = crs_wkt
        self._classes = tuple(classes)
        self._colors = tuple(colors)
        self._run = run
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
                geopackage.add_run(self._staged, self._run, seconds)
                self._expect(geopackage.count_features(self._staged, self._run.run))
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
                geopackage.append_features(self._staged, self._crs_wkt, self._buffer, self._run.run)
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
                self._replacement.take_place(self._staged)
            return
        target = self._replacement.part(self._suffix)
        if self._suffix == ".json":
            coco.write_coco(self._staged, target, self._classes, self._colors, self._run)
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
        for _ in range(MERGE_ATTEMPTS):
            geopackage.check_can_append(path, self._staged)
            before = geopackage.state(path)
            geopackage.snapshot(path, merged)
            geopackage.merge(self._staged, merged)
            geopackage.add_run(merged, self._run, seconds)
            self._expect(geopackage.count_features(merged, self._run.run))
            runs, instances = geopackage.count_all(merged)
            if geopackage.state(path) == before:
                self._replacement.take_place(merged)
                geopackage.drop_log(path)
                held = f"{counted(runs, 'run')}, {counted(instances, 'instance')} in all"
                self.notes = (f"{path} was there already: it now holds {held}",)
                return
            os.unlink(merged)
        raise OutputError(f"{path} is being changed by another program: close it there, or write to another file")

    def _expect(self, found: int) -> None:
        if found != self.count:
            raise OSError(f"{found} of {counted(self.count, 'instance')} reached the file")


def open_writer(
    path: Path | str, crs_wkt: str | None, classes: Sequence[str], colors: Sequence[str], run: RunRecord
) -> ResultWriter:
    """A writer whose format follows from the suffix of `path`.

    `.gpkg` is added to if it exists, any other format is replaced. All keep the scene's CRS, save GeoJSON (EPSG:4326)
    and COCO (`.json`: the scene's own pixels).

    Args:
        path: where the result goes; its folder must exist.
        crs_wkt: of the geometries; None for none.
        classes, colors: of the model, "#rrggbb"; COCO's categories.
        run: what is known of the run.

    Raises:
        OptionError: no such format.
        OutputError: the result could not be written there in the end.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise OptionError(f"{path}: no format is known by the ending {suffix!r}: use one of {', '.join(SUFFIXES)}")
    writer = ResultWriter(Replacement(Path(path)), suffix, crs_wkt, classes, colors, run)
    try:
        writer._create()
    except BaseException:
        writer.discard()
        raise
    return writer
