"""The segment panel: choose imagery, model and place, run, and see polygons on the map."""
