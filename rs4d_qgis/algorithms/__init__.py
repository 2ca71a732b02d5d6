"""The algorithms of the Processing toolbox, one in each file."""

from rs4d_qgis.algorithms.segment import SegmentAlgorithm

ALGORITHMS = (SegmentAlgorithm,)
