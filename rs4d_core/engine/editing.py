"""The methods behind an analyst's edits: small work, answered while somebody waits in front of the map."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from pyproj import CRS
from pyproj.exceptions import CRSError
from shapely import MultiPolygon, Polygon
from shapely.errors import ShapelyError

from rs4d_core.engine.job import Job
from rs4d_core.engine.models import ModelCache
from rs4d_core.errors import OptionError
from rs4d_core.models.card import default_model_path
from rs4d_core.scenes.layers.postprocess import PIXEL_M
from rs4d_core.scenes.layers.reshape import Reshaper
from rs4d_core.scenes.outline import OutlineOptions
from rs4d_core.scenes.polygons.areal import multipolygons
from rs4d_core.scenes.polygons.ground import Ground
from rs4d_core.scenes.polygons.regularize import CURVED_CLASSES

_OUTLINE_OPTIONS = {field.name for field in dataclasses.fields(OutlineOptions)}


def outline(job: Job, models: ModelCache) -> dict[str, Any]:
    """Proposes the outline of the object in a box."""
    params = job.params
    options = {name: value for name, value in params.items() if name in _OUTLINE_OPTIONS}
    if "class" in params:
        options["class_name"] = params["class"]
    model = models.get(Path(params.get("model") or default_model_path()), params.get("device", "auto"))
    job.check()
    found = models.outliner.outline(params["scene"], model, OutlineOptions(**options), job.check)
    return {
        "wkb": shapely.to_wkb(found.geometry, hex=True),
        "class": found.class_name,
        "score": found.score,
        "area_m2": None if math.isnan(found.area_m2) else found.area_m2,
        "crs_wkt": found.crs_wkt,
        "resolution_m": found.resolution_m,
        "encoded": found.encoded,
        "model": model.name,
        "device": model.device,
        "notes": list(found.notes),
    }


def reshape(job: Job, _models: ModelCache) -> dict[str, Any]:
    """Gives polygons right angles where they nearly have them, or fewer points."""
    params = job.params
    simplify_m, straight = params.get("simplify_m", 0.0), params.get("regularize", False)
    if simplify_m < 0:
        raise OptionError(f"tolerance {simplify_m:g}: it must be 0 or more")
    if not (simplify_m or straight):
        raise OptionError("there is nothing to do: ask for regularize, for simplify_m, or for both")
    reshaper = Reshaper(_ground(params["crs_wkt"]), simplify_m)
    features = []
    for number, told in enumerate(params["features"], 1):
        job.check()
        before = _polygons(told["wkb"], number)
        pixel_m = PIXEL_M if told["pixel_m"] is None else told["pixel_m"]
        if pixel_m <= 0:
            raise OptionError(f"feature {number} has pixels of {pixel_m:g} m: they must be larger than 0")
        after = reshaper.reshape(before, pixel_m if straight and told["class"] not in CURVED_CLASSES else None)
        shape = multipolygons([after])[0]
        features.append({"wkb": shapely.to_wkb(shape, hex=True), "changed": after is not before})
    return {"features": features}


def _ground(crs: str) -> Ground:
    try:
        return Ground(CRS.from_user_input(crs).to_wkt())
    except CRSError as error:
        named = crs if len(crs) <= 60 else f"{crs[:60]}..."
        raise OptionError(f"the CRS {named!r} is unknown: give WKT, or a code such as EPSG:4326") from error


def _polygons(wkb: str, number: int) -> MultiPolygon:
    try:
        geometry = shapely.force_2d(shapely.from_wkb(wkb))
    except (ShapelyError, TypeError) as error:
        raise OptionError(f"feature {number} is not well-known binary ({error}): give a polygon") from error
    if not isinstance(geometry, Polygon | MultiPolygon):
        raise OptionError(f"feature {number} is a {geometry.geom_type}: give a polygon or a multipolygon")
    if not np.isfinite(shapely.get_coordinates(geometry)).all():
        raise OptionError(f"feature {number} has a coordinate that is not a number")
    (polygons,) = multipolygons([geometry])
    if polygons.is_empty:
        raise OptionError(f"feature {number} covers no ground: give a polygon that does")
    return polygons
