"""Records as JSON: typed reading, validation, and the JSON Schema for other programs."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any, Literal

from vgbench.core.errors import UserError
from vgbench.records.record import FILE_NAME, SCHEMA_VERSION, Record


class _Invalid(Exception):
    """``args``: what is wrong, then the keys from the inside out."""


def _typed(check: Callable[[Any], bool], expected: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not check(value):
            raise _Invalid(f"expected {expected}, found {type(value).__name__} {json.dumps(value)[:40]}")
        return value

    return convert


def _number(value: Any) -> bool:
    if type(value) is not float and (not isinstance(value, int) or isinstance(value, bool)):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max  # also for whole numbers that no float can hold


_SCALARS: dict[Any, Callable[[Any], Any]] = {
    str: _typed(lambda value: isinstance(value, str), "a text"),
    bool: _typed(lambda value: isinstance(value, bool), "true or false"),
    int: _typed(lambda value: isinstance(value, int) and not isinstance(value, bool), "a whole number"),
    float: _typed(_number, "a finite number"),
    Any: lambda value: value,
}


def _members(items: Iterable[tuple[Any, Any]], convert: Callable[[Any], Any]) -> Iterable[tuple[Any, Any]]:
    for key, value in items:
        try:
            yield key, convert(value)
        except _Invalid as error:
            raise _Invalid(*error.args, key) from None


@functools.cache
def _converter(kind: Any) -> Callable[[Any], Any]:
    """A function that turns parsed JSON into a value of the annotated type, or raises :class:`_Invalid`."""
    if kind in _SCALARS:
        return _SCALARS[kind]
    if dataclasses.is_dataclass(kind):
        return _dataclass_converter(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        (inner,) = (_converter(argument) for argument in arguments if argument is not type(None))
        return lambda value: None if value is None else inner(value)
    if origin is Literal:
        return _typed(lambda value: value in arguments, f"one of {', '.join(map(str, arguments))}")
    if origin is list:
        item, is_list = _converter(arguments[0]), _typed(lambda value: isinstance(value, list), "a list")
        return lambda value: [kept for _, kept in _members(enumerate(is_list(value)), item)]
    assert origin is dict, kind
    item, is_object = _converter(arguments[1]), _typed(lambda value: isinstance(value, dict), "an object")
    return lambda value: dict(_members(is_object(value).items(), item))


def _required(members: Iterable[dataclasses.Field[Any]]) -> list[str]:
    """Names of those without a default."""
    missing = dataclasses.MISSING
    return [item.name for item in members if item.default is missing and item.default_factory is missing]


def _dataclass_converter(kind: Any) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    stored = [item for item in dataclasses.fields(kind) if item.metadata.get("stored", True)]
    converters = {item.name: _converter(hints[item.name]) for item in stored}
    required = _required(stored)

    def convert(value: Any) -> Any:
        if not isinstance(value, dict):
            raise _Invalid(f"expected an object, found {type(value).__name__}")
        arguments = {}
        for key, member in value.items():
            if key not in converters:
                raise _Invalid("unknown key", key)
            try:
                arguments[key] = converters[key](member)
            except _Invalid as error:
                raise _Invalid(*error.args, key) from None
        for key in required:
            if key not in value:
                raise _Invalid("missing key", key)
        return kind(**arguments)

    return convert


def from_dict(value: Any, source: str = FILE_NAME) -> Record:
    """A record from parsed JSON; ``source`` is named in messages.

    Raises:
        UserError: naming the file and the key, if the version is newer than this code's, a key is missing or unknown,
            or a value has the wrong type.
    """
    if not isinstance(value, dict) or not isinstance(value.get("schema"), int):
        raise UserError(f'{source}: not a record of vgbench (no "schema" number)')
    if value["schema"] > SCHEMA_VERSION:
        raise UserError(
            f"{source}: schema {value['schema']} is newer than this vgbench reads ({SCHEMA_VERSION}); upgrade vgbench"
        )
    if value["schema"] < 1:
        raise UserError(f"{source}: schema: there is no version {value['schema']}")
    try:
        return _converter(Record)(value)
    except _Invalid as error:
        message, *keys = error.args
        raise UserError(f"{source}: {'.'.join(str(key) for key in reversed(keys)) or 'top level'}: {message}") from None


def json_schema() -> dict[str, Any]:
    """The dataclasses above as a JSON Schema (draft 2020-12); ``leaderboards/record.schema.json`` is a copy of it."""
    definitions: dict[str, Any] = {}
    top = _schema_of(Record, definitions)
    definitions["Record"]["properties"]["schema"] = {"const": SCHEMA_VERSION}
    definitions["Record"]["required"].append("schema")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": FILE_NAME, **top, "$defs": definitions}


def _schema_of(kind: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    """What :func:`_converter` accepts for an annotated type; dataclasses go into ``definitions``."""
    scalars = {str: "string", bool: "boolean", int: "integer", float: "number"}
    if kind in scalars:
        return {"type": scalars[kind]}
    if kind is Any:
        return {}
    if dataclasses.is_dataclass(kind):
        name = getattr(kind, "__name__", "")
        if name not in definitions:
            hints = typing.get_type_hints(kind)
            stored = [item for item in dataclasses.fields(kind) if item.metadata.get("stored", True)]
            definitions[name] = {
                "type": "object",
                "properties": {item.name: _schema_of(hints[item.name], definitions) for item in stored},
                "required": _required(stored),
                "additionalProperties": False,
            }
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_schema_of(a, definitions) if a is not type(None) else {"type": "null"} for a in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": _schema_of(arguments[0], definitions)}
    assert origin is dict, kind
    return {"type": "object", "additionalProperties": _schema_of(arguments[1], definitions)}


def to_dict(record: Record) -> dict[str, Any]:
    """Plain JSON values, as they are stored. Numbers of the configuration that JSON has not become texts ("inf")."""
    value = dataclasses.asdict(record)
    value["config"] = _finite(value["config"])
    for item in dataclasses.fields(record):
        if not item.metadata.get("stored", True):
            del value[item.name]
    return {"schema": value.pop("schema"), **value}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
