"""Writing the instances of a scene: GeoPackage, GeoJSON, FlatGeobuf, GeoParquet and COCO, chosen by suffix."""

from rs4d_core.scenes.writers.records import Feature, RunRecord
from rs4d_core.scenes.writers.writer import SUFFIXES, ResultWriter, check_output, open_writer

__all__ = ["SUFFIXES", "Feature", "ResultWriter", "RunRecord", "check_output", "open_writer"]
