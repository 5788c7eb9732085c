"""Whether a value meets a JSON schema, for the keywords that plans and answers need.

A schema with any other keyword is refused before a model is asked, so that nothing in it is
silently left unchecked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs"}
_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "null": (type(None),),
}
_CHECKED = {
    "type", "enum", "const", "anyOf", "oneOf", "allOf", "$ref",
    "properties", "required", "additionalProperties", "minProperties", "maxProperties",
    "items", "minItems", "maxItems", "uniqueItems",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern",
}  # fmt: skip


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse a schema that could not be checked whole; raises ValueError (a programmer's error)."""
    for place, part in _parts(schema, "schema"):
        unknown = sorted(set(part) - _CHECKED - _NOTES)
        if unknown:
            raise ValueError(f"{place} has the keyword {unknown[0]!r}, which is not checked here")
        kinds = part.get("type", [])
        for kind in [kinds] if isinstance(kinds, str) else kinds:
            if kind not in _TYPES:
                raise ValueError(f"{place}.type={kind!r} is no type of JSON")
        if "$ref" in part:
            _resolved(part["$ref"], schema)
        if "pattern" in part:
            re.compile(part["pattern"])


def faults(value: object, schema: Mapping[str, Any]) -> list[str]:
    """What is wrong with a value, each as one sentence that names the place (``$.plans[0].why``);
    empty if it meets the schema."""
    return list(_faults(value, schema, "$", schema))


def _parts(schema: Any, place: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """A schema and all those inside it."""
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise ValueError(f"{place} is no schema: {schema!r}")
    yield place, schema
    for name in ("properties", "$defs"):
        for key, part in schema.get(name, {}).items():
            yield from _parts(part, f"{place}.{name}.{key}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _parts(schema[name], f"{place}.{name}")
    for name in ("anyOf", "oneOf", "allOf"):
        for index, part in enumerate(schema.get(name, [])):
            yield from _parts(part, f"{place}.{name}[{index}]")


def _faults(value: Any, schema: Any, place: str, root: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(schema, bool):
        if not schema:
            yield f"{place} is not allowed"
        return
    if "$ref" in schema:
        yield from _faults(value, _resolved(schema["$ref"], root), place, root)
    kinds = schema.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not any(_is(value, kind) for kind in kinds):
            yield f"{place} must be {' or '.join(kinds)}, not {_shown(value)}"
            return
    if "enum" in schema and not any(_same(value, choice) for choice in schema["enum"]):
        choices = ", ".join(_shown(choice) for choice in schema["enum"])
        yield f"{place} is {_shown(value)}; it must be one of {choices}"
    if "const" in schema and not _same(value, schema["const"]):
        yield f"{place} is {_shown(value)}; it must be {_shown(schema['const'])}"
    yield from _combined(value, schema, place, root)
    if isinstance(value, dict):
        yield from _object_faults(value, schema, place, root)
    elif isinstance(value, list):
        yield from _array_faults(value, schema, place, root)
    elif isinstance(value, str):
        yield from _text_faults(value, schema, place)
    elif _is(value, "number"):
        yield from _number_faults(value, schema, place)


def _combined(
    value: Any, schema: Mapping[str, Any], place: str, root: Mapping[str, Any]
) -> Iterator[str]:
    for part in schema.get("allOf", []):
        yield from _faults(value, part, place, root)
    for name in ("anyOf", "oneOf"):
        if name not in schema:
            continue
        tries = [list(_faults(value, part, place, root)) for part in schema[name]]
        met = sum(not found for found in tries)
        if met == 0:
            every = " or: ".join("; ".join(found) for found in tries)
            yield f"{place} meets none of the alternatives: {every}"
        elif name == "oneOf" and met > 1:
            yield f"{place} meets {met} of the alternatives; it must meet exactly one"


def _object_faults(
    value: dict[str, Any], schema: Mapping[str, Any], place: str, root: Mapping[str, Any]
) -> Iterator[str]:
    known = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{place}.{name} is missing"
    for name, item in value.items():
        if name in known:
            yield from _faults(item, known[name], f"{place}.{name}", root)
        elif schema.get("additionalProperties", True) is False:
            allowed = f"; allowed are {', '.join(known)}" if known else ""
            yield f"{place}.{name} is not allowed{allowed}"
        else:
            extra = schema.get("additionalProperties", True)
            yield from _faults(item, extra, f"{place}.{name}", root)
    yield from _bounds(len(value), schema, "Properties", f"the number of keys of {place}")


def _array_faults(
    value: list[Any], schema: Mapping[str, Any], place: str, root: Mapping[str, Any]
) -> Iterator[str]:
    for index, item in enumerate(value if "items" in schema else []):
        yield from _faults(item, schema["items"], f"{place}[{index}]", root)
    yield from _bounds(len(value), schema, "Items", f"the length of {place}")
    if schema.get("uniqueItems"):
        for index, item in enumerate(value):
            if any(_same(item, earlier) for earlier in value[:index]):
                yield f"{place}[{index}] is there twice"


def _text_faults(value: str, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    yield from _bounds(len(value), schema, "Length", f"the length of {place}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{place} is {_shown(value)}; it must match {schema['pattern']}"


def _number_faults(value: float, schema: Mapping[str, Any], place: str) -> Iterator[str]:
    if "minimum" in schema and not value >= schema["minimum"]:
        yield f"{place} is {value}; it must be at least {schema['minimum']}"
    if "maximum" in schema and not value <= schema["maximum"]:
        yield f"{place} is {value}; it must be at most {schema['maximum']}"
    if "exclusiveMinimum" in schema and not value > schema["exclusiveMinimum"]:
        yield f"{place} is {value}; it must be more than {schema['exclusiveMinimum']}"
    if "exclusiveMaximum" in schema and not value < schema["exclusiveMaximum"]:
        yield f"{place} is {value}; it must be less than {schema['exclusiveMaximum']}"
    step = schema.get("multipleOf")
    if step is not None and abs(value / step - round(value / step)) > 1e-9:
        yield f"{place} is {value}; it must be a multiple of {step}"


def _bounds(length: int, schema: Mapping[str, Any], unit: str, what: str) -> Iterator[str]:
    low, high = schema.get(f"min{unit}"), schema.get(f"max{unit}")
    if low is not None and length < low:
        yield f"{what} is {length}; it must be at least {low}"
    if high is not None and length > high:
        yield f"{what} is {length}; it must be at most {high}"


def _is(value: object, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    if kind == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES[kind])


def _same(first: object, second: object) -> bool:
    """Equality of JSON, where true is not 1."""
    return first == second and isinstance(first, bool) == isinstance(second, bool)


def _resolved(ref: str, root: Mapping[str, Any]) -> Any:
    if ref == "#":
        return root
    name = ref.removeprefix("#/$defs/")
    if name == ref or name not in root.get("$defs", {}):
        raise ValueError(f"$ref {ref!r} leads nowhere; it takes # or #/$defs/NAME")
    return root["$defs"][name]


def _shown(value: object) -> str:
    import json

    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
