"""The labelled objects of vector layers: which polygons count, and of which class each is."""

from dataclasses import dataclass

import geopandas as gpd
import numpy as np

from rs4d_core.datasets.findings import DROPPED, OBJECT, Finding
from rs4d_core.errors import LayerError, OptionError
from rs4d_core.scenes.layers.vector_layer import CLASS_FIELD, REJECTED, STATUS_FIELD, as_text, read_vector_layer


@dataclass(frozen=True, eq=False)
class LabelLayer:
    """A layer's objects.

    Attributes:
        source: as the user gave it.
        frame: the polygons that count.
        names: `(N,)` class of each.
        findings: what was left out.
        notes: what was repaired at reading, one sentence each.
    """

    source: str
    frame: gpd.GeoDataFrame
    names: np.ndarray
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def read_labels(source: str, class_field: str | None, class_name: str | None) -> LabelLayer:
    """Read a layer; what a review has rejected and what has no class is left out.

    Args:
        source: see `read_vector_layer`.
        class_field: the field that names the class; by default `class`.
        class_name: the class of all polygons, in place of a field.

    Raises:
        OptionError: both a field and a name are given.
        LayerError: the layer cannot be read, has no polygons that count, or not the field.
    """
    if class_field is not None and class_name is not None:
        raise OptionError("give either a class field or one class name, not both")
    layer = read_vector_layer(source)
    frame, findings = layer.frame, []
    if STATUS_FIELD in frame:
        rejected = frame[STATUS_FIELD].eq(REJECTED)
        if rejected.any():
            findings.append(Finding(OBJECT, DROPPED, "rejected in review", source, count=int(rejected.sum())))
        frame = frame[~rejected]
    if class_name is not None:
        names = np.full(len(frame), class_name, dtype=object)
    else:
        field = class_field or CLASS_FIELD
        if field not in frame:
            fields = ", ".join(str(name) for name in frame.columns if name != "geometry") or "none"
            raise LayerError(
                f"{source}: no field '{field}'; its fields are {fields}: name the one with the classes "
                "(--class-field), or one class for all (--class-name)"
            )
        names = as_text(frame[field]).str.strip()
        nameless = frame[field].isna() | names.eq("")
        if nameless.any():
            findings.append(Finding(OBJECT, DROPPED, "no class", source, count=int(nameless.sum())))
        frame = frame[~nameless]
        names = names[~nameless].to_numpy(dtype=object)
    if not len(frame):
        raise LayerError(f"{source}: no labelled polygon in it; give a layer of polygons with their classes")
    return LabelLayer(source, frame.reset_index(drop=True), names, tuple(findings), layer.notes)


def label_numbers(layers: list[LabelLayer], known: tuple[str, ...]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """The classes, and the label of each object of each layer.

    Args:
        known: the classes that may occur, in their order; empty takes all that do, by name.

    Raises:
        LayerError: a class is not known.
    """
    occurring = sorted({name for layer in layers for name in layer.names})
    classes = known or tuple(occurring)
    places = {name: label for label, name in enumerate(classes)}
    for layer in layers:
        for name in dict.fromkeys(layer.names):
            if name not in places:
                raise LayerError(
                    f"{layer.source}: the class '{name}' is not a known one; the classes are {', '.join(classes)}: "
                    "correct the layer or name the class too"
                )
    return classes, [np.array([places[name] for name in layer.names], int) for layer in layers]
