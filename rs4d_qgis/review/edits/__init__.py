"""Edits of outlines, each one step of QGIS's own undo."""
