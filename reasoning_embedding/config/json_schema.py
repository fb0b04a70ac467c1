"""The JSON schema of a configuration, with the sections' own words.

Pydantic can read the strings below attributes while classes are made, but that parses every module at
import and would cost a sixth of a configuration check; only an editor's schema needs them.
"""

from __future__ import annotations

import ast
import inspect
import itertools
import json
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from .reading.sections import sections


def json_schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the JSON schema of a kind of file, each key described by the string below its attribute.

    Unlike `model` it knows ``extends``, which is resolved before a file is checked. A file that extends another need
    not hold the keys that every file must have, and sections may be given in part: of their keys the schema asks for
    ``kind`` alone, and ``rembed config check`` says which others are missing.
    """
    schema = model.model_json_schema()
    parts = {**schema.get("$defs", {}), model.__name__: schema}
    for section in {section for _, section in sections(model)}:
        for name, text in attribute_docs(section).items():
            parts[section.__name__]["properties"][name].setdefault("description", text)
    for part in schema.get("$defs", {}).values():
        if kept := [name for name in part.pop("required", []) if name == "kind"]:
            part["required"] = kept
    schema["properties"]["extends"] = {
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
        "description": "A file, or several, that this one is laid on; paths start at this file's folder.",
        "title": "Extends",
    }
    schema["anyOf"] = [{"required": ["extends"]}, {"required": schema.pop("required")}]
    return schema


def published_schemas(kinds: Mapping[str, type[BaseModel]]) -> dict[str, dict[str, Any]]:
    """Return the schema of each kind of file by file name; what several kinds share stands in ``common.json`` once.

    Parameters
    ----------
    kinds : mapping of str to type
        Kind -> model of its files.

    Returns
    -------
    dict
        ``KIND.json`` -> schema, whose references lead into ``common.json`` beside it.
    """
    schemas = {kind: json_schema(model) for kind, model in kinds.items()}
    versions: dict[str, list[str]] = {}
    for schema in schemas.values():
        for name, part in schema["$defs"].items():
            versions.setdefault(name, []).append(json.dumps(part, sort_keys=True))
    common = {name for name, texts in versions.items() if len(texts) > 1 and len(set(texts)) == 1}
    # What refers to something that is not common is not common: a reference there would lead nowhere.
    parts = {name: part for schema in schemas.values() for name, part in schema["$defs"].items()}
    while lost := {name for name in common if _references(parts[name]) - common}:
        common -= lost
    found: dict[str, dict[str, Any]] = {}
    for kind, schema in schemas.items():
        own = {name: part for name, part in schema.pop("$defs").items() if name not in common}
        text = json.dumps({**schema, "$defs": own})
        for name in common:
            text = text.replace(f'"{_DEFS}{name}"', f'"common.json{_DEFS}{name}"')
        dialect = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
        found[f"{kind}.json"] = dialect | json.loads(text)
    return found | {"common.json": {"$defs": {name: parts[name] for name in sorted(common)}}}


_DEFS = "#/$defs/"


def _references(part: Any) -> set[str]:
    """Names of the definitions that a part of a schema refers to."""
    if isinstance(part, list):
        return {name for item in part for name in _references(item)}
    if not isinstance(part, dict):
        return set()
    own = {part["$ref"].removeprefix(_DEFS)} if isinstance(part.get("$ref"), str) else set()
    return own.union(*(_references(item) for item in part.values())) if part else own


def attribute_docs(section: type[BaseModel]) -> dict[str, str]:
    """Return the strings below the attributes of a section and of its bases, by attribute name.

    Examples
    --------
    >>> from reasoning_embedding.config import Training
    >>> attribute_docs(Training)["batch_size"]
    'Queries a step over all ranks.'
    """
    found: dict[str, str] = {}
    for base in reversed(section.__mro__):
        if base is BaseModel or not issubclass(base, BaseModel):
            continue
        (definition,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        for first, second in itertools.pairwise(
            definition.body if isinstance(definition, ast.ClassDef) else []
        ):
            if (
                isinstance(first, ast.AnnAssign)
                and isinstance(first.target, ast.Name)
                and isinstance(second, ast.Expr)
                and isinstance(second.value, ast.Constant)
                and isinstance(second.value.value, str)
            ):
                found[first.target.id] = inspect.cleandoc(second.value.value)
    return found
