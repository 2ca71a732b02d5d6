"""The desk's queue on the screen: what it holds, the current object, its place on the map, and decisions."""
