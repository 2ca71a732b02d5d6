"""The algorithms of the Processing toolbox, one in each file."""

from rs4d_qgis.algorithms.evaluate import EvaluateAlgorithm
from rs4d_qgis.algorithms.export import ExportAlgorithm
from rs4d_qgis.algorithms.postprocess import PostprocessAlgorithm
from rs4d_qgis.algorithms.segment import SegmentAlgorithm

ALGORITHMS = (SegmentAlgorithm, EvaluateAlgorithm, PostprocessAlgorithm, ExportAlgorithm)
