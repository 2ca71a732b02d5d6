"""The live score cut: how scores are spread, a line to drag, and what it leaves on the map."""
