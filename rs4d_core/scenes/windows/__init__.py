"""How a scene is cut into windows, and what a window shows: the unit of all work."""
