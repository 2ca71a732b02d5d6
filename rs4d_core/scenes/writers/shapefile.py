"""A finished result layer as a Shapefile: names of fields have 10 bytes there, texts 254, and it is several files."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pyogrio

from rs4d_core.scenes.layers.vector_layer import RESULT_LAYER
from rs4d_core.scenes.writers.replacement import move_whole
from rs4d_core.wording import counted

NAME_BYTES = 10
TEXT_BYTES = 254
PARTS = (".shx", ".dbf", ".prj", ".cpg", ".shp")


def existing_parts(path: Path) -> list[Path]:
    """Files of a Shapefile of this name that are there already: a new one would be mixed up with them."""
    return [part for suffix in PARTS if (part := path.with_suffix(suffix)).exists()]


def write_shapefile(staged: Path, target: Path) -> list[str]:
    """A Shapefile in UTF-8, of a staged result layer. Returns notes of what was cut."""
    frame = pyogrio.read_dataframe(staged, layer=RESULT_LAYER)
    names = short_names(name for name in frame.columns if name != "geometry")
    notes = [
        f"a Shapefile's field names have {NAME_BYTES} bytes at most: {old} is {new}"
        for old, new in names.items()
        if old != new
    ]
    frame = frame.rename(columns=names)
    for name in names.values():
        frame[name] = _storable(frame[name], name, notes)
    pyogrio.write_dataframe(
        frame,
        target,
        driver="ESRI Shapefile",
        geometry_type="MultiPolygon",
        encoding="UTF-8",
    )
    return notes


def move_shapefile(part: Path, path: Path) -> None:
    """Put the files of a Shapefile where they belong; the one that is opened comes last, when all are there."""
    for suffix in PARTS:
        piece = part.with_suffix(suffix)
        if piece.exists():  # without a CRS there is no .prj
            move_whole(piece, path.with_suffix(suffix))


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each name with one of at most 10 bytes in UTF-8 that no other has, whatever the case of letters.

    Names that fit stay as they are. Others are cut at a whole character; where that is taken, they end in a number.
    """
    names = list(names)
    short = {name: name for name in names if len(name.encode()) <= NAME_BYTES}
    taken: set[str] = set()
    for name in list(short):
        if name.casefold() in taken:  # GeoPackages tell capitals apart no more than Shapefiles do, other formats do
            del short[name]
        taken.add(name.casefold())
    for name in names:
        number, candidate = 0, short.get(name) or _cut(name, NAME_BYTES)
        while name not in short and candidate.casefold() in taken:
            number += 1
            candidate = f"{_cut(name, NAME_BYTES - len(f'_{number}'))}_{number}"
        short[name] = candidate
        taken.add(candidate.casefold())
    return {name: short[name] for name in names}


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _storable(values: pd.Series, name: str, notes: list[str]) -> pd.Series:
    """Values as dBase can hold them."""
    if pd.api.types.is_bool_dtype(values.dtype):
        return values.astype("int32")
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        values = values.map(lambda time: None if pd.isna(time) else time.isoformat())
    if not (pd.api.types.is_object_dtype(values.dtype) or pd.api.types.is_string_dtype(values.dtype)):
        return values
    texts = values.map(lambda value: None if value is None or value is pd.NA or value != value else str(value))
    texts = texts.astype(object).where(texts.notna(), None)
    long = texts.map(lambda text: text is not None and len(text.encode()) > TEXT_BYTES)
    if long.any():
        notes.append(f"{counted(int(long.sum()), 'text')} of {name} cut to {TEXT_BYTES} bytes")
        texts[long] = texts[long].map(lambda text: _cut(text, TEXT_BYTES))
    return texts
