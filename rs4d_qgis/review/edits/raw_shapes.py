"""The shapes as the runs found them, kept for the day when an edited object is to have its own back.

As long as an object is not `edited` in its file, its shape there is the raw one. The moment that an edited shape is
about to be saved over it, it is copied into a table beside the layer: in the same GeoPackage, so that it travels with
it and is there in any later review. The table has no geometry, and other programs take it for a list. In other formats,
and where the file cannot be written, raw shapes are kept as long as the review goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from osgeo import gdal, ogr
from qgis.core import NULL, QgsFeature, QgsFeatureRequest, QgsGeometry, QgsVectorLayer
from qgis.PyQt.QtCore import QByteArray

RAW_TABLE = "raw_shapes"
_FIELDS = (
    ("layer", ogr.OFTString),
    ("feature", ogr.OFTInteger64),
    ("run", ogr.OFTString),
    ("area_m2", ogr.OFTReal),
    ("wkb", ogr.OFTString),
)


class RawShape(NamedTuple):
    """What a run found.

    Attributes:
        geometry: in the layer's CRS.
        area_m2: as the run measured it; None where it did not.
    """

    geometry: QgsGeometry
    area_m2: float | None


class RawShapes:
    """The raw shapes of one layer."""

    def __init__(self, layer: QgsVectorLayer):
        self._layer = layer
        self._known: dict[int, RawShape] = {}
        self._path, self._table = _place(layer)

    def keep(self, ids: Iterable[int]) -> bool:
        """Keep the shapes that these features have in the file, of those that were not edited before they were saved.

        Returns:
            False where they could be kept in memory only.
        """
        raw = [feature for feature in self._saved(ids) if not feature["edited"]]
        self._known.update({feature.id(): _of(feature) for feature in raw})
        if not raw or self._path is None:
            return not raw
        return self._write(raw)

    def get(self, item: int) -> RawShape | None:
        """The shape that a feature had when its run found it; None where that is not known, as of what was drawn."""
        saved = next(iter(self._saved([item])), None)
        if saved is None:
            return None
        if not saved["edited"]:
            return _of(saved)
        if item not in self._known:
            self._read(saved)
        return self._known.get(item)

    def _saved(self, ids: Iterable[int]) -> list[QgsFeature]:
        # Those of the edit buffer alone have negative ids, which no file knows.
        request = QgsFeatureRequest().setFilterFids([item for item in ids if item >= 0])
        return list(self._layer.dataProvider().getFeatures(request))

    def _read(self, saved: QgsFeature) -> None:
        table = _opened(self._path, gdal.OF_VECTOR)
        rows = table.GetLayerByName(RAW_TABLE) if table is not None else None
        if rows is None:
            return
        rows.SetAttributeFilter(f"layer = '{_quoted(self._table)}' AND feature = {saved.id()}")
        for row in rows:
            # A number may have been given to another feature, in a file that another program has written anew.
            if row.GetField("run") == _text(saved["run"]):
                shape = QgsGeometry()
                shape.fromWkb(QByteArray.fromHex(row.GetField("wkb").encode()))
                self._known[saved.id()] = RawShape(shape, row.GetField("area_m2"))

    def _write(self, raw: list[QgsFeature]) -> bool:
        try:
            file = _opened(self._path, gdal.OF_VECTOR | gdal.OF_UPDATE)
            if file is None:
                return False
            rows = file.GetLayerByName(RAW_TABLE) or _made(file)
            if rows is None or rows.StartTransaction() != ogr.OGRERR_NONE:
                return False
            numbers = ", ".join(str(feature.id()) for feature in raw)
            rows.SetAttributeFilter(f"layer = '{_quoted(self._table)}' AND feature IN ({numbers})")
            for old in [row.GetFID() for row in rows]:
                rows.DeleteFeature(old)
            for feature in raw:
                row = ogr.Feature(rows.GetLayerDefn())
                row["layer"], row["feature"], row["run"] = self._table, feature.id(), _text(feature["run"])
                shape = _of(feature)
                row["wkb"] = bytes(shape.geometry.asWkb()).hex()
                if shape.area_m2 is not None:
                    row["area_m2"] = shape.area_m2
                if rows.CreateFeature(row) != ogr.OGRERR_NONE:
                    rows.RollbackTransaction()
                    return False
            return rows.CommitTransaction() == ogr.OGRERR_NONE
        except RuntimeError:  # where another plugin has switched GDAL to exceptions
            return False


def _of(feature: QgsFeature) -> RawShape:
    area = feature["area_m2"]
    return RawShape(QgsGeometry(feature.geometry()), None if area is None or area == NULL else float(area))


def _place(layer: QgsVectorLayer) -> tuple[str | None, str]:
    """The GeoPackage of a layer and its table there; None for layers of other kinds."""
    path, *options = layer.source().split("|")
    if layer.providerType() != "ogr" or not path.lower().endswith(".gpkg"):
        return None, ""
    named = [option.partition("=")[2] for option in options if option.lower().startswith("layername=")]
    if named:
        return path, named[0]
    file = _opened(path, gdal.OF_VECTOR)
    return (path, file.GetLayer(0).GetName()) if file is not None and file.GetLayerCount() else (None, "")


def _opened(path: str | None, flags: int) -> gdal.Dataset | None:
    if path is None:
        return None
    try:
        return gdal.OpenEx(path, flags)
    except RuntimeError:
        return None


def _made(file: gdal.Dataset) -> ogr.Layer | None:
    rows = file.CreateLayer(RAW_TABLE, None, ogr.wkbNone)
    if rows is not None:
        for name, kind in _FIELDS:
            rows.CreateField(ogr.FieldDefn(name, kind))
    return rows


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _text(value: object) -> str:
    return "" if value is None or value == NULL else str(value)
