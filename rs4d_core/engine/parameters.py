"""What each method may be asked, and in which types. Whether a value makes sense is for the method to say."""

import math
import os
from collections.abc import Callable
from typing import Any

from rs4d_core.engine.protocol import INVALID_PARAMS, UNKNOWN_METHOD, ProtocolError

Reader = Callable[[Any], Any]


def read_params(method: str, params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a request, checked. Those that are null are left out, as if they had not been given.

    Raises:
        ProtocolError: the method is unknown, or a parameter is unknown, missing or of a wrong type.
    """
    if method not in PARAMETERS:
        raise ProtocolError(UNKNOWN_METHOD, f"unknown method {_shown(method)}: there are {', '.join(PARAMETERS)}")
    known = PARAMETERS[method]
    read = {}
    for name, value in params.items():
        if name not in known:
            takes = f"it takes {', '.join(known)}" if known else "it takes none"
            raise ProtocolError(INVALID_PARAMS, f"{method}: unknown parameter {_shown(name)}: {takes}")
        if value is not None:
            try:
                read[name] = known[name](value)
            except ValueError as error:
                raise ProtocolError(INVALID_PARAMS, f"{method}: {name} must be {error}") from None
    for name in _REQUIRED.get(method, ()):
        if name not in read:
            raise ProtocolError(INVALID_PARAMS, f"{method}: parameter {name!r} is missing")
    return read


def _shown(name: str) -> str:
    return repr(name if len(name) <= 60 else name[:60] + "...")


# Each reader raises ValueError with what the value must be.


def _text(value: Any) -> str:
    if isinstance(value, str) and "\0" not in value:
        try:
            value.encode()
            return value
        except UnicodeEncodeError:
            pass
    raise ValueError("a text")


def _path(value: Any) -> str:
    if isinstance(value, str) and value and "\0" not in value:
        try:
            os.fsencode(value)
            return value
        except UnicodeEncodeError:
            pass
    raise ValueError("a path")


def _number(value: Any) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError("a number")


def _whole(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ValueError("a whole number")


def _window(value: Any) -> int | str:
    if value == "auto":
        return value
    try:
        return _whole(value)
    except ValueError:
        raise ValueError('a whole number or "auto"') from None


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    raise ValueError("true or false")


def _each(reader: Reader, what: str, count: int | None = None) -> Reader:
    def read(value: Any) -> tuple:
        if isinstance(value, list) and count in (None, len(value)):
            try:
                return tuple(reader(item) for item in value)
            except ValueError:
                pass
        raise ValueError(what)

    return read


def _area(value: Any) -> dict[str, str | None]:
    if isinstance(value, dict) and value.keys() <= {"wkb", "crs_wkt"} and isinstance(value.get("wkb"), str):
        crs = value.get("crs_wkt")
        return {"wkb": value["wkb"], "crs_wkt": None if crs is None else _text(crs)}
    raise ValueError('{"wkb": hexadecimal, "crs_wkt": a text or null}')


def _polygon(value: Any) -> dict[str, Any]:
    if isinstance(value, dict) and value.keys() <= {"wkb", "class", "pixel_m"} and isinstance(value.get("wkb"), str):
        kind, pixel_m = value.get("class"), value.get("pixel_m")
        return {
            "wkb": value["wkb"],
            "class": None if kind is None else _text(kind),
            "pixel_m": None if pixel_m is None else _number(pixel_m),
        }
    raise ValueError("a polygon")


_names = _each(_text, "a list of names")

PARAMETERS: dict[str, dict[str, Reader]] = {
    "hello": {"model_folders": _each(_path, "a list of paths")},
    "segment": {
        "scene": _path,
        "output": _path,
        "journal": _path,
        "model": _path,
        "bands": _each(_whole, "a list of whole numbers"),
        "bbox": _each(_number, "four numbers: west, south, east, north", 4),
        "bbox_crs": _text,
        "area": _area,
        "resolution_m": _number,
        "window_px": _window,
        "overlap_px": _whole,
        "score": _number,
        "classes": _names,
        "regularize": _flag,
        "device": _text,
    },
    "outline": {
        "scene": _path,
        "box": _each(_number, "four numbers: west, south, east, north", 4),
        "box_crs": _text,
        "model": _path,
        "class": _text,
        "bands": _each(_whole, "a list of whole numbers"),
        "resolution_m": _number,
        "window_px": _whole,
        "regularize": _flag,
        "device": _text,
    },
    "reshape": {
        "features": _each(_polygon, 'a list of {"wkb": hexadecimal, "class": a text, "pixel_m": a number}'),
        "crs_wkt": _text,
        "simplify_m": _number,
        "regularize": _flag,
    },
    "evaluate": {"predicted": _path, "reference": _path, "iou": _number, "class_field": _text, "errors": _path},
    "export": {
        "layer": _path,
        "output": _path,
        "accepted": _flag,
        "scene": _path,
        "chip_px": _whole,
        "resolution_m": _number,
    },
    "postprocess": {
        "layer": _path,
        "output": _path,
        "score": _number,
        "classes": _names,
        "min_area_m2": _number,
        "simplify_m": _number,
        "regularize": _flag,
        "merge": _flag,
    },
    "shutdown": {},
}
_REQUIRED = {
    "segment": ("scene",),
    "outline": ("scene", "box"),
    "reshape": ("features", "crs_wkt"),
    "evaluate": ("predicted", "reference"),
    "export": ("layer", "output"),
    "postprocess": ("layer", "output"),
}
