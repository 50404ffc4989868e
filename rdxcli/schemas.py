"""JSON Schemas of the documents, made from the record types.

``docs/schema/KIND.json`` holds them; `schema` makes one. A document has the fields of `Result.to_document` and those of
its kind; fields that only some documents have (a comparison of regions, a scoreboard) are allowed and not required.
"""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rdxcli import SCHEMA_VERSION, records
from rdxcli.parameters import descriptions
from rdxcli.records import Result

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}


def kinds() -> dict[str, type[Result]]:
    """Record types by the kind of their document."""
    found = [kind for kind in vars(records).values() if inspect.isclass(kind) and issubclass(kind, Result)]
    return {kind.kind: kind for kind in found if kind is not Result}


def schema(kind: type[Result]) -> dict[str, Any]:
    """The JSON Schema of a record's document."""
    written = list(kind(method="", parameters={}, seed=0).to_document())
    fields = _fields(kind)
    described = {name: fields.get(name, {}) for name in written}
    described |= {name: part for name, part in fields.items() if name not in described and name != "arrays"}
    described |= {
        "schema_version": {"const": SCHEMA_VERSION},
        "kind": {"const": kind.kind},
        "artifact": {"type": ["string", "null"], "description": "Folder of the artifact."},
    }
    return {
        "$schema": DIALECT,
        "title": kind.kind,
        "description": (inspect.getdoc(kind) or "").partition("\n")[0],
        "type": "object",
        "properties": {
            name: described[name] for name in [*written, *(name for name in described if name not in written)]
        },
        "required": written,
    }


def _fields(kind: type) -> dict[str, Any]:
    """The schema of every field of a dataclass, with its description."""
    hints, said = get_type_hints(kind), descriptions(*reversed(kind.__mro__))
    return {
        part.name: {**_of_type(hints[part.name]), **({"description": said[part.name]} if said.get(part.name) else {})}
        for part in dataclasses.fields(kind)
    }


def _of_type(kind: Any) -> dict[str, Any]:
    origin, parts = get_origin(kind), get_args(kind)
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]}
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        fields = _fields(kind)
        return {"type": "object", "properties": fields, "required": list(fields)}
    if origin is Literal:
        return {"enum": list(parts)}
    if origin in (Union, types.UnionType):
        return {"anyOf": [_of_type(part) for part in parts]}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        values = _of_type(parts[1])
        return {"type": "object", **({"additionalProperties": values} if values else {})}
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return {"type": "array", "items": _of_type(parts[0])}
    return {}
