"""How a run tells of itself to whoever shows it while it goes on."""

from qgis.core import QgsProcessingFeedback
from qgis.PyQt.QtCore import pyqtSignal


class RunFeedback(QgsProcessingFeedback):
    """Feedback that `rs4d:segment` also gives its polygons to, as they are found.

    The signals are emitted on the thread that the algorithm runs on. Slots of objects of the main thread are called
    there.

    Signals:
        layerReady: `(QgsFields, QgsCoordinateReferenceSystem)` of what will be found; before the first window.
        instancesFound: a list of `QgsFeature` with these fields, in this CRS.
        progressTold: the engine's notification `progress`, as a dict.
        runFinished: the engine's result of `segment`, as a dict; also of a run that was cancelled.
    """

    layerReady = pyqtSignal(object)
    instancesFound = pyqtSignal(object)
    progressTold = pyqtSignal(object)
    runFinished = pyqtSignal(object)
