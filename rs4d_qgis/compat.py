"""Names that moved between QGIS 3.22 and 4, and between PyQt5 and PyQt6. Everything else is the same in all of them."""

from __future__ import annotations

from qgis.core import (
    Qgis,
    QgsField,
    QgsMapLayerProxyModel,
    QgsProcessing,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterNumber,
    QgsProject,
    QgsSymbolLayer,
    QgsTask,
    QgsUnitTypes,
    QgsWkbTypes,
)
from qgis.PyQt import QtCore, QtGui, QtWidgets
from qgis.PyQt.QtCore import QMetaType, Qt, QVariant
from qgis.PyQt.QtGui import QKeyEvent, QKeySequence, QMouseEvent

# In Qt 6 they are no widgets.
QAction = QtGui.QAction if hasattr(QtGui, "QAction") else QtWidgets.QAction
QUndoCommand = QtGui.QUndoCommand if hasattr(QtGui, "QUndoCommand") else QtWidgets.QUndoCommand

# Geometry types: 3.30.
if hasattr(Qgis, "WkbType"):
    MULTIPOLYGON = Qgis.WkbType.MultiPolygon
    NO_GEOMETRY = Qgis.WkbType.NoGeometry
    LINE_GEOMETRY = Qgis.GeometryType.Line
    POLYGON_GEOMETRY = Qgis.GeometryType.Polygon
else:
    MULTIPOLYGON = QgsWkbTypes.Type.MultiPolygon
    NO_GEOMETRY = QgsWkbTypes.Type.NoGeometry
    LINE_GEOMETRY = QgsWkbTypes.GeometryType.LineGeometry
    POLYGON_GEOMETRY = QgsWkbTypes.GeometryType.PolygonGeometry

# Properties of symbol layers: 3.36.
if hasattr(QgsSymbolLayer.Property, "StrokeWidth"):
    FILL_COLOR = QgsSymbolLayer.Property.FillColor
    STROKE_WIDTH = QgsSymbolLayer.Property.StrokeWidth
else:
    FILL_COLOR = QgsSymbolLayer.Property.PropertyFillColor
    STROKE_WIDTH = QgsSymbolLayer.Property.PropertyStrokeWidth

# Units: 3.30.
if hasattr(Qgis, "DistanceUnit"):
    DISTANCE_METERS = Qgis.DistanceUnit.Meters
    AREA_SQUARE_METERS = Qgis.AreaUnit.SquareMeters
else:
    DISTANCE_METERS = QgsUnitTypes.DistanceUnit.DistanceMeters
    AREA_SQUARE_METERS = QgsUnitTypes.AreaUnit.AreaSquareMeters

# Filters of layer combo boxes: 3.34.
if hasattr(Qgis, "LayerFilter"):
    RASTER_LAYERS = Qgis.LayerFilter.RasterLayer
    POLYGON_LAYERS = Qgis.LayerFilter.PolygonLayer
else:
    RASTER_LAYERS = QgsMapLayerProxyModel.Filter.RasterLayer
    POLYGON_LAYERS = QgsMapLayerProxyModel.Filter.PolygonLayer

# Processing: 3.34 to 3.36.
if hasattr(Qgis, "ProcessingSourceType"):
    SOURCE_POLYGON = Qgis.ProcessingSourceType.VectorPolygon
else:
    SOURCE_POLYGON = QgsProcessing.SourceType.TypeVectorPolygon
if hasattr(Qgis, "ProcessingParameterFlag"):
    ADVANCED = Qgis.ProcessingParameterFlag.Advanced
else:
    ADVANCED = QgsProcessingParameterDefinition.Flag.FlagAdvanced
if hasattr(Qgis, "ProcessingNumberParameterType"):
    NUMBER_DOUBLE = Qgis.ProcessingNumberParameterType.Double
    NUMBER_INTEGER = Qgis.ProcessingNumberParameterType.Integer
else:
    NUMBER_DOUBLE = QgsProcessingParameterNumber.Type.Double
    NUMBER_INTEGER = QgsProcessingParameterNumber.Type.Integer

# Tasks that QGIS announces the end of only where they say so themselves: 3.26.
QUIET_TASK = QgsTask.Flag.CanCancel
if hasattr(QgsTask.Flag, "Silent"):
    QUIET_TASK |= QgsTask.Flag.Silent

# Types of fields: QMetaType from 3.38 on, and the only one with Qt 6.
try:
    QgsField("probe", QMetaType.Type.QString)
    FIELD_TEXT = QMetaType.Type.QString
    FIELD_REAL = QMetaType.Type.Double
    FIELD_BOOLEAN = QMetaType.Type.Bool
except TypeError:
    FIELD_TEXT = QVariant.Type.String
    FIELD_REAL = QVariant.Type.Double
    FIELD_BOOLEAN = QVariant.Type.Bool


def has_transaction_groups(project: QgsProject) -> bool:
    """Whether QGIS makes the edits of all layers of one file a database transaction. Modes: 3.26."""
    if hasattr(Qgis, "TransactionMode"):
        return project.transactionMode() == Qgis.TransactionMode.AutomaticGroups
    return project.autoTransaction()


def key_of(event: QKeyEvent) -> QKeySequence:
    """The key of an event with its modifiers. The number pad's digits are as good as others."""
    keypad = Qt.KeyboardModifier.KeypadModifier
    if hasattr(event, "keyCombination"):  # Qt 6
        return QKeySequence(QtCore.QKeyCombination(event.modifiers() & ~keypad, Qt.Key(event.key())))
    return QKeySequence(event.key() | int(event.modifiers() & ~keypad))


def x_of(event: QMouseEvent) -> float:
    """Where the mouse is, in pixels from the widget's left."""
    return event.position().x() if hasattr(event, "position") else float(event.x())
