"""A run that goes on where it stopped: its journal, and whether that is the same run."""
