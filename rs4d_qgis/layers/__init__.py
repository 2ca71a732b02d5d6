"""Raster layers that the engine can read, and the layers that its results become."""
