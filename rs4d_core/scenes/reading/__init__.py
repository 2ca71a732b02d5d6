"""Scenes as they are on disk or at an address, and as a model sees them: `scene.Scene` is what the rest works with."""
