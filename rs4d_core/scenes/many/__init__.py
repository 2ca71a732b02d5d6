"""Many scenes in one command: lists and folders, tiles as one scene, one layer from many scenes."""
