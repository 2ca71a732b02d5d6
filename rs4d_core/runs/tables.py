"""Settings as TOML: frozen dataclasses read strictly, with overrides from the command line, and written as run.

A dataclass that is one of several that may stand in a place names itself by a class attribute `KIND`, which its table
repeats as `kind = "..."`.
"""

import dataclasses
import difflib
import json
import math
import sys
import types
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from rs4d_core.errors import RecipeError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Settings = TypeVar("Settings")


def read_settings(cls: type[Settings], path: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read a TOML file as a `cls`, with overrides such as `optimization.lr=1e-4` or `datasets.nwpu.weight=0.5`.

    Raises:
        RecipeError: no such file, not TOML, an unknown key, or a value that cannot work.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"cannot read the recipe {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"the recipe {path} is not UTF-8 text") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"the recipe {path} is not valid TOML: {error}") from error
    for override in overrides:
        _apply_override(table, override)
    return from_table(cls, table)


def from_table(cls: type[Settings], table: dict[str, Any]) -> Settings:
    """A `cls` of nested dicts, lists and scalars, as TOML and JSON give them.

    Raises:
        RecipeError: an unknown or a missing setting, or a value that cannot work.
    """
    return _build(cls, table, "")


def to_table(value: Any) -> Any:
    """Settings as nested dicts, lists and scalars; those that are None are left out. Inverse of `from_table`."""
    if dataclasses.is_dataclass(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        table = {name: to_table(entry) for name, entry in fields.items() if entry is not None}
        return {"kind": value.KIND, **table} if hasattr(value, "KIND") else table
    return [to_table(entry) for entry in value] if isinstance(value, tuple) else value


def to_toml(settings: Any) -> str:
    """TOML text that `read_settings` reads back to equal settings."""
    lines: list[str] = []
    for name, value in to_table(settings).items():
        if isinstance(value, list):
            for entry in value:
                lines += [f"[[{name}]]", *_toml_lines(entry), ""]
        else:
            lines += [f"[{name}]", *_toml_lines(value), ""]
    return "\n".join(lines)


def differences(one: Any, other: Any) -> list[str]:
    """Dotted names of the settings in which two recipes differ, the order of named tables among them."""
    first, second = _flatten(to_table(one)), _flatten(to_table(other))
    return sorted(key for key in first.keys() | second.keys() if first.get(key) != second.get(key))


def _apply_override(table: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    keys = [key.strip() for key in path.split(".")]
    if not equals or not all(keys):
        raise RecipeError(f'--set "{override}" is not of the form section.setting=value')
    node: Any = table
    for depth, key in enumerate(keys[:-1]):
        node = _entry(node, key, ".".join(keys[: depth + 1]))
    if not isinstance(node, dict):
        raise RecipeError(f'--set "{override}": {".".join(keys[:-1])} has no settings of its own')
    node[keys[-1]] = _override_value(text.strip())


def _entry(node: Any, key: str, where: str) -> Any:
    """The table `key` of a table, or of a list of named tables such as `datasets`."""
    if isinstance(node, list):
        node = [entry for entry in node if isinstance(entry, dict) and isinstance(entry.get("name"), str)]
        for entry in node:
            if entry["name"] == key:
                return entry
        raise RecipeError(f"--set {where}: nothing has this name{_nearest(key, [entry['name'] for entry in node])}")
    if not isinstance(node, dict):
        raise RecipeError(f"--set {where}: there is no such section")
    return node.setdefault(key, {})


@dataclasses.dataclass(frozen=True)
class _Bare:
    """What a shell hands over without quotes, and TOML does not take for a text: `32` may be meant as one."""

    text: str
    value: Any


def _override_value(text: str) -> Any:
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        # A bare word, as shells hand it over: --set model.preset=small
        return text
    return value if isinstance(value, (str, list, dict)) else _Bare(text, value)


def _nearest(key: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(key, list(known), n=1, cutoff=0.5)
    return f'; did you mean "{close[0]}"?' if close else f"; known here: {', '.join(known)}"


def _build(cls: type, table: Any, where: str) -> Any:
    if not isinstance(table, dict):
        raise RecipeError(f"{where or 'the recipe'} must be a table of settings")
    prefix = f"{where}." if where else ""
    types_by_name = typing.get_type_hints(cls)
    hints = {f.name: types_by_name[f.name] for f in dataclasses.fields(cls)}
    for key in table:
        if key not in hints:
            raise RecipeError(f'unknown setting "{prefix}{key}"{_nearest(key, hints)}')
    required = [
        f.name
        for f in dataclasses.fields(cls)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    for name in required:
        if name not in table:
            raise RecipeError(f'the recipe lacks the setting "{prefix}{name}"')
    return cls(**{key: _convert(hints[key], value, prefix + key) for key, value in table.items()})


def _build_kind(classes: list[type], table: Any, where: str) -> Any:
    """One of several classes, by the table's `kind`."""
    kinds = {cls.KIND: cls for cls in classes}
    if not isinstance(table, dict) or table.get("kind") not in kinds:
        raise RecipeError(f"{where} needs kind = one of {', '.join(kinds)}")
    settings = {key: value for key, value in table.items() if key != "kind"}
    return _build(kinds[table["kind"]], settings, where)


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type that a dataclass field's hint asks for."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType or origin is typing.Union:
        options = [argument for argument in arguments if argument is not types.NoneType]
        return _build_kind(options, value, where) if len(options) > 1 else _convert(options[0], value, where)
    if isinstance(value, _Bare):
        value = value.text if hint is str else value.value
    if origin is tuple:
        if not isinstance(value, list):
            raise RecipeError(f"{where} must be a list")
        if arguments[-1] is Ellipsis:
            arguments = (arguments[0],) * len(value)
        if len(arguments) != len(value):
            raise RecipeError(f"{where} must have {len(arguments)} values, not {len(value)}")
        names = [entry.get("name") if isinstance(entry, dict) else None for entry in value]
        places = [f"{where}.{name}" if name else f"{where}[{i}]" for i, name in enumerate(names)]
        return tuple(_convert(a, v, place) for a, v, place in zip(arguments, value, places, strict=True))
    if origin is dict:
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise RecipeError(f"{where} must be a table of names")
        return dict(value)
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is float and not math.isfinite(value):
        raise RecipeError(f"{where} is {value}: it must be a finite number")
    if type(value) is not hint:
        raise RecipeError(f"{where} is {value!r}: it must be of type {hint.__name__}")
    return value


def _toml_lines(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {_toml_value(value)}" for key, value in table.items()]


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(entry) for entry in value) + "]"
    # Strings, numbers and booleans are written alike in JSON and TOML.
    return json.dumps(value, ensure_ascii=False)


def _flatten(node: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(node, list) and node and isinstance(node[0], dict):
        named = {entry["name"]: entry for entry in node}
        return {f"order of {prefix}": list(named), **_flatten(named, prefix)}
    if not isinstance(node, dict):
        return {prefix: node}
    return {
        key: leaf
        for name, entry in node.items()
        for key, leaf in _flatten(entry, f"{prefix}.{name}" if prefix else name).items()
    }
