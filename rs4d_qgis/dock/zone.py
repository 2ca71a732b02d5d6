"""Where a run looks: a rectangle in the CRS that it was made in, a whole layer, or the polygons of a layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsMapLayer,
    QgsRasterLayer,
    QgsRectangle,
    QgsReferencedRectangle,
    QgsVectorLayer,
)

from rs4d_qgis.layers.bounds import bounds_in

VISIBLE, DRAWN, WHOLE, POLYGONS = KINDS = ("visible", "drawn", "whole", "polygons")


@dataclass(frozen=True)
class Zone:
    """Where to look.

    Attributes:
        kind: one of `KINDS`.
        bounds: west, south, east, north, in `crs_text`. A polygon layer's is its extent, for the day it is gone.
        crs_text: the CRS of `bounds`, as its code or, where it has none, as WKT; empty where there is no CRS.
        polygons: the id of the polygon layer, for that kind.
        selected_only: of its polygons, those that are selected.
    """

    kind: str
    bounds: tuple[float, float, float, float]
    crs_text: str = ""
    polygons: str | None = None
    selected_only: bool = False

    @classmethod
    def of(cls, kind: str, rectangle: QgsRectangle, crs: QgsCoordinateReferenceSystem, **more) -> Zone:
        """A zone whose bounds are a QGIS rectangle."""
        bounds = (rectangle.xMinimum(), rectangle.yMinimum(), rectangle.xMaximum(), rectangle.yMaximum())
        return cls(kind, bounds, _crs_text(crs), **more)

    @property
    def crs(self) -> QgsCoordinateReferenceSystem:
        """Of the bounds; invalid where there is none."""
        return QgsCoordinateReferenceSystem(self.crs_text) if self.crs_text else QgsCoordinateReferenceSystem()

    @property
    def rectangle(self) -> QgsReferencedRectangle:
        """The bounds, as QGIS has them."""
        return QgsReferencedRectangle(QgsRectangle(*self.bounds), self.crs)

    def within(self, layer: QgsMapLayer) -> QgsRectangle:
        """The part of the layer that lies in the bounds, in the layer's CRS; empty where they do not meet.

        Without a CRS on either side, the coordinates are taken to be the same.
        """
        extent = layer.extent()
        if self.kind == WHOLE:
            return extent
        here = bounds_in(layer.crs(), QgsRectangle(*self.bounds), self.crs)
        return extent.intersect(here) if here is not None and extent.intersects(here) else QgsRectangle()

    def fixed(self) -> Zone:
        """The same place, whatever the map shows later: how a zone is kept with a past run."""
        return replace(self, kind=DRAWN) if self.kind == VISIBLE else self

    def to_json(self) -> dict:
        """As plain lists and strings."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict) -> Zone:
        """What `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: something else.
        """
        west, south, east, north = (float(value) for value in fields["bounds"])
        if fields["kind"] not in KINDS:
            raise ValueError(f"no kind of zone: {fields['kind']}")
        polygons = fields.get("polygons")
        return cls(
            str(fields["kind"]),
            (west, south, east, north),
            str(fields.get("crs_text", "")),
            None if polygons is None else str(polygons),
            bool(fields.get("selected_only", False)),
        )


def whole_layer(layer: QgsRasterLayer) -> Zone:
    """All of a raster layer."""
    return Zone.of(WHOLE, layer.extent(), layer.crs())


def polygons_of(layer: QgsVectorLayer, selected_only: bool) -> Zone:
    """The polygons of a vector layer."""
    selected_only = selected_only and layer.selectedFeatureCount() > 0
    extent = layer.boundingBoxOfSelected() if selected_only else layer.extent()
    return Zone.of(POLYGONS, extent, layer.crs(), polygons=layer.id(), selected_only=selected_only)


def _crs_text(crs: QgsCoordinateReferenceSystem) -> str:
    if not crs.isValid():
        return ""
    # The user's own CRSs have codes too, which mean nothing on another machine.
    with_code = crs.authid() and not crs.authid().startswith("USER:")
    return crs.authid() if with_code else crs.toWkt(QgsCoordinateReferenceSystem.WKT_PREFERRED)
