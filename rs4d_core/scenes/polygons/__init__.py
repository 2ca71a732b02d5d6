"""Polygons, whatever they come from: kept clean, measured on the ground, given right angles."""
