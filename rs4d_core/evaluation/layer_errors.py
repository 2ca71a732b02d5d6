"""What is wrong with predicted polygons, one by one: missed, false, badly shaped, of a wrong class."""

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio

from rs4d_core.errors import OptionError, OutputError
from rs4d_core.evaluation.layer_matching import Matcher
from rs4d_core.scenes.writers.geopackage import GEOPACKAGE_VERSION
from rs4d_core.scenes.writers.replacement import Replacement, check_replaceable, output_errors

MISSED = "missed"
FALSE = "false"
BADLY_SHAPED = "badly shaped"
WRONG_CLASS = "wrong class"
KINDS = (MISSED, FALSE, BADLY_SHAPED, WRONG_CLASS)

ERRORS_LAYER = "errors"
# Less overlap than this is a neighbour that is touched, not the object itself.
SAME_OBJECT_IOU = 0.1


@dataclass(frozen=True)
class Mistake:
    """One error.

    Attributes:
        kind: one of `KINDS`.
        found: the prediction's number; None where there is none.
        truth: the reference polygon's number; None where there is none.
        iou: of the two, 0 where one is missing.
    """

    kind: str
    found: int | None
    truth: int | None
    iou: float


def find_mistakes(matcher: Matcher, iou: float) -> list[Mistake]:
    """Every polygon without a match, in exactly one error each; missed ones first, then by falling score, those of no
    known score last.

    A prediction and a reference polygon of its class that overlap, but less than a match asks for, are one object badly
    shaped. Of the rest, two of different classes that overlap as a match would are one object of a wrong class. What is
    still left is false, or missed.
    """
    taken: set[int] = set()
    left = matcher.ranked(None)
    mistakes: list[Mistake] = []
    for kind, least, same_class in (
        (None, iou, True),
        (BADLY_SHAPED, min(SAME_OBJECT_IOU, iou), True),
        (WRONG_CLASS, iou, False),
    ):
        matches = matcher.match(left, least, taken, same_class)
        if kind is not None:
            mistakes += [Mistake(kind, i, match[1], match[0]) for i, match in zip(left, matches, strict=True) if match]
        left = [i for i, match in zip(left, matches, strict=True) if match is None]
    mistakes += [Mistake(FALSE, i, None, 0.0) for i in left]
    place = {found: number for number, found in enumerate(matcher.ranked(None))}
    mistakes.sort(key=lambda mistake: place[mistake.found])
    return [Mistake(MISSED, None, j, 0.0) for j in range(matcher.truth_count) if j not in taken] + mistakes


def check_errors_path(path: Path) -> None:
    """See, before the work, that errors can be written there. Raises OptionError or OutputError."""
    if path.suffix.lower() != ".gpkg":
        raise OptionError(f"{path}: errors are written as GeoPackage: give a name that ends in .gpkg")
    if path.exists():
        raise OutputError(f"{path} is there already: choose another name for the errors")
    check_replaceable(path)


def write_mistakes(
    path: Path, mistakes: list[Mistake], matcher: Matcher, found: gpd.GeoDataFrame, truth: gpd.GeoDataFrame
) -> None:
    """A new GeoPackage with the layer `errors`: kind, class, reference_class, score (NULL where unknown), iou.

    The outline is the prediction's; that of the reference where something was missed.

    Args:
        found, truth: what was compared, in one CRS, which becomes that of the layer.

    Raises:
        OutputError: it cannot be written; nothing is left behind.
    """
    shapes, predicted = truth.geometry.to_numpy(), found.geometry.to_numpy()
    geometries = [shapes[m.truth] if m.found is None else predicted[m.found] for m in mistakes]
    frame = gpd.GeoDataFrame(
        {
            "kind": pd.Series([m.kind for m in mistakes], dtype=object),
            "class": pd.Series([_name(matcher.found_classes, m.found) for m in mistakes], dtype=object),
            "reference_class": pd.Series([_name(matcher.truth_classes, m.truth) for m in mistakes], dtype=object),
            "score": np.array([np.nan if m.found is None else matcher.scores[m.found] for m in mistakes], dtype=float),
            "iou": np.array([m.iou for m in mistakes], dtype=float),
        },
        geometry=geometries,
        crs=found.crs,
    )
    replacement = Replacement(path)
    try:
        with output_errors(path):
            part = replacement.part(".gpkg")
            pyogrio.write_dataframe(
                frame,
                part,
                layer=ERRORS_LAYER,
                driver="GPKG",
                geometry_type="MultiPolygon",
                promote_to_multi=True,
                dataset_options={"VERSION": GEOPACKAGE_VERSION},
            )
            replacement.take_place(part)
    finally:
        replacement.clear()


def _name(classes: np.ndarray | None, number: int | None) -> str | None:
    return None if classes is None or number is None else classes[number]
