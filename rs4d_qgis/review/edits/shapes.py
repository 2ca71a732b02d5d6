"""What the edits make of shapes: merge, split, holes, drawing, fewer points. No layer, and no change to what is given.

All take and give polygons or multipolygons of one CRS; what they give is a valid multipolygon.
"""

from __future__ import annotations

from collections.abc import Iterable

from qgis.core import QgsGeometry, QgsPointXY
from qgis.PyQt.QtGui import QTransform

from rs4d_qgis.compat import POLYGON_GEOMETRY
from rs4d_qgis.review.errors import ReviewRefused
from rs4d_qgis.translation import tr

# Shares of a shape's area below which something is rounding, and no part of it.
_ROUNDING = 1e-9


def polygons(geometry: QgsGeometry) -> QgsGeometry:
    """The areas of any geometry as one valid multipolygon; null where it has none."""
    if geometry.isNull():
        return QgsGeometry()
    if not geometry.isGeosValid():
        geometry = geometry.makeValid()
    parts = [part for part in _parts(geometry) if part.type() == POLYGON_GEOMETRY and part.area() > 0]
    if not parts:
        return QgsGeometry()
    whole = QgsGeometry.collectGeometry(parts)
    whole.get().dropZValue()
    whole.get().dropMValue()
    return whole


def merged(shapes: list[QgsGeometry]) -> QgsGeometry:
    """The ground that any of them covers.

    Raises:
        ReviewRefused: there are fewer than two.
    """
    if len(shapes) < 2:
        raise ReviewRefused(tr("Select two objects or more on the map, to make them one"))
    return polygons(QgsGeometry.unaryUnion(shapes))


def drawn(points: list[QgsPointXY]) -> QgsGeometry:
    """The polygon inside of a ring that was drawn by hand; its last point need not be its first.

    Raises:
        ReviewRefused: the ring has no inside, or crosses itself.
    """
    ring = [point for place, point in enumerate(points) if place == 0 or point != points[place - 1]]
    if len(ring) > 1 and ring[0] == ring[-1]:
        ring.pop()
    if len(ring) < 3:
        raise ReviewRefused(tr("An outline needs three corners or more: nothing was changed"))
    polygon = QgsGeometry.fromPolygonXY([[*ring, ring[0]]])
    if not polygon.convexHull().area() > 0:
        raise ReviewRefused(tr("The outline that was drawn encloses no ground: nothing was changed"))
    if not polygon.isGeosValid():
        raise ReviewRefused(tr("The outline that was drawn crosses itself: draw it again. Nothing was changed"))
    return polygons(polygon)


def split(shape: QgsGeometry, line: list[QgsPointXY]) -> list[QgsGeometry]:
    """The pieces that a line cuts a shape into, the largest first; only the shape itself where it cuts nothing.

    Parts of a multipolygon that the line does not cut stay with the largest piece.
    """
    cut = QgsGeometry.fromPolylineXY(line) if len(line) > 1 else QgsGeometry()
    if cut.isNull() or not cut.length() > 0 or not cut.intersects(shape):
        return [shape]
    pieces, whole = [], []
    for part in _parts(shape):
        faces = _faces(part, cut)
        if len(faces) > 1:
            pieces.extend(faces)
        else:
            whole.append(part)
    if not pieces:
        return [shape]
    pieces.sort(key=lambda piece: -piece.area())
    pieces[0] = QgsGeometry.collectGeometry([pieces[0], *whole])
    return [polygons(piece) for piece in pieces]


def with_hole(shape: QgsGeometry, ring: QgsGeometry) -> QgsGeometry | None:
    """The shape without the ground of a ring inside of it; None where the ring is not, or leaves nothing."""
    if not shape.contains(ring):
        return None
    left = polygons(shape.difference(ring))
    return None if left.isNull() or not left.area() < shape.area() * (1 - _ROUNDING) else left


def filled(shape: QgsGeometry) -> QgsGeometry:
    """The shape without its holes."""
    return polygons(shape.removeInteriorRings())


def has_holes(shape: QgsGeometry) -> bool:
    """Whether it has any."""
    return not shape.isNull() and any(len(part.asPolygon()) > 1 for part in _parts(shape))


def simplified(shape: QgsGeometry, tolerance: tuple[float, float]) -> QgsGeometry:
    """The shape with fewer points, the very same where none can go.

    Args:
        tolerance: how far the outline may move, in units of x and of y, which differ where degrees are counted.
    """
    if not all(part > 0 for part in tolerance):
        return shape
    across, up = tolerance
    flat = QgsGeometry(shape)
    flat.transform(QTransform.fromScale(1.0, across / up))
    fewer = flat.simplify(across)
    if fewer.isNull() or _corners(fewer) >= _corners(flat):
        return shape
    fewer.transform(QTransform.fromScale(1.0, up / across))
    return polygons(fewer)


def without(shape: QgsGeometry, others: Iterable[QgsGeometry]) -> QgsGeometry:
    """The shape without the ground of others; null where nothing is left."""
    near = [other for other in others if other.intersects(shape)]
    return polygons(shape.difference(QgsGeometry.unaryUnion(near))) if near else shape


def iou(one: QgsGeometry, other: QgsGeometry) -> float:
    """Intersection over union, 0..1."""
    shared = one.intersection(other).area()
    return shared / (one.area() + other.area() - shared) if shared > 0 else 0.0


def _faces(part: QgsGeometry, cut: QgsGeometry) -> list[QgsGeometry]:
    """The faces of a polygon that a line leaves."""
    outline = QgsGeometry.fromMultiPolylineXY(part.asPolygon())
    net = QgsGeometry.unaryUnion([outline, cut])
    faces = QgsGeometry.polygonize([net]).asGeometryCollection()
    return [face for face in faces if part.contains(face.pointOnSurface())]


def _corners(shape: QgsGeometry) -> int:
    return shape.constGet().nCoordinates()


def _parts(geometry: QgsGeometry) -> list[QgsGeometry]:
    """Its simple parts, those of collections in a collection too."""
    if not geometry.isMultipart():
        return [geometry]
    return [simple for part in geometry.asGeometryCollection() for simple in _parts(part)]
