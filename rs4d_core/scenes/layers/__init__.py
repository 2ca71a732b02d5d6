"""Layers of polygons after the fact: read from any vector file, processed, exported, drawn."""
