"""A scene in, a layer of polygons out: `pipeline` is the whole of it, `many.runs` that for many scenes."""
