"""The analyst's desk: a queue of objects to decide on, edits, export and evaluation of a layer of polygons."""
