"""What `rs4d:segment` can be told, and how the engine takes it."""

from __future__ import annotations

import os
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBand,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsRectangle,
)

from rs4d_qgis.algorithms.engine_algorithm import EngineAlgorithm
from rs4d_qgis.algorithms.parameters import class_names, dissolved, wkt
from rs4d_qgis.compat import NUMBER_DOUBLE, NUMBER_INTEGER, SOURCE_POLYGON
from rs4d_qgis.translation import tr

# Of the engine's windows: see its plan of them.
WINDOW_STEP_PX = 32
LEAST_OVERLAP_PX = 16


class SegmentParameters(EngineAlgorithm):
    """The parameters and outputs of the algorithm."""

    INPUT = "INPUT"
    EXTENT = "EXTENT"
    AREA = "AREA"
    MODEL = "MODEL"
    CLASSES = "CLASSES"
    SCORE = "SCORE"
    RESOLUTION = "RESOLUTION"
    BANDS = "BANDS"
    WINDOW = "WINDOW"
    OVERLAP = "OVERLAP"
    REGULARIZE = "REGULARIZE"
    DEVICE = "DEVICE"
    OUTPUT = "OUTPUT"
    INSTANCES = "INSTANCES"
    RUN = "RUN"

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:
        self.add(
            QgsProcessingParameterRasterLayer(self.INPUT, tr("Raster layer")),
            tr("The imagery: a file, a web service (XYZ, WMS), a virtual layer."),
        )
        self.add(
            QgsProcessingParameterExtent(self.EXTENT, tr("Extent"), optional=True),
            tr("Only this part of the layer is looked at, in any CRS. Without it, all of the layer."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                self.AREA, tr("Look only inside these polygons"), [SOURCE_POLYGON], optional=True
            ),
            tr("Only what lies inside these polygons is kept; the rest is not even looked at. In any CRS."),
        )
        self.add(
            QgsProcessingParameterFile(self.MODEL, tr("Model file"), extension="safetensors", optional=True),
            tr("A model file of RS4D. Without it, the one that comes with the engine."),
        )
        self.add(
            QgsProcessingParameterString(
                self.CLASSES, tr("Classes to look for, such as: building, ship"), optional=True
            ),
            tr(
                "What to look for: names of the model's classes, with commas between them, such as: building, ship. "
                "Without it, all of them."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.SCORE,
                tr("Least score (0: the model's own)"),
                NUMBER_DOUBLE,
                defaultValue=0.0,
                minValue=0.0,
                maxValue=1.0,
            ),
            tr(
                "From 0 to 1: a higher one gives fewer and surer objects. 0 leaves it to the model, which has a score "
                "of its own for each class."
            ),
        )
        self.add(
            QgsProcessingParameterBoolean(self.REGULARIZE, tr("Right angles"), defaultValue=False),
            tr(
                "Straightens outlines, of buildings to right angles, where the shape stays nearly the same. Classes of "
                "curved things, such as ships, are left alone."
            ),
        )
        self.add(
            QgsProcessingParameterNumber(
                self.RESOLUTION,
                tr("Resolution to read at [metres a pixel]"),
                NUMBER_DOUBLE,
                optional=True,
                minValue=0.001,
            ),
            tr(
                "On the ground, in any CRS. Without it, the layer's own where the model was made for it, else the "
                "nearest that the model was made for."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBand(
                self.BANDS, tr("Bands"), parentLayerParameterName=self.INPUT, optional=True, allowMultiple=True
            ),
            tr(
                "Three bands to take as red, green and blue, or one for all three. Without it, those that the file "
                "says, else the first three."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(
                self.WINDOW, tr("Window [pixels]"), NUMBER_INTEGER, optional=True, minValue=32
            ),
            tr("Side of the squares that the model sees at once; a multiple of 32. Without it, the model's own."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterNumber(
                self.OVERLAP,
                tr("Overlap of windows [pixels]"),
                NUMBER_INTEGER,
                optional=True,
                minValue=LEAST_OVERLAP_PX,
            ),
            tr("How far neighbouring windows overlap. Objects may be larger. Without it, the model's own."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterString(self.DEVICE, tr("Device"), defaultValue="auto", optional=True),
            tr(
                "auto, cpu, cuda, or cuda:1 for the second graphics card. auto takes a graphics card where one can be "
                "used."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSink(self.OUTPUT, tr("Instances"), SOURCE_POLYGON),
            tr("The polygons, in the layer's CRS, each with class, score, review status and area in square metres."),
        )
        self.addOutput(QgsProcessingOutputNumber(self.INSTANCES, tr("Number of instances")))
        self.addOutput(QgsProcessingOutputString(self.RUN, tr("Id of the run")))

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        ok, reason = super().checkParameterValues(parameters, context)
        if not ok:
            return ok, reason
        window = self._integer(parameters, self.WINDOW, context)
        overlap = self._integer(parameters, self.OVERLAP, context)
        bands = self.parameterAsInts(parameters, self.BANDS, context)
        model = self.parameterAsString(parameters, self.MODEL, context)
        if window and window % WINDOW_STEP_PX:
            return False, tr("Window: {} is not a multiple of {}").format(window, WINDOW_STEP_PX)
        if window and overlap and overlap >= window:
            return False, tr("Overlap: {} px is not smaller than the window of {} px").format(overlap, window)
        if len(bands) not in (0, 1, 3):
            return False, tr("Bands: choose three (red, green, blue), or one, not {}").format(len(bands))
        if model and not os.path.isfile(model):
            return False, tr("Model: there is no file {}").format(model)
        return True, ""

    def extent_in(
        self, crs: QgsCoordinateReferenceSystem, parameters: dict[str, Any], context: QgsProcessingContext
    ) -> QgsRectangle | None:
        """The part of the layer that is asked for, in its `crs`; None for all of it."""
        extent = None
        if parameters.get(self.EXTENT) is not None:
            extent = self.parameterAsExtent(parameters, self.EXTENT, context, crs)
        area = self.parameterAsSource(parameters, self.AREA, context)
        if area is not None:
            transform = QgsCoordinateTransform(area.sourceCrs(), crs, context.transformContext())
            bounds = transform.transformBoundingBox(dissolved(area).boundingBox())
            extent = bounds if extent is None or extent.isNull() else extent.intersect(bounds)
        return None if extent is None or extent.isNull() else extent

    def options(self, parameters: dict[str, Any], context: QgsProcessingContext, has_crs: bool) -> dict[str, Any]:
        """The parameters of the engine's `segment` beside the scene, of which `has_crs` says whether it has a CRS."""
        options = {
            "model": self.parameterAsString(parameters, self.MODEL, context) or None,
            "classes": class_names(self.parameterAsString(parameters, self.CLASSES, context)),
            "score": self.parameterAsDouble(parameters, self.SCORE, context) or None,
            "bands": self.parameterAsInts(parameters, self.BANDS, context) or None,
            "window_px": self._integer(parameters, self.WINDOW, context),
            "overlap_px": self._integer(parameters, self.OVERLAP, context),
            "regularize": self.parameterAsBoolean(parameters, self.REGULARIZE, context),
            "device": self.parameterAsString(parameters, self.DEVICE, context).strip() or None,
        }
        if parameters.get(self.RESOLUTION) is not None:
            options["resolution_m"] = self.parameterAsDouble(parameters, self.RESOLUTION, context) or None
        if parameters.get(self.EXTENT) is not None:
            extent = self.parameterAsExtent(parameters, self.EXTENT, context)
            if not extent.isNull():
                crs = self.parameterAsExtentCrs(parameters, self.EXTENT, context)
                options["bbox"] = [extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()]
                # A scene without a CRS is asked for in its own coordinates.
                options["bbox_crs"] = wkt(crs) if has_crs else None
        area = self.parameterAsSource(parameters, self.AREA, context)
        if area is not None:
            shape = dissolved(area)
            if shape.isEmpty():
                raise QgsProcessingException(tr("Area: the layer has no polygon; choose another, or none"))
            options["area"] = {"wkb": bytes(shape.asWkb().toHex()).decode(), "crs_wkt": wkt(area.sourceCrs())}
        return options

    def _integer(self, parameters: dict[str, Any], name: str, context: QgsProcessingContext) -> int | None:
        """A number that may be left open; 0 stands for that too."""
        if parameters.get(name) is None:
            return None
        return self.parameterAsInt(parameters, name, context) or None
